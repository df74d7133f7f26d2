"""The class split: which classes are trained on, validated on and tested on, always explicit."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

from metagen.errors import MetagenError, nearest
from metagen.files import expanded
from metagen.reading import read_json

Classes = Iterable[int | str]


def shares_of(split: str) -> tuple[float, ...] | None:
    """Return the shares that ``a/b/c`` stands for, or None where it is the name of a split.

    Raises:
        MetagenError: the shares do not add up to 1.
    """
    if not re.fullmatch(r"\d*\.?\d+(/\d*\.?\d+){2}", str(split)):
        return None
    shares = tuple(float(part) for part in str(split).split("/"))
    if abs(sum(shares) - 1) > 1e-6:
        raise MetagenError(
            f"data.split={split}: expected shares of train, val and test that add up to 1, as 0.7/0.1/0.2"
        )
    return shares


def _place(name: str) -> float:
    """Return the number in [0, 1) by which a class is dealt out."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def class_names(classes: Classes, where: str) -> tuple[str, ...]:
    """Return class names as strings: on the command line ``7`` and ``"7"`` both name the class "7".

    Raises:
        MetagenError: an entry is neither an integer nor a string, or it is no list.
    """
    if isinstance(classes, str | int) or not isinstance(classes, Iterable):
        raise MetagenError(f"{where} is {classes!r}: expected a list; write {where}=[{classes}]")
    listed = list(classes)
    for entry in listed:
        if isinstance(entry, bool) or not isinstance(entry, int | str):
            raise MetagenError(f"{where} has {entry!r}: expected integers or strings; quote the name")
    return tuple(str(entry) for entry in listed)


def check_known(classes: Iterable[str], names: Iterable[str], bank: str, where: str) -> None:
    """Raise a MetagenError for the first of ``classes`` that is not among ``names``."""
    known = tuple(names)
    for name in sorted(set(classes) - set(known)):
        hint = nearest(name, known) or f"; its {len(known)} classes run from '{known[0]}' to '{known[-1]}'"
        raise MetagenError(f"{where} names the class '{name}', which {bank} does not have{hint}")


@dataclass(frozen=True)
class Split:
    """Three disjoint tuples of class names.

    An empty ``val`` means that validation draws held-out images of the training classes.

    Raises:
        MetagenError: a class is named twice.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        sides = {"train": self.train, "val": self.val, "test": self.test}
        for side, classes in sides.items():
            if len(set(classes)) < len(classes):
                twice = sorted({name for name in classes if classes.count(name) > 1})
                raise MetagenError(f"the {side} classes name {_few(twice)} twice: name each class once")
        for (a, left), (b, right) in combinations(sides.items(), 2):
            if both := sorted(set(left) & set(right)):
                raise MetagenError(
                    f"the {a} and {b} classes overlap in {_few(both)}: name each on one side "
                    f"(task.{a}_classes, task.{b}_classes)"
                )

    @classmethod
    def load(cls, name: str) -> "Split":
        """Read a committed split by its name, or any JSON file by its path.

        The file holds ``{"train": [names], "val": [names], "test": [names]}``.

        Raises:
            MetagenError: no such split, or not of this form.
        """
        committed = {
            file.name[:-5]: file
            for file in files(__package__).joinpath("splits").iterdir()
            if file.name.endswith(".json")
        }
        path: Any = committed.get(str(name)) or expanded(str(name))
        if not path.is_file():
            hint = nearest(str(name), committed) or f"; the splits are {', '.join(sorted(committed))}"
            raise MetagenError(
                f"data.split={name} is neither a split, shares as 0.7/0.1/0.2, nor a JSON file that holds "
                f'{{"train": [names], "val": [names], "test": [names]}}{hint}'
            )
        try:
            content = read_json(path) if isinstance(path, Path) else json.loads(path.read_bytes())
            sides = {side: content[side] for side in ("train", "val", "test")}
        except (ValueError, KeyError, TypeError) as error:
            raise MetagenError(
                f"{path}: expected JSON lists train, val and test, found {type(error).__name__}: {error}"
            ) from error
        return cls(**{side: class_names(classes, side) for side, classes in sides.items()})

    @classmethod
    def by_shares(cls, names: Iterable[str], shares: Sequence[float]) -> "Split":
        """Deal the classes out by a hash of their names, so that a new class moves no other.

        A class goes to train, val or test as u = h / 2^64 lies below s_1, below s_1 + s_2 or above, with h
        the first 64 bits of the SHA-256 of its name. So the sides have their shares s on average. A side
        with a share that would get none takes from the largest side the class whose u is nearest to its own
        part of [0, 1], if there are as many classes as shares.
        """
        places = {name: _place(name) for name in names}
        bounds = (0.0, shares[0], shares[0] + shares[1], 1.0)
        sides: tuple[list[str], list[str], list[str]] = ([], [], [])
        for name, u in places.items():
            sides[0 if u < bounds[1] else 1 if u < bounds[2] else 2].append(name)
        wanted = [i for i, share in enumerate(shares) if share > 0]
        for i in wanted if len(places) >= len(wanted) else ():
            if not sides[i]:
                middle, largest = (bounds[i] + bounds[i + 1]) / 2, max(sides, key=len)
                nearest_one = min(largest, key=lambda name: abs(places[name] - middle))
                largest.remove(nearest_one)
                sides[i].append(nearest_one)
        return cls(*map(tuple, sides))

    def override(
        self,
        names: Iterable[str],
        train: Classes | None = None,
        val: Classes | None = None,
        test: Classes | None = None,
    ) -> "Split":
        """Return this split with other classes on some sides; ``names`` are all classes of the bank.

        Where ``val`` or ``test`` is given and ``train`` is not, the training classes become all that
        are in neither, and an inherited ``val`` loses the classes of the new ``test``.
        """
        tests = self.test if test is None else class_names(test, "task.test_classes")
        vals = (
            tuple(name for name in self.val if test is None or name not in tests)
            if val is None
            else class_names(val, "task.val_classes")
        )
        if train is not None:
            trains = class_names(train, "task.train_classes")
        elif val is None and test is None:
            trains = self.train
        else:
            trains = tuple(name for name in names if name not in {*vals, *tests})
        return Split(trains, vals, tests)

    def check(self, names: Iterable[str], bank: str) -> None:
        """Raise a MetagenError where a class is not among ``names``, the classes of ``bank``."""
        known = tuple(names)
        for side in ("train", "val", "test"):
            check_known(getattr(self, side), known, bank, f"the {side} side of the split")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"'{name}'" for name in names[:5]) + more
