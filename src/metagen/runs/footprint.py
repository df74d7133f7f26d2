"""The footprint of a process in a folder, so that it can take back exactly that."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


class Footprint:
    """A folder as it was before, and what may be removed from it again.

    Nothing that was there before is ever removed, nor anything that the process is not known to write.

    Args:
        folder: it need not exist.
        own: glob patterns of the entries that the process writes directly into it.
    """

    def __init__(self, folder: Path, own: Sequence[str]) -> None:
        self.folder, self.own = folder, tuple(own)
        self._before = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        self._missing = [path for path in (folder, *folder.parents) if not path.exists()]

    def undo(self) -> None:
        """Remove what is new, and the folders that were made for it as far as they are empty now."""
        remove(self.folder, self.own, self._before)
        with suppress(OSError):
            for folder in self._missing:
                folder.rmdir()


def remove(folder: Path, own: Sequence[str], kept: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Remove the entries of ``folder`` that match a pattern of ``own``, but for those that are ``kept``."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path.name in kept or not any(map(path.match, own)):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
