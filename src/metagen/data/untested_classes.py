"""Real images of the classes that are not tested."""

from collections.abc import Collection

import torch
from torch import Tensor

from metagen.data import pixels
from metagen.data.bank import Bank
from metagen.errors import MetagenError
from metagen.functional import rng

_KEY = rng.key(0x6F7468)


def untested_classes(bank: Bank, tested: Collection[str], each: int = 16) -> tuple[Tensor, Tensor]:
    """Return images of the R classes that are not ``tested``, to learn from and to test on.

    Both are (R, ``each``, C, H, W) in [0, 1]; those to test on are held images where the bank has any, and
    else simply others.

    Raises:
        MetagenError: there is no such class, or one has too few images.
    """
    rest = [label for label, name in enumerate(bank.names) if name not in tested]
    if not rest:
        raise MetagenError(
            f"all classes of {bank.name} are tested, so that a new class cannot be told from the known: "
            f"leave the metrics cas_rest* out"
        )
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for label in rest:
        rows = (bank.labels == label).nonzero()[:, 0]
        rows = rows[rng.subset(rng.fold_in(_KEY, label), len(rows), len(rows))]
        held = bank.held[rows]
        sides = (rows[~held], rows[held]) if bool(bank.held.any()) else (rows[:each], rows[each:])
        if min(map(len, sides)) < each:
            raise MetagenError(
                f"the metrics cas_rest* need {2 * each} images of '{bank.names[label]}' of {bank.name}, "
                f"which has {len(rows)}: leave them out"
            )
        for part, side in zip(parts, sides, strict=True):
            part.append(pixels.unit(bank.images[side[:each]]))
    return torch.stack(parts[0]), torch.stack(parts[1])
