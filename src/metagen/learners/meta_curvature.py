"""Meta-curvature: a learned linear map of the gradient."""

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import nn

from metagen.core.episode import Params
from metagen.learners.rules import Rule, slug
from metagen.ranges import WIDE, PositiveFloat, checked


class MetaCurvature(Rule):
    r"""phi - alpha MC(g), where every mode of the gradient is multiplied by a learned matrix.

    .. math:: \text{MC}(G) = G \times_3 M_f \times_2 M_i \times_1 M_o

    for a convolution's gradient G of output channels x input channels x (kernel's pixels); a matrix
    has M_o and M_i, a vector M_o. All start as identities. Park and Oliva, *Meta-Curvature*, NeurIPS
    2019. The rows of a per-class table are not mixed, nor is a mode longer than ``max_size``, whose
    matrix would be larger than the layer.

    Args:
        rate: the step size alpha.
        max_size: the longest mode that has a matrix.
    """

    learned = True

    @checked
    def __init__(self, rate: PositiveFloat, max_size: Annotated[int, Ge(2), Le(WIDE)] = 512) -> None:
        super().__init__(rate)
        self.max_size = max_size

    def bind(self, params: Params) -> None:
        """Create the matrices M_o, M_i and M_f of every tensor, as far as its modes have them."""
        self.maps = nn.ModuleDict()
        for name, p in params.items():
            sizes = enumerate(p.flatten(2).shape if p.dim() > 2 else p.shape)
            # A mode of one entry would have a lone factor, and a per-class table is bound with one row.
            eyes = {str(mode): torch.eye(n, dtype=p.dtype) for mode, n in sizes if 1 < n <= self.max_size}
            self.maps[slug(name)] = nn.ParameterDict({mode: nn.Parameter(eye) for mode, eye in eyes.items()})

    def update(
        self, params: Params, grads: Params, slots: dict[str, Params], index: int
    ) -> tuple[Params, dict[str, Params]]:
        """Return phi - alpha MC(g); there are no slots."""
        moved = {}
        for name, p in params.items():
            g = grads[name].flatten(2) if p.dim() > 2 else grads[name]
            maps = self.maps[slug(name)]
            assert isinstance(maps, nn.ParameterDict)
            for mode, m in maps.items():
                g = torch.tensordot(m, g, ([1], [int(mode)])).movedim(0, int(mode))
            moved[name] = torch.add(p, g.reshape(p.shape), alpha=-self.rate)
        return moved, slots
