"""A start that a meta-network writes: it reads the support set and changes any model's weights."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metagen.core.episode import Params, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.learners.adapts import matching
from metagen.learners.modulations import FilmModulation, layers_of
from metagen.learners.rules import slug
from metagen.learners.starts import Start
from metagen.ranges import Channels, Side, Width, checked


class HyperNet(Start):
    r"""phi_0 = theta, changed layer by layer as the support set says, in one forward pass.

    .. math:: e_n = f(\{x_{nk}\}_k), \quad e = \frac{1}{N \sqrt{E}} \sum_n e_n, \quad
              \phi_l = \text{modulation}(\theta_l, H_l e), \quad c_n = \bar\theta_c + H_c e_n

    f, all heads H and theta are meta-trained on the query loss. Each layer l of the model is changed by
    few numbers (:class:`~metagen.learners.modulations.FilmModulation` or
    :class:`~metagen.learners.modulations.LowRankModulation`), never written whole; the row c_n of a per-class
    table, a generator's context or a classifier's readout, is written from the images of its class, on
    top of the mean row of theta. So any number of ways fits, and the order of neither the classes nor
    their images matters. Untrained, it leaves the layers as they are, and writes rows at random.

    Ha et al., *HyperNetworks*, ICLR 2017; Requeima et al., *Fast and Flexible Multi-Task Classification
    Using Conditional Neural Adaptive Processes* (CNAPs), NeurIPS 2019.

    Args:
        modulation: what is written for a layer.
        size: height and width of the images.
        channels: channels of the images.
        filters: filters of f's first convolution.
        embedding: E, length of e.
        changes: which layers are changed: ``"all"``, or glob patterns for the names of their weights.

    Raises:
        MetagenError: an argument makes no sense.
    """

    reads, learned = True, True
    lowers = "query"

    @checked
    def __init__(
        self,
        modulation: FilmModulation,
        size: Side = 28,
        channels: Channels = 1,
        filters: Width = 32,
        embedding: Width = 128,
        changes: str | Sequence[str] = "all",
    ) -> None:
        super().__init__()
        if isinstance(changes, str) and changes != "all":
            raise MetagenError(f"learner.start.changes={changes}: expected 'all' or a list of patterns")
        self.modulation = modulation
        self.image = (channels, size, size)
        self.embedding = embedding
        self.changes = ("*",) if isinstance(changes, str) else tuple(changes)
        self.reader = SetReader(size, channels, filters, embedding)
        self.rows, self.sizes = nn.ModuleDict(), dict[str, int]()

    def bind(self, objective: Objective, classes: int, moving: Sequence[str]) -> None:
        """Find the layers and create a head for each of them and for every per-class table.

        Bound once more to the same model, it keeps its heads.
        """
        model, params = objective.model, objective.params()
        elsewhere = {*matching(params, model.encoder), *model.per_class}
        layers = layers_of(cast(nn.Module, model), params.keys() - elsewhere)
        wanted = matching(params, self.changes)
        self.modulation.bind([layer for layer in layers if layer.weight in wanted], self.embedding)
        if not self.modulation.layers:
            raise MetagenError(
                f"learner.start.changes={list(self.changes)} fits no layer of {type(model).__name__} that "
                f"{type(self.modulation).__name__} can change: use learner.start.changes=all, or "
                f"learner=amortized"
            )
        sizes = {slug(n): params[n][0].numel() for n in model.per_class}
        if sizes != self.sizes:
            self.sizes = sizes
            # Not zero at the start: a decoder that sees equal rows for long learns to do without them.
            self.rows = nn.ModuleDict({n: nn.Linear(self.embedding, size) for n, size in sizes.items()})

    def forward(self, objective: Objective, params: Params, support: Shots) -> Params:
        """Return phi: the changed layers, and the tables with one row per class.

        Raises:
            MetagenError: the images have another shape than the set reader's.
        """
        if support.x.shape[2:] != self.image:
            want, got = ("x".join(map(str, shape)) for shape in (self.image, support.x.shape[2:]))
            raise MetagenError(
                f"learner=hypernet reads {want} images but got {got}: set learner.start.channels and "
                f"learner.start.size"
            )
        e = self.reader(support.x)
        tables = {n: self._rows(n, e, params[n]) for n in objective.model.per_class}
        # A vector of length one, or a step of the optimizer would change the layers faster than theta.
        changed = self.modulation(e.mean(0) / self.embedding**0.5, params)
        return {**changed, **tables}

    def writes(self, objective: Objective) -> Sequence[str]:
        """Return the names of the changed layers' weights and of the tables."""
        return [*(layer.weight for layer in self.modulation.layers), *objective.model.per_class]

    def _rows(self, name: str, e: Tensor, table: Tensor) -> Tensor:
        """Return (N, ...): rows of their own at the start would tell classes apart by their label."""
        written = self.rows[slug(name)](e).reshape(e.shape[0], *table.shape[1:])
        return table.mean(0, keepdim=True) + written


class SetReader(nn.Module):
    r"""f: e_n = SiLU(norm(1/K sum_k net(x_nk))), with a net of three strided convolutions and a linear map.

    Zaheer et al., *Deep Sets*, NeurIPS 2017. Its weights are the same for all tasks.
    """

    def __init__(self, size: int, channels: int, filters: int, embedding: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((channels, filters), (filters, 2 * filters), (2 * filters, 2 * filters)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.SiLU()]
            size = (size + 1) // 2
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * filters * size**2, embedding))
        for layer in self.net:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                # The default has the biases drown the images, so that all classes look the same.
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map the images of N classes (N, K, C, H, W) to embeddings (N, E)."""
        seen = self.net(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1)
        # A norm without a map, made of what is exact under vmap: the heads see numbers of size one.
        var, mean = torch.var_mean(seen, -1, correction=0, keepdim=True)
        return F.silu((seen - mean) * torch.rsqrt(var + 1e-5))
