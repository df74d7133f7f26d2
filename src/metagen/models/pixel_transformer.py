"""An autoregressive transformer over patches of binary pixels, alone or given other images of the class."""

import math
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from metagen.core.episode import Shots
from metagen.core.model import Generator
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.functional.compiled import compiled
from metagen.models.context_attention import Block, RMSNorm, Seen
from metagen.models.patches import WINDOW, Patches
from metagen.models.shades import Shades
from metagen.ranges import Colours, NonNegativeFloat, PositiveInt, Side, Width, checked

MOST_BITS = 12
"""2^12 symbols; a larger patch would need a table that no support set can fill."""


class PixelTransformer(Generator):
    r"""p(x | c, M) = prod_j p(s_j | s_<j, c, M), with s_j the j-th patch as one of 2^(h w) symbols.

    Pixels above 1/2 are ink. c is a row of ``context``, which gradient learners move; M are other images
    of the class, the buffer ``memory`` (N, K, 1, H, W), which ``learner=in_context`` writes. Every block
    attends to the patches before j of the image itself, then to all patches of the images in M, which are
    themselves an ordered sequence: image t sees the images before t. One pass over T images therefore
    gives the exact log-likelihood of each given 0, 1, ..., T - 1 others (:meth:`sequence_nll`).

    Pixels in order as in van den Oord et al., *Pixel recurrent neural networks*, ICML 2016; transformers on
    them as in Chen et al., *Generative pretraining from pixels*, ICML 2020; a model that reads a data set in
    its context as in Garnelo et al., *Conditional Neural Processes*, ICML 2018. Norms are composed of
    pointwise operations, exact in the second order under ``torch.func.vmap``.
    """

    head: ClassVar[tuple[str, ...]] = ("context", "symbols.*")
    pixelwise = True
    likelihood = "exact"
    pixels = SimpleNamespace(name="black and white")
    memory: Tensor

    @checked
    def __init__(
        self,
        size: Side = 28,
        patch: tuple[Side, Side] = (2, 4),
        width: Width = 128,
        layers: Annotated[int, Ge(1), Le(1000)] = 4,
        heads: Width = 4,
        features: Width = 64,
        second_order: bool | None = None,
        colours: Colours = 1,
        longest: PositiveInt = 256,
        compiled: bool = False,
        shades: bool = False,
        temperature: NonNegativeFloat = 1.0,
    ) -> None:
        """Build the model for black and white images of 1 x ``size`` x ``size``.

        Args:
            size: H = W.
            patch: height and width of a patch, divisors of ``size``; at most 12 pixels.
            width: length of a token, divisible by ``heads``.
            layers: blocks.
            heads: of the attention.
            features: D, length of a row of the table.
            second_order: gradients may be differentiated again (MAML): the attention is written out,
                for the fused ones have no double backward. ``False`` is faster and takes a small part of the
                memory, with ``vectorize=loop``; the fused kernels have no batching rule for vmap either.
                ``None`` asks the learner: see :meth:`settle`.
            colours: channels of an image, 1: there is no patch of colours that a table could hold.
            longest: patches of an image at most, since attention takes memory by their square: at 64 x 64
                an episode would take some 20 GB.
            compiled: whether a GPU trains on sequences by compiled kernels (:meth:`sequence_nll`); the first
                step waits for the compiler.
            shades: whether what is drawn gets the greys of the training images at its edges, learned by a
                term of the loss beside the nats of the ink (:class:`metagen.models.shades.Shades`).
            temperature: T, samples are drawn by probabilities proportional to p(s_j | ...)^(1 / T).

        Raises:
            MetagenError: sizes do not divide each other, or are not positive; images in colour, or too large.
        """
        super().__init__()
        high, wide = _fitting(size, patch, width, heads)
        _check_images(size, high * wide, colours, longest)
        self.patches = Patches(size, (high, wide))
        self.second_order, self.one_by_one = second_order, False
        self.context = nn.Parameter(torch.zeros(1, features))
        self.register_buffer("memory", torch.zeros(1, 0, 1, size, size), persistent=False)
        self.look = nn.Linear(WINDOW * self.patches.bits, width)
        self.place = nn.Parameter(0.02 * torch.randn(self.patches.length, width))
        self.inject = nn.Linear(features, width, bias=False)
        self.blocks = nn.ModuleList(Block(width, heads, second_order is not False) for _ in range(layers))
        self.norm = RMSNorm(width)
        self.symbols = nn.Linear(width, 2**self.patches.bits)
        self.compiled, self.temperature = compiled, temperature
        self.grey = Shades() if shades else None
        self.later = ("grey.*",) if shades else ()
        if shades:
            self.loss_unit = "sum of the nats of the ink and the cross-entropy of its shades"

    def settle(self, transformed: bool) -> None:
        """Write the attention out under gradient steps or ``vmap``, and fuse it elsewhere."""
        if self.second_order is None:
            self.one_by_one = not transformed
            for block in self._layers():
                block.second_order = transformed

    def loss(self, shots: Shots) -> Tensor:
        """Return the mean of -log p(x | c_y, memory) over images, nats per image, and of ``shades``."""
        return (self._shading(shots.x) - self.log_likelihood(shots, 1)).mean()

    def log_likelihood(self, shots: Shots, importance_samples: int = 1) -> Tensor:
        """Return log p(x | c_y, memory) per image, (N, K) nats; exact, whatever ``importance_samples`` is."""
        patches = self._patches(shots.x)
        images, tokens = patches.flatten(0, 1), self._tokens(patches, self.context[shots.y])
        past = self._past(shots.y)
        _, log_p = self._run(tokens, images, past)
        return log_p.reshape(shots.y.shape)

    def sequence_nll(self, x: Tensor) -> Tensor:
        """Map sequences (N, T, 1, H, W) to -log p(x_t | x_1, ..., x_(t-1)), (N, T) nats.

        With ``shades`` the cross-entropy of each image's is added.
        """
        if self.compiled and x.device.type == "cuda":
            return _compiled_nll()(self, x) + self._shading(x)
        return self.nll_of_sequences(x) + self._shading(x)

    def nll_of_sequences(self, x: Tensor) -> Tensor:
        """Return what :meth:`sequence_nll` does of the ink, uncompiled."""
        patches = self._patches(x)
        c = self.context.expand(x.shape[0], -1)[:, None].expand(-1, x.shape[1], -1)
        _, log_p = self._run(self._tokens(patches, c), patches.flatten(0, 1), None)
        return -log_p.reshape(x.shape[:2])

    def sample(self, y: Tensor, key: Tensor) -> Tensor:
        """Draw one image for each class index of ``y`` (B,), patch by patch: (B, 1, H, W).

        Pixels are 0 or 1, or with ``shades`` between.
        """
        past = [Seen(s.keys, s.values) for s in self._past(y[:, None])]
        draws = rng.uniform(key, (y.shape[0], self.patches.length), self.context.dtype)
        c = self.context[y]
        known = c.new_zeros(y.shape[0], 0, self.patches.bits)
        own: list[Seen | None] = [None] * len(self.blocks)
        for j in range(self.patches.length):
            h = self.look(self.patches.next_window(known)) + self.place[j] + self.inject(c)[:, None]
            for i, block in enumerate(self._layers()):
                h, own[i] = block.extend(h, own[i], past[i])
            logits = self.symbols(self.norm(h))[:, 0] / max(self.temperature, 1e-6)
            patch = self.patches.draw(logits, draws[:, j])
            known = torch.cat([known, patch[:, None]], 1)
        ink = self.patches.image(known)
        return (ink + 1) / 2 if self.grey is None else self.grey.draw(ink)

    def _shading(self, x: Tensor) -> Tensor:
        """Return the cross-entropy (...) of the shades of images (..., 1, H, W), 0 where none are drawn."""
        if self.grey is None:
            return x.new_zeros(x.shape[:-3])
        flat = x.flatten(0, -4).to(self.place)
        return self.grey.error(torch.where(flat > 0.5, 1.0, -1.0).to(flat), flat).unflatten(0, x.shape[:-3])

    def _run(self, tokens: Tensor, patches: Tensor, past: "list[Seen] | None") -> tuple[list[Seen], Tensor]:
        """Return what each layer shows of the images (N, T, L, width), and their log-likelihoods (N T,).

        ``past`` is what all of them see; None: each sees those before it.
        """
        ways, images = tokens.shape[:2]
        h, shown = tokens.flatten(0, 1), []
        for i, block in enumerate(self._layers()):
            h, seen = block(h, ways, images, None if past is None else past[i])
            shown.append(seen)
        log_p = self.symbols(self.norm(h)).log_softmax(-1)
        symbols = self.patches.symbols(patches)
        return shown, log_p.gather(-1, symbols[..., None])[..., 0].sum(-1)

    def _past(self, y: Tensor) -> list[Seen]:
        """Return what each layer sees of the memory for labels ``y`` (N, .), one class in each row."""
        memory = self.memory
        if memory.shape[1]:
            c = self.context if self.context.shape[0] == memory.shape[0] else self.context[:1]
            c = c.expand(memory.shape[0], -1)[:, None].expand(-1, memory.shape[1], -1)
            patches = self._patches(memory)
            shown, _ = self._run(self._tokens(patches, c), patches.flatten(0, 1), None)
        else:
            shown = [block.nothing(self.context) for block in self._layers()]
        if shown[0].keys.shape[0] == 1:
            return [Seen(*(part.expand(y.shape[0], -1, -1, -1) for part in seen)) for seen in shown]
        return [Seen(seen.keys[y[:, 0]], seen.values[y[:, 0]]) for seen in shown]

    def _patches(self, x: Tensor) -> Tensor:
        """Map images (N, T, 1, H, W) to patches (N, T, L, bits) of -1 and 1."""
        return self.patches.split(x).to(self.place.dtype)

    def _tokens(self, patches: Tensor, c: Tensor) -> Tensor:
        """Embed what is known before each patch, (N, T, L, bits) with rows c (N, T, D): (N, T, L, width)."""
        windows = self.patches.window(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
        return self.look(windows) + self.place + self.inject(c)[..., None, :]

    def _layers(self) -> "list[Block]":
        return list(self.blocks)  # type: ignore[arg-type]


@cache
def _compiled_nll(**options: Any) -> Callable[[PixelTransformer, Tensor], Tensor]:
    return compiled(PixelTransformer.nll_of_sequences, **options)


def _check_images(size: int, bits: int, colours: int, longest: int) -> None:
    if colours != 1:
        raise MetagenError(
            f"data.channels={colours}, but PixelTransformer draws in black and white: set data.channels=1, "
            f"or use model=flow"
        )
    if size**2 // bits > longest:
        raise MetagenError(
            f"model.size={size} is {size**2 // bits} patches an image, and attention takes memory by their "
            f"square: set data.size=32, or raise model.longest={longest} on a machine that has it"
        )


def _fitting(size: int, patch: tuple[int, int], width: int, heads: int) -> tuple[int, int]:
    if any(size % side for side in patch) or math.prod(patch) > MOST_BITS:
        raise MetagenError(
            f"model.patch={list(patch)}: expected two divisors of model.size={size} with a product of "
            f"at most {MOST_BITS}, such as [2, 4]"
        )
    if width % heads:
        raise MetagenError(f"model.heads={heads}: expected a divisor of model.width={width}")
    return patch[0], patch[1]
