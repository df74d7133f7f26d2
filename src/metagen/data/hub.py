"""A data set of the Hugging Face hub, or a folder in its format, as a bank."""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset as TorchData

from metagen.data.dataset import ImageChannels, ImageSide
from metagen.data.photographs import Fit
from metagen.data.torch_dataset import TorchDataset
from metagen.errors import MetagenError, installing
from metagen.files import expanded
from metagen.ranges import Text, checked


class Hub(TorchDataset):
    """Images and classes of a data set that the package ``datasets`` reads (extra ``hub``).

    Args:
        path: its name on the hub, such as ``uoft-cs/cifar100``, or a folder: one written by ``save_to_disk``,
            or one that ``load_dataset`` takes.
        image, label: names of the two columns.
        subset: which configuration, where there are several.
        train, held: names of the parts whose images are trained on and held out; null holds none out.
        root, size, split, cache, channels: see :class:`metagen.data.dataset.Dataset`.
        fit: see :class:`TorchDataset`.

    Raises:
        MetagenError: the package is not installed, or the data set is not to be had or lacks a column.
    """

    @checked
    def __init__(
        self,
        path: str,
        image: str = "image",
        label: str = "label",
        subset: str | None = None,
        train: str = "train",
        held: str | None = None,
        root: Text = "data",
        size: ImageSide = 28,
        split: str = "0.7/0.1/0.2",
        cache: str | None = None,
        channels: ImageChannels | None = None,
        fit: Fit = "crop",
    ) -> None:
        rows = [_rows(path, subset, part, image, label) for part in (train, held) if part is not None]
        super().__init__(
            rows[0], rows[1] if held is not None else None, root, size, split, cache, channels, fit
        )
        self.name = Path(path).name
        self.version = "-".join(row.fingerprint for row in rows)

    def params(self) -> dict[str, Any]:
        """Return the fingerprints of the parts, which tell their content."""
        return {"version": self.version, "fit": self.fit}


class _Rows(TorchData):
    """The rows of one part as (image, label)."""

    def __init__(self, table: Any, image: str, label: str) -> None:
        for column in (image, label):
            if column not in table.column_names:
                raise MetagenError(
                    f"data.image and data.label: there is no column '{column}' (it has "
                    f"{', '.join(table.column_names)}): name those of the image and its class"
                )
        self.table, self.image = table, image
        self.targets = list(table[label])
        self.classes = getattr(table.features[label], "names", None)
        self.fingerprint = str(table._fingerprint)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return self.table[row][self.image], self.targets[row]


def _rows(path: str, subset: str | None, part: str, image: str, label: str) -> _Rows:
    try:
        import datasets
    except ImportError as error:
        raise MetagenError(f"data=hub needs its extra: {installing('hub')}") from error
    saved = expanded(path)
    kept = any((saved / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        found = datasets.load_from_disk(str(saved)) if kept else datasets.load_dataset(path, subset)
    except Exception as error:  # whatever the hub, the network or the files have to say
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise MetagenError(
            f"data.path={path} cannot be loaded ({reason}): name a data set or a folder"
        ) from error
    if isinstance(found, dict):
        if part not in found:
            raise MetagenError(
                f"{path} has no part '{part}': set data.train or data.held to one of {', '.join(found)}"
            )
        found = found[part]
    return _Rows(found, image, label)
