"""What surrounds a job: its run folder, kept only where something came of it, and the warnings."""

import ctypes
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from metagen.cli import conf_dir
from metagen.errors import MetagenError, TrainingInterruptedError

log = logging.getLogger(__name__)

NOISE = (
    "does not have many workers", "IterableDataset", "LeafSpec", "No device id", "srun", "GPU available",
    "sync_dist",
)  # fmt: skip

NOTHING = (".hydra", "*.log")
"""What is in the folder of a run that has not begun."""
STARTED = (*NOTHING, "events.out.*", "hparams.yaml")
"""What is in the folder of a run without a checkpoint or a result."""


@contextmanager
def guarded() -> Iterator[None]:
    """Run a job; where it fails before it produced anything, its folder goes away again."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    quiet()
    try:
        yield
    except BaseException as error:
        if HydraConfig.get().output_subdir == ".hydra":  # else the folder is that of a resumed run
            leave(folder, STARTED if isinstance(error, TrainingInterruptedError) else NOTHING)
        raise


def quiet() -> None:
    """Set up a process that trains: its allocator, and no warnings of what is meant."""
    keep_freed_memory()
    for text in NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}.*")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def leave(folder: Path, worthless: Sequence[str] = NOTHING) -> None:
    """Remove a run's folder in which nothing came about."""
    folder = folder.absolute()
    if all(any(map(path.match, worthless)) for path in folder.iterdir()):
        for handler in list(logging.getLogger().handlers):
            if isinstance(handler, logging.FileHandler) and folder in Path(handler.baseFilename).parents:
                logging.getLogger().removeHandler(handler)  # it would open its file again
                handler.close()
        shutil.rmtree(folder, ignore_errors=True)
        here = Path.cwd()
        # outputs/DATE and outputs go, too, where they are empty now.
        with suppress(OSError):
            for parent in folder.parents:
                if here in parent.parents:
                    parent.rmdir()


def keep_freed_memory() -> None:
    """Let glibc's allocator keep the memory that is freed, for the rest of the process.

    By default it returns every large block to the system, which hands it out again page by page:
    measured on a training step, up to a quarter of the time, and half of it in threads, whose own
    arenas cannot hold large blocks: so there is one arena for all. Other allocators stay as they are.
    """
    trim_threshold, mmap_max, arena_max = -1, -4, -8
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(arena_max, 1)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, -1)


def merged(saved: Sequence[str], new: Sequence[str]) -> list[str]:
    """Return the saved overrides and the new ones; of two for the same key the new one counts."""

    def key(override: str) -> str:
        return override.partition("=")[0].lstrip("+~")

    replaced = {key(override) for override in new}
    return [override for override in saved if key(override) not in replaced] + list(new)


def saved_overrides(run: str | Path, which: str = "best") -> tuple[list[str], Path]:
    """Return the overrides by which a run was made and its checkpoint.

    Raises:
        MetagenError: the folder is no run, or has no checkpoint.
    """
    saved, checkpoint = run_overrides(run), Path(run) / "checkpoints" / f"{which}.ckpt"
    if not checkpoint.is_file():
        raise MetagenError(f"{run} has no checkpoint ({checkpoint.name}): train it to the end first")
    return saved, checkpoint


def run_overrides(run: str | Path) -> list[str]:
    """Return the overrides by which a run was made.

    Raises:
        MetagenError: the folder is no run's.
    """
    folder = Path(run)
    overrides = folder / ".hydra" / "overrides.yaml"
    if not folder.is_dir():
        raise MetagenError(f"no folder {folder}: name a run's folder, such as outputs/DATE/TIME")
    if not overrides.is_file():
        raise MetagenError(f"{folder} is no run's folder: it has no .hydra/overrides.yaml")
    saved = OmegaConf.to_container(OmegaConf.load(overrides))
    if not isinstance(saved, list):
        raise MetagenError(f"{overrides} is no list of overrides: name another run")
    return own_overrides([str(item) for item in saved], overrides)


def own_overrides(overrides: Sequence[str], source: object) -> list[str]:
    """Return those of a run's saved overrides that act on its own configuration.

    Hydra saves no others: an option of the command line, an override of Hydra itself (which can name a
    function to call) or a choice outside of ``conf`` was written by hand, and is left out with a warning.
    """
    foreign = [text for text in overrides if _foreign(text)]
    for text in foreign:
        log.warning("%s: '%s' is no override of a run and is left out", source, text)
    return [text for text in overrides if text not in foreign]


def _foreign(text: str) -> bool:
    try:
        one = OverridesParser.create().parse_override(text)
    except HydraException:
        return True
    places = (one.key_or_group, one.package or "")
    if any(place.startswith(("hydra", "_global_.hydra")) for place in places):
        return True
    if not (conf_dir() / one.key_or_group).is_dir():
        return False
    value = one.value()
    choices = [str(choice) for choice in (value if isinstance(value, list) else [value])]
    return any(choice.startswith(("/", "~")) or ".." in choice for choice in choices)
