"""Images of ink as sequences of patches, each one of 2^(h w) symbols, in the order in which they are read."""

import torch
import torch.nn.functional as F
from torch import Tensor

ABOVE, ASIDE = 3, 2
"""A patch is embedded by the known patches of the 3 rows above it, 2 to either side, and 2 to its left."""
WINDOW = ABOVE * (2 * ASIDE + 1) + ASIDE
"""Patches that are seen from one."""


class Patches:
    """The patches of h x w pixels of an image of S x S: L = S^2 / (h w) of them, each of h w bits."""

    def __init__(self, size: int, patch: tuple[int, int]) -> None:
        self.patch, self.grid = patch, (size // patch[0], size // patch[1])
        self.bits, self.length = patch[0] * patch[1], self.grid[0] * self.grid[1]

    def split(self, x: Tensor) -> Tensor:
        """Map images (..., 1, S, S) to patches (..., L, bits) of 1, ink above 1/2, and -1."""
        return torch.where(self.parts(x) > 0.5, 1.0, -1.0)

    def parts(self, x: Tensor) -> Tensor:
        """Map feature maps (..., C, S, S) to (..., L, C h w), what each patch holds."""
        x = x.unflatten(-1, (self.grid[1], self.patch[1])).unflatten(-3, (self.grid[0], self.patch[0]))
        return x.movedim((-4, -2), (-5, -4)).flatten(-3).flatten(-3, -2)

    def image(self, patches: Tensor) -> Tensor:
        """Map patches (B, L, bits) to images (B, 1, S, S)."""
        x = patches.unflatten(1, self.grid).unflatten(-1, self.patch).transpose(2, 3)
        return x.flatten(3, 4).flatten(1, 2)[:, None]

    def window(self, patches: Tensor) -> Tensor:
        """Return the known patches around each, (B, L, bits) to (B, L, WINDOW bits); 0 where none are."""
        rows, columns = self.grid
        x = patches.unflatten(1, self.grid)
        x = F.pad(x, (0, 0, ASIDE, ASIDE, ABOVE, 0))
        offsets = [(up, ASIDE + s) for up in range(ABOVE) for s in range(-ASIDE, ASIDE + 1)]
        offsets += [(ABOVE, s) for s in range(ASIDE)]
        return torch.cat([x[:, r : r + rows, s : s + columns] for r, s in offsets], -1).flatten(1, 2)

    def next_window(self, known: Tensor) -> Tensor:
        """Return what is seen from the next patch, (B, 1, WINDOW bits), when some are known, (B, j, bits)."""
        row, column = divmod(known.shape[1], self.grid[1])
        places = [(row - ABOVE + up, column - ASIDE + s) for up in range(ABOVE) for s in range(2 * ASIDE + 1)]
        places += [(row, column - ASIDE + s) for s in range(ASIDE)]
        inside = [r >= 0 and 0 <= c < self.grid[1] for r, c in places]
        index = [1 + r * self.grid[1] + c if here else 0 for (r, c), here in zip(places, inside, strict=True)]
        blank = known.new_zeros(known.shape[0], 1, self.bits)
        return torch.cat([blank, known], 1)[:, index].flatten(1)[:, None]

    def symbols(self, patches: Tensor) -> Tensor:
        """Map patches (..., bits) to their symbols (...), whole numbers below 2^bits."""
        return ((patches > 0).long() * self._powers(patches)).sum(-1)

    def of_symbols(self, symbols: Tensor) -> Tensor:
        """Map symbols (B,) to patches (B, bits) of 1 and -1."""
        return 2 * ((symbols[:, None] // self._powers(symbols)) % 2) - 1

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Return patches (B, bits), drawn by logits (B, 2^bits) with the help of uniform numbers (B,)."""
        p = logits.softmax(-1)
        symbol = (p.cumsum(-1) < uniform[:, None]).sum(-1).clamp(max=p.shape[-1] - 1)
        return self.of_symbols(symbol).to(p)

    def _powers(self, like: Tensor) -> Tensor:
        return 2 ** torch.arange(self.bits, device=like.device)
