"""A sampler as one ONNX graph, from class indices and noise to images.

metagen draws noise by its own generator, which no other runtime has, so every draw of the sampler becomes an
input of the graph, ``normal_0`` or ``uniform_1``: the kind of its numbers, and its place among the draws.
"""

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from metagen.core.episode import Params
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng

BATCH = "batch"
"""Name of the axis of images, of any length."""
KINDS = ("normal", "uniform")
"""Of the numbers that an input may hold: standard normal, or from (0, 1)."""
MOST = 10_000
"""Operations of a graph: each takes some milliseconds to convert, and a runtime some to read."""

MEANING = {
    "data-dependent": "what it does next depends on numbers that it computes",
    "Constraints violated": "what it does depends on how many images there are",
}
"""What torch calls it -> what a user would."""


class Drawn(NamedTuple):
    """Images (B, C, H, W) of a sampler, its draws by kind, and the number of its operations."""

    images: Tensor
    noise: list[tuple[str, Tensor]]
    operations: int


class Noise(NamedTuple):
    """One draw of a sampler, as an input of the graph.

    name: of the input.
    axis: of the draw that grows with the images.
    times: as which multiple of their number.
    """

    name: str
    axis: int
    times: int

    def given(self, drawn: Tensor) -> Tensor:
        """Return a draw as its input, (B, ...) or (B, ``times``, ...)."""
        x = drawn.movedim(self.axis, 0)
        return x if self.times == 1 else x.unflatten(0, (self.times, -1)).transpose(0, 1)

    def drawn(self, given: Tensor) -> Tensor:
        """Return an input as the draw it stands for."""
        x = given if self.times == 1 else given.transpose(0, 1).flatten(0, 1)
        return x.movedim(0, self.axis)


class Graph(NamedTuple):
    """A graph, as :mod:`onnx` holds it, and its noise."""

    proto: Any
    noise: list[Noise]


@torch.no_grad()
def drawn(objective: Objective, phi: Params, y: Tensor, seed: int) -> Drawn:
    """Draw images of the classes ``y`` (B,) from adapted parameters, and keep the noise."""
    noise: list[tuple[str, Tensor]] = []

    def heard(kind: str, draw: Callable[[], Tensor]) -> Tensor:
        noise.append((kind, draw()))
        return noise[-1][1]

    with rng.drawn_by(heard), _Counted() as counted:
        images = objective.call("sample", phi, y, rng.key(seed, 2))
    return Drawn(images.clamp(0, 1), noise, counted.count)


def graph(objective: Objective, phi: Params, ways: int) -> Graph:
    """Return the sampler of adapted parameters for N = ``ways`` classes and any number of images.

    Raises:
        MetagenError: its model cannot be a graph; says why.
    """
    name = type(objective.model).__name__
    few, more = (drawn(objective, phi, torch.arange(count) % ways, 0) for count in (2, 3))
    if few.operations > MOST:
        raise MetagenError(
            f"{name} draws an image in {few.operations:,} operations, at most {MOST:,} may be a graph: "
            f"lower model.sample_steps, where it is a key, or use metagen generate"
        )
    noise = _inputs(name, few.noise, more.noise)
    sampler = _Sampler(_adapted(objective.model, phi), noise)
    y = torch.arange(3) % ways
    inputs = (y, *(one.given(x).contiguous() for one, (_, x) in zip(noise, more.noise, strict=True)))
    try:
        proto = _converted(sampler, inputs, ["y", *(one.name for one in noise)])
    except Exception as error:  # torch and its exporter have dozens
        raise MetagenError(
            f"{name} cannot be written as ONNX ({_reason(error)}): use metagen generate, or export --to"
        ) from error
    return Graph(proto, noise)


def _inputs(model: str, few: Sequence[tuple[str, Tensor]], more: Sequence[tuple[str, Tensor]]) -> list[Noise]:
    """Return the inputs that the draws of 2 and of 3 images become."""
    if [kind for kind, _ in few] != [kind for kind, _ in more]:
        raise MetagenError(
            f"{model} cannot be written as ONNX: how often it draws noise depends on how many images there "
            "are: use metagen generate"
        )
    return [_input(model, i, kind, a, b) for i, ((kind, a), (_, b)) in enumerate(zip(few, more, strict=True))]


def _input(model: str, index: int, kind: str, few: Tensor, more: Tensor) -> Noise:
    grown = [axis for axis, (a, b) in enumerate(zip(few.shape, more.shape, strict=True)) if a != b]
    if kind not in KINDS or len(grown) != 1 or 3 * few.shape[grown[0]] != 2 * more.shape[grown[0]]:
        raise MetagenError(
            f"{model} cannot be written as ONNX: its draw {index} is {kind} {tuple(few.shape)} for two "
            f"images: expected {' or '.join(KINDS)} numbers, as many for each image"
        )
    return Noise(f"{kind}_{index}", grown[0], few.shape[grown[0]] // 2)


def _adapted(model: nn.Module, phi: Params) -> nn.Module:
    """Return a copy of a model that holds ``phi``."""
    out = copy.deepcopy(model).eval().requires_grad_(False)
    for name, value in phi.items():
        owner, _, own = name.rpartition(".")
        module, value = out.get_submodule(owner), value.detach().clone(memory_format=torch.contiguous_format)
        parameter = own in dict(module.named_parameters(recurse=False))
        setattr(module, own, nn.Parameter(value, requires_grad=False) if parameter else value)
    return out


class _Sampler(nn.Module):
    """x = sample(y), with the noise as further arguments."""

    def __init__(self, model: nn.Module, noise: Sequence[Noise]) -> None:
        super().__init__()
        self.model, self.noise = model, noise

    def forward(self, y: Tensor, *given: Tensor) -> Tensor:
        draws = iter([one.drawn(x) for one, x in zip(self.noise, given, strict=True)])
        with rng.drawn_by(lambda kind, draw: next(draws)):
            images: Tensor = self.model.sample(y, rng.key(0))  # type: ignore[operator]
        return images.clamp(0, 1)


def _converted(sampler: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> Any:
    """Return a module as an ONNX graph whose inputs and output have a first axis of any length."""
    batch = torch.export.Dim(BATCH)
    shapes = ({0: batch}, *((tuple({0: batch} for _ in inputs[1:]),) if inputs[1:] else ()))
    with torch.no_grad(), _quiet():
        program = torch.export.export(sampler, inputs, dynamic_shapes=shapes, strict=False)
        found = torch.onnx.export(
            program, inputs, input_names=names, output_names=["images"], dynamo=True, verbose=False
        )
    assert found is not None
    proto = found.model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    del proto.graph.value_info[:]  # they call the axis by another name
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Have torch say nothing while it converts: what is wrong, it raises."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        # It prints graphs, too.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _reason(error: BaseException) -> str:
    """Return in a line what was wrong at first."""
    while error.__cause__ is not None:
        error = error.__cause__
    for sign, meaning in MEANING.items():
        if sign in str(error):
            return meaning
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".:") if lines else type(error).__name__


class _Counted(TorchDispatchMode):
    """Counts the operations of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))
