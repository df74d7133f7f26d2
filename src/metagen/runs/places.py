"""The places of trained runs: folders, models that ship with metagen, repositories of a hub."""

import re
from os import PathLike
from pathlib import Path
from typing import Any

from metagen.errors import MetagenError, UsageError, installing, nearest

SHIPPED = Path(__file__).parents[1] / "pretrained"
"""Where the models lie that ship with metagen."""

_HUB = re.compile(r"hf:/{1,2}(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_SHIPPED = re.compile(r"pretrained/(?P<name>[\w.-]+)/?")


def located(run: str | Path) -> Path:
    """Return the folder of a trained run.

    Args:
        run: a folder; or ``pretrained/NAME``, which ships with metagen, unless there is such a folder here;
            or ``hf://OWNER/NAME`` of the Hugging Face hub, with ``@REVISION`` if wanted, which is downloaded
            once (extra ``hub``).

    Raises:
        MetagenError: nothing ships under that name, or the repository is not to be had.
    """
    folder, text = folder_of(run), str(run)
    if found := _HUB.fullmatch(text):
        return _downloaded(found["name"], found["revision"])
    found = _SHIPPED.fullmatch(text)
    if not found or folder.exists():
        return folder
    known = sorted(path.name for path in SHIPPED.glob("*") if path.is_dir())
    if found["name"] not in known:
        raise MetagenError(
            f"no model {text} ships with metagen{nearest(found['name'], known)} "
            f"(there {'are: ' + ', '.join(known) if known else 'is none'}), and there is no such folder"
        )
    return SHIPPED / found["name"]


def folder_of(run: Any) -> Path:
    """Return the folder that was named in Python.

    Raises:
        UsageError: it is no path.
    """
    if not isinstance(run, str | PathLike):
        what = "None" if run is None else type(run).__name__
        raise UsageError(f"expected the path of a run's folder, as in 'outputs/quickstart', not {what}")
    return Path(run)


def _downloaded(name: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MetagenError(f"hf://{name} needs the extra hub: {installing('hub')}") from error
    patterns = ["model.safetensors", "README.md", ".hydra/*.yaml"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the library has dozens, its own, of the network and of the disk
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MetagenError(f"no hf://{name} ({reason}): check the name and the network") from error
