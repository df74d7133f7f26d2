"""How far networks halve their images."""

from metagen.errors import MetagenError

COARSEST = 8
"""Side from which on maps are not halved again."""


def halvings(size: int, model: str) -> int:
    """Return how often ``model`` halves images of this size: twice, then while the side is even and above 8.

    28 becomes 7 in two halvings, 64 becomes 8 in three, 128 in four.

    Raises:
        MetagenError: the side cannot be halved twice.
    """
    if size < 4 or size % 4:
        raise MetagenError(f"model.size={size}: expected a multiple of 4, to be halved twice by {model}")
    side, count = size // 4, 2
    while side > COARSEST and side % 2 == 0:
        side, count = side // 2, count + 1
    return count


def poolings(size: int) -> int:
    """Return how often a classifier pools images of side ``size``: twice, then while the side is above 8."""
    side, count = size // 4, 2
    while side > COARSEST:
        side, count = side // 2, count + 1
    return count
