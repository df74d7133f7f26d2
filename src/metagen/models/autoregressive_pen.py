"""A pen that draws the ink of a deformed image anew patch by patch, each given all of the ink before it."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.functional.rows import in_parts
from metagen.models.context_attention import RMSNorm, merge
from metagen.models.layers import Conv2d
from metagen.models.patches import WINDOW, Patches
from metagen.models.shades import Shades

PATCH = (2, 4)
"""256 symbols; a divisor of every size that is a multiple of four."""


class AutoregressivePen(nn.Module):
    r"""p(x | c, f) = p(b | c, f) p(x | b), with b the ink of x, what is above 1/2, and c the deformed image.

    .. math:: p(b | c, f) = \prod_j p(s_j | s_{<j}, c, f)

    with s_j the j-th patch of 2 x 4 pixels as one of 256 symbols, by a causal transformer (van den Oord et
    al.: *Conditional image generation with PixelCNN decoders*, NeurIPS 2016; Chen et al.: *Generative
    pretraining from pixels*, ICML 2020). Each token knows the patches around it that are drawn already, and
    all of c around it. p(x | b) is a point, E[x | b], found by :class:`metagen.models.shades.Shades`.
    """

    def __init__(self, size: int, features: int, width: int, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise MetagenError(f"model.pen_channels={width}: expected a multiple of {heads}, such as 96")
        self.patches = Patches(size, PATCH)
        few = max(8, width // 4)
        self.draft = nn.Sequential(
            Conv2d(1, few, 3, padding=1), nn.SiLU(), Conv2d(few, few, 3, padding=1), nn.SiLU()
        )
        self.enter = nn.Linear(few * self.patches.bits, width)
        self.around = nn.Sequential(
            nn.SiLU(), Conv2d(width, width, 3, padding=1), nn.SiLU(), Conv2d(width, width, 3, padding=1)
        )
        self.place = nn.Parameter(0.02 * torch.randn(self.patches.length, width))
        self.look = nn.Linear(WINDOW * self.patches.bits, width)
        self.given = nn.Linear(features, width)
        self.blocks = nn.ModuleList(CausalBlock(width, heads) for _ in range(layers))
        self.norm = RMSNorm(width)
        self.symbols = nn.Linear(width, 2**self.patches.bits)
        self.grey = Shades()

    def forward(self, x: Tensor, c: Tensor, features: Tensor) -> Tensor:
        """Return -log p(b | c, f) and the cross-entropy of the greys, (B,) nats an image.

        x and c are (B, 1, S, S), features (B, F).
        """
        patches = self.patches.split(x).to(c)
        h = self.look(self.patches.window(patches)) + self._given(c, features)
        for block in self._layers():
            h = block(h)
        log_p = self.symbols(self.norm(h)).log_softmax(-1)
        ink = -log_p.gather(-1, self.patches.symbols(patches)[..., None])[..., 0].sum(-1)
        return ink + self.grey.error(self.patches.image(patches), x)

    def sample(self, c: Tensor, features: Tensor, key: Tensor, temperature: float = 1.0) -> Tensor:
        """Return images (B, 1, S, S): c drawn anew, by symbols of probability proportional to p^(1 / T)."""
        draws = rng.uniform(key, (c.shape[0], self.patches.length), c.dtype)
        return in_parts(partial(self._drawn, temperature=temperature), c, features, draws)

    def _drawn(self, c: Tensor, features: Tensor, draws: Tensor, temperature: float) -> Tensor:
        """Return images (B, 1, S, S) from uniform numbers, one for each patch."""
        given, known = self._given(c, features), c.new_zeros(c.shape[0], 0, self.patches.bits)
        seen = [block.nothing(given) for block in self._layers()]
        for j in range(self.patches.length):
            h = self.look(self.patches.next_window(known)) + given[:, j : j + 1]
            for block, both in zip(self._layers(), seen, strict=True):
                h = block.extend(h, both, j)
            logits = self.symbols(self.norm(h))[:, 0] / max(temperature, 1e-6)
            known = torch.cat([known, self.patches.draw(logits, draws[:, j])[:, None]], 1)
        return self.grey.draw(self.patches.image(known))

    def _given(self, c: Tensor, features: Tensor) -> Tensor:
        """Return what each patch knows of c and f, (B, L, width)."""
        tokens = self.enter(self.patches.parts(self.draft(2 * c - 1)))
        around = self.around(tokens.mT.unflatten(-1, self.patches.grid)).flatten(2).mT
        return tokens + around + self.place + self.given(features)[:, None]

    def _layers(self) -> "list[CausalBlock]":
        return list(self.blocks)  # type: ignore[arg-type]


class CausalBlock(nn.Module):
    """h + attention(h) + mlp(h): to the patches before each, then pointwise."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(2))
        self.enter, self.leave = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Map tokens (B, L, width)."""
        q, k, v = map(self._split, self.enter(self.norms[0](h)).chunk(3, -1))
        scores = q @ k.mT * q.shape[-1] ** -0.5
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool, device=h.device).tril()
        return self._finish(h, scores.masked_fill(~causal, -torch.inf).softmax(-1) @ v)

    def extend(self, h: Tensor, seen: Tensor, j: int) -> Tensor:
        """Map token j (B, 1, width); write its key and value into ``seen`` (2, B, heads, L, size)."""
        q, k, v = map(self._split, self.enter(self.norms[0](h)).chunk(3, -1))
        seen[0, :, :, j], seen[1, :, :, j] = k[:, :, 0], v[:, :, 0]
        keys, values = seen[:, :, :, : j + 1]
        return self._finish(h, (q @ keys.mT * q.shape[-1] ** -0.5).softmax(-1) @ values)

    def nothing(self, like: Tensor) -> Tensor:
        """Return room for the keys and values of tokens (B, L, width), (2, B, heads, L, size)."""
        rows, length, width = like.shape
        return like.new_zeros(2, rows, self.heads, length, width // self.heads)

    def _split(self, x: Tensor) -> Tensor:
        """Map (B, L, width) to (B, heads, L, size)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _finish(self, h: Tensor, found: Tensor) -> Tensor:
        h = h + self.leave(merge(found))
        return h + self.down(F.gelu(self.up(self.norms[1](h)), approximate="tanh"))
