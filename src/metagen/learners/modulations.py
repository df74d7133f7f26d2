"""Changes of a layer by few numbers, which a network writes: never the weights themselves."""

from collections.abc import Container, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from metagen.core.episode import Params
from metagen.learners.rules import slug
from metagen.ranges import PositiveFloat, Width, checked


class Layer(NamedTuple):
    """The weight of a module, and its bias, by their names in the model.

    shape: of the weight. axis: of its output channels.
    """

    weight: str
    bias: str | None
    shape: torch.Size
    axis: int

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.shape[self.axis]

    @property
    def inputs(self) -> int:
        """Numbers of the weight for each output channel."""
        return self.shape.numel() // self.outputs


def layers_of(model: nn.Module, names: Container[str]) -> list[Layer]:
    """Return the layers of ``model`` whose weight is among ``names``; a bias that is not stays out."""
    found = []
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        own = {n: p for n, p in module.named_parameters(recurse=False) if prefix + n in names}
        if "weight" in own:
            # Other weights are (outputs, inputs, ...), or (channels,) in a norm.
            axis = int(isinstance(module, _ConvTransposeNd))
            bias = f"{prefix}bias" if "bias" in own else None
            found.append(Layer(f"{prefix}weight", bias, own["weight"].shape, axis))
    return found


class FilmModulation(nn.Module):
    r"""Scale and shift every output channel of a layer: y' = (1 + gamma) y + beta.

    .. math:: W' = (1 + \gamma) W, \quad b' = (1 + \gamma) b + \beta, \quad (\gamma, \beta) = H e

    with a head H for each layer, zero at the start, that reads a task's embedding e (E,). Perez et al.,
    *FiLM: Visual Reasoning with a General Conditioning Layer*, AAAI 2018; Requeima et al., *CNAPs*,
    NeurIPS 2019. Two numbers for a channel; one for a norm without a bias. Another layer without a
    bias stays as it is: models leave the bias out where a norm follows, which undoes the scale, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: tuple[Layer, ...] = ()

    def bind(self, layers: Sequence[Layer], embedding: int) -> None:
        """Create the heads of those ``layers`` that can be changed, unless these are already there.

        Args:
            layers: all that are meant to change.
            embedding: E, length of e.
        """
        changing = tuple(layer for layer in layers if self.numbers(layer))
        if changing != self.layers:
            self.layers = changing
            self.heads = nn.ModuleDict({slug(x.weight): self.head(x, embedding) for x in changing})

    def head(self, layer: Layer, embedding: int) -> nn.Linear:
        """Return H, at whose start theta is written unchanged."""
        head = nn.Linear(embedding, self.numbers(layer))
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head

    def numbers(self, layer: Layer) -> int:
        """Return how many numbers change ``layer``."""
        if layer.bias is None:
            return layer.outputs if len(layer.shape) == 1 else 0
        return 2 * layer.outputs

    def forward(self, e: Tensor, params: Params) -> Params:
        """Return the weights and biases of all bound layers, changed as e (E,) says."""
        changed: Params = {}
        for layer in self.layers:
            changed |= self.change(layer, self.heads[slug(layer.weight)](e), params)
        return changed

    def change(self, layer: Layer, numbers: Tensor, params: Params) -> Params:
        """Return W' and b' of one layer, given the numbers that its head wrote."""
        scale = 1 + numbers[: layer.outputs]
        trailing = len(layer.shape) - 1 - layer.axis
        changed = {layer.weight: params[layer.weight] * scale.reshape(-1, *[1] * trailing)}
        if layer.bias is not None:
            bias = params[layer.bias]
            changed[layer.bias] = bias * _first(scale, bias) + _first(numbers[layer.outputs :], bias)
        return changed


class LowRankModulation(FilmModulation):
    r"""Add a matrix of low rank to the weights of a layer, and a shift to its bias.

    .. math:: W' = W + \frac{s}{r \sqrt{I}} U V^T, \quad b' = b + \beta, \quad (V, U, \beta) = H e

    with U (O, r) and V (I, r), where W is read as (O, I): its output channels x all else. At the
    start U and beta are zero and the entries of V are normal, for an e of length one; the root gives
    V^T x the size of x's entries. Hu et al., *LoRA*, ICLR 2022, where U and V are trained for each
    task. Norms, and layers that hold no more numbers than U and V, are changed as by :class:`FilmModulation`.

    Args:
        rank: r, at least 1.
        scale: s > 0.
    """

    @checked
    def __init__(self, rank: Width = 4, scale: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.rank, self.scale = rank, scale

    def pays(self, layer: Layer) -> bool:
        """Return whether the factors are smaller than the weight."""
        return self.rank * (layer.outputs + layer.inputs) < layer.shape.numel()

    def head(self, layer: Layer, embedding: int) -> nn.Linear:
        """Return H, zero but for V: a product of zeros would never move."""
        head = super().head(layer, embedding)
        if self.pays(layer):
            nn.init.normal_(head.weight.detach()[: self.rank * layer.inputs])
        return head

    def numbers(self, layer: Layer) -> int:
        """Return how many numbers change ``layer``."""
        if not self.pays(layer):
            return super().numbers(layer)
        shift = 0 if layer.bias is None else layer.outputs
        return self.rank * (layer.outputs + layer.inputs) + shift

    def change(self, layer: Layer, numbers: Tensor, params: Params) -> Params:
        """Return W' and b' of one layer, given the numbers that its head wrote."""
        if not self.pays(layer):
            return super().change(layer, numbers, params)
        sizes = [self.rank * layer.inputs, self.rank * layer.outputs]
        v, u, shift = numbers.split([*sizes, numbers.shape[0] - sum(sizes)])
        update = u.reshape(layer.outputs, self.rank) @ v.reshape(self.rank, layer.inputs)
        update = self.scale / (self.rank * layer.inputs**0.5) * update
        kept = [n for axis, n in enumerate(layer.shape) if axis != layer.axis]
        update = update.reshape(layer.outputs, *kept).movedim(0, layer.axis)
        changed = {layer.weight: params[layer.weight] + update}
        if layer.bias is not None:
            changed[layer.bias] = params[layer.bias] + _first(shift, params[layer.bias])
        return changed


def _first(numbers: Tensor, bias: Tensor) -> Tensor:
    """Lay numbers along the first axis of a bias, which has others where a norm is over several."""
    return numbers.reshape(-1, *[1] * (bias.dim() - 1))
