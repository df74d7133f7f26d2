"""The folder of a run, kept only where something came of it."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from metagen.errors import TrainingInterruptedError

NOTHING = (".hydra", "*.log")
"""What is in the folder of a run that has not begun."""
STARTED = (*NOTHING, "events.out.*", "hparams.yaml")
"""What is in the folder of a run without a checkpoint or a result."""


@contextmanager
def guarded() -> Iterator[None]:
    """Run a job; where it fails before it produced anything, its folder goes away again."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        yield
    except BaseException as error:
        if HydraConfig.get().output_subdir == ".hydra":  # else the folder is that of a resumed run
            leave(folder, STARTED if isinstance(error, TrainingInterruptedError) else NOTHING)
        raise


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
