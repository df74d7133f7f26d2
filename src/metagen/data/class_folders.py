"""What lies in a folder of class folders, and what is passed over there."""

import logging
from pathlib import Path

from PIL import Image

from metagen.data.photographs import FORMATS, SUFFIXES, UNREAD
from metagen.errors import MetagenError
from metagen.files import natural_key
from metagen.reading import opened

_LOG = logging.getLogger(__name__)
JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
_OF_PROGRAMS = (".thumbnails", ".trash", ".ipynb_checkpoints", ".picasaoriginals", ".appledouble", ".cache")


def class_folders(root: Path) -> list[Path]:
    """Return the folders in ``root`` in natural order; those with a leading dot are passed over.

    Raises:
        MetagenError: no such folder, an empty one, or one in which files lie directly.
    """
    found = entries(root)
    loose = [path for path in found if not path.is_dir()]
    if loose:
        name = next(filter(_is_picture, loose), loose[0]).name
        picture = _is_picture(root / name)
        remedy = f"move it to {root}/CLASS/{name}" if picture else "it is no image, remove it"
        raise MetagenError(f"{root} must hold one folder per class, but {name} lies directly in it: {remedy}")
    warn_of_hidden(root)
    if not found:
        raise MetagenError(f"{root} is empty: it must hold one folder per class with image files each")
    return found


def entries(folder: Path) -> list[Path]:
    """Return the visible entries of a folder in natural order.

    Raises:
        MetagenError: it is no folder, or cannot be read.
    """
    if not folder.exists():
        raise MetagenError(f"there is no folder {folder}")
    if not folder.is_dir():
        raise MetagenError(f"{folder} must be a folder of images, but it is a file")
    try:
        found = [p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in JUNK]
    except OSError as error:
        raise MetagenError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(found, key=lambda p: (natural_key(p.name), p.name))


def warn_of_hidden(root: Path) -> None:
    """Warn of folders of pictures in ``root`` that are passed over, since their names begin with a dot."""
    names = sorted(path.name for path in root.iterdir() if _is_hidden_class(path))
    if names:
        _LOG.warning("%s: left out, as names that begin with a dot are: %s", root, ", ".join(names))


def _is_hidden_class(path: Path) -> bool:
    if not path.name.startswith(".") or path.name.lower().startswith(_OF_PROGRAMS):
        return False
    try:
        return path.is_dir() and any(file.suffix.lower() in SUFFIXES for file in path.iterdir())
    except OSError:
        return False


def _is_picture(path: Path) -> bool:
    """Return whether a file is one by its name, or by what it holds."""
    if path.suffix.lower() in SUFFIXES | UNREAD:
        return True
    try:
        with opened(path) as file, Image.open(file, formats=FORMATS):
            return True
    except Exception:  # whatever is wrong with it
        return False
