"""Low-rank adapters: inner steps on two thin factors of every layer's change."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from metagen.core.episode import Params
from metagen.core.learner import State
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.learners.adapts import Adapts, matching
from metagen.learners.modulations import Layer, layers_of
from metagen.learners.rules import slug
from metagen.ranges import PositiveFloat, Width, checked

FACTORS, START = "adapters.factors", "adapters.start"
"""Names of the slots for z and for the weights that the adapters change."""


class LowRankAdapters(Adapts):
    r"""phi_l = theta_l + s / (r sqrt(I)) U_l V_l^T: the steps move U and V, and the per-class tables.

    Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, ICLR 2022. U (O, r) starts at zero and
    V (I, r) is normal, so that phi_0 = theta; where the learner is meta-trained both starting points are
    meta-parameters. A weight is read as (O, I): its output channels x all else; the root gives V^T x the
    size of x's entries. Layers that hold no more numbers than U and V, and biases, do not move.

    Args:
        rank: r, at least 1.
        scale: s > 0.
        layers: ``"all"``, or glob patterns for the names of the weights.

    Raises:
        MetagenError: an argument makes no sense, or no layer of the model is large enough.
    """

    direct = False

    @checked
    def __init__(
        self, rank: Width = 4, scale: PositiveFloat = 1.0, layers: str | Sequence[str] = "all"
    ) -> None:
        super().__init__()
        if isinstance(layers, str) and layers != "all":
            raise MetagenError(f"learner.adapts.layers={layers}: expected 'all' or a list of patterns")
        self.rank, self.scale = rank, scale
        self.patterns = ("*",) if isinstance(layers, str) else tuple(layers)
        self.layers: tuple[Layer, ...] = ()
        self.tables: tuple[str, ...] = ()
        self.start = nn.ParameterDict()

    def bind(self, objective: Objective) -> Params:
        """Find the layers and create the starting points of their factors.

        Bound once more to the same model, it keeps them.
        """
        model, params = objective.model, objective.params()
        elsewhere = {*matching(params, model.encoder), *model.per_class}
        wanted = set(matching(params, self.patterns)) - elsewhere
        self.tables = tuple(n for n in params if n in model.per_class)
        self.layers = tuple(layer for layer in layers_of(cast(nn.Module, model), wanted) if self._pays(layer))
        if not self.layers:
            raise MetagenError(
                f"learner.adapts: no layer of {type(model).__name__} named {list(self.patterns)} is larger "
                f"than factors of rank {self.rank}: use a smaller learner.adapts.rank, or learner.adapts=all"
            )
        self.fixed = tuple(n for n in params if n not in elsewhere)
        shapes = {
            slug(f"{layer.weight}.{factor}"): (size, self.rank)
            for layer in self.layers
            for factor, size in (("U", layer.outputs), ("V", layer.inputs))
        }
        if {name: tuple(p.shape) for name, p in self.start.items()} != shapes:
            like = next(iter(params.values()))
            self.start = nn.ParameterDict(
                {
                    name: nn.Parameter(
                        like.new_zeros(shape) if name.endswith("U") else torch.randn(shape).to(like)
                    )
                    for name, shape in shapes.items()
                }
            )
        factors = {f"{x.weight}.{f}": self._start(x, f) for x in self.layers for f in "UV"}
        self.names = (*factors, *self.tables)
        return {**factors, **{n: params[n][:1] for n in self.tables}}

    def init(self, phi: Params) -> Params:
        """Return the factors' starting points and the tables of ``phi``."""
        factors = {f"{x.weight}.{f}": self._start(x, f) for x in self.layers for f in "UV"}
        return {**factors, **{n: phi[n] for n in self.tables}}

    def write(self, z: Params, phi: Params) -> Params:
        """Return the changed weights and the tables."""
        return {
            **{x.weight: phi[x.weight] + self._change(x, z) for x in self.layers},
            **{n: z[n] for n in self.tables},
        }

    def keep(self, z: Params, phi: Params) -> dict[str, Params]:
        """Return the factors and the weights of the start."""
        return {FACTORS: z, START: {x.weight: phi[x.weight] for x in self.layers}}

    def read(self, state: State) -> tuple[Params, Params]:
        """Return what :meth:`keep` kept."""
        return state.slots[FACTORS], state.slots[START]

    def _start(self, layer: Layer, factor: str) -> Tensor:
        return self.start[slug(f"{layer.weight}.{factor}")]

    def _pays(self, layer: Layer) -> bool:
        return self.rank * (layer.outputs + layer.inputs) < layer.shape.numel()

    def _change(self, layer: Layer, z: Params) -> Tensor:
        product = z[f"{layer.weight}.U"] @ z[f"{layer.weight}.V"].T
        kept = [n for axis, n in enumerate(layer.shape) if axis != layer.axis]
        change = self.scale / (self.rank * layer.inputs**0.5) * product
        return change.reshape(layer.outputs, *kept).movedim(0, layer.axis)
