"""Missing files from the network, through torchvision: checksums, a progress bar, nothing half-written."""

import http.client
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from metagen.errors import MetagenError
from metagen.files import scratch

_TIMEOUT = 30.0


class Remote(NamedTuple):
    """Where a file can be had, and its MD5."""

    urls: Sequence[str]
    md5: str


@contextmanager
def _timeout() -> Iterator[None]:
    """Let a dead connection fail: ``urlopen`` in torchvision waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or _TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def download(folder: Path, files: Mapping[str, Remote], name: str) -> None:
    """Download ``files`` (name -> where) into ``folder``; each appears only when complete and checked.

    Raises:
        MetagenError: no source works, or the folder cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    for file, remote in files.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with scratch(folder, file) as partial, _timeout():
                _fetch(file, remote, str(partial))
                os.replace(partial / file, folder / file)
        except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            _remove_empty(made)
            absent = [file for file in files if not (folder / file).is_file()]
            raise MetagenError(missing(name, folder, absent, reason)) from error


def _remove_empty(folders: Sequence[Path]) -> None:
    """Take the folders away that were made for nothing, the innermost first."""
    for path in folders:
        with suppress(OSError):
            path.rmdir()


def missing(name: str, folder: Path, files: Sequence[str], reason: str) -> str:
    """Return the one line for data that is neither here nor to be had."""
    return (
        f"{name}: {', '.join(files)} not found in {folder} and the download failed ({reason}): connect to "
        f"the network, set data.root (or METAGEN_DATA) to a folder that has the data, or use data=digits"
    )


def _fetch(file: str, remote: Remote, folder: str) -> None:
    from torchvision.datasets.utils import download_url  # imports slowly, and is needed once

    for url in remote.urls:
        try:
            return download_url(url, folder, filename=file, md5=remote.md5)
        except (OSError, RuntimeError, ValueError, http.client.HTTPException):
            if url == remote.urls[-1]:
                raise
    return None
