"""What surrounds a job: its run folder, kept only where something came of it, and the warnings."""

import ctypes
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from metagen.errors import MetagenError

NOISE = ("does not have many workers", "IterableDataset", "LeafSpec", "No device id", "srun", "GPU available")


@contextmanager
def guarded() -> Iterator[None]:
    """Run a job; where it fails before it produced anything, its folder goes away again."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    keep_freed_memory()
    for text in NOISE:
        warnings.filterwarnings("ignore", message=f".*{text}.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        yield
    except BaseException:
        if _is_empty(folder):
            logging.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
            here = Path.cwd()
            # outputs/DATE and outputs go, too, where they are empty now.
            with suppress(OSError):
                for parent in folder.parents:
                    if here in parent.parents:
                        parent.rmdir()
        raise


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


def _is_empty(folder: Path) -> bool:
    """Return whether a run folder holds nothing but its configuration and log."""
    return all(path.name == ".hydra" or path.suffix == ".log" for path in folder.iterdir())


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
    folder = Path(run)
    overrides, checkpoint = folder / ".hydra" / "overrides.yaml", folder / "checkpoints" / f"{which}.ckpt"
    if not folder.is_dir():
        raise MetagenError(f"no folder {folder}: name a run's folder, such as outputs/DATE/TIME")
    if not overrides.is_file():
        raise MetagenError(f"{folder} is no run's folder: it has no .hydra/overrides.yaml")
    if not checkpoint.is_file():
        raise MetagenError(f"{folder} has no checkpoint ({checkpoint.name}): train it to the end first")
    saved = OmegaConf.to_container(OmegaConf.load(overrides))
    assert isinstance(saved, list)
    return [str(item) for item in saved], checkpoint
