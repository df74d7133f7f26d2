"""The training step: this project's backends beside its peers, on the same tasks, with equal gradients."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import peers
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from timing import in_turns, peak_flops
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metagen.config.tree import conf_dir
from metagen.core.episode import Episode, Shots
from metagen.functional import rng
from metagen.functional.vectorize import flatten, tree_map
from metagen.training.module import Experiment

RATE, STEPS = 0.01, 5
COLUMNS = ("work", "by", "ms", "x learn2learn", "x plain loop", "peak", "gradient f64", "as timed", "note")
SMALL = ("model.maps=4", "model.features=32", "model.channels=16", "model.hidden=128")
"""The VAE of experiment=metanet_vae, with 0.3 million parameters."""
BACKENDS = ("auto", "vmap", "loop")
LEFT_OUT = {"torch.compile"}
"""Of what a GPU offers beside the backends: to compile a step of five inner steps may take minutes."""


class Work(NamedTuple):
    name: str
    model: str
    tasks: int
    ways: int
    shots: int
    queries: int
    first_order: bool
    overrides: tuple[str, ...] = ()


def works() -> Iterator[Work]:
    """All work, for classification and generation, of second and of first order."""
    for form, overrides in (("pooled", ()), ("strided", ("model.pool=false",))):
        for shots in (1, 5):
            for first_order in (False, True):
                name = f"Conv4-64 {form}, 5-way {shots}-shot, {_order(first_order)}"
                yield Work(name, "conv4", 32, 5, shots, 15, first_order, overrides)
    for first_order in (False, True):
        yield Work(f"VAE, K = 10, {_order(first_order)}", "vae", 16, 1, 10, 10, first_order)
        yield Work(f"small VAE, K = 5, {_order(first_order)}", "vae", 16, 1, 5, 5, first_order, SMALL)


def _order(first: bool) -> str:
    return "first order" if first else "second order"


def episodes(work: Work, tasks: int, device: str, dtype: torch.dtype) -> Episode:
    """Return random tasks, the same numbers in every precision."""

    def shots(k: int, seed: int) -> Shots:
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(tasks, work.ways, k, 1, 28, 28, dtype=torch.float64, generator=generator)
        y = torch.arange(work.ways)[None, :, None].expand(tasks, work.ways, k)
        return Shots(x.to(dtype), y, rng.fold_in(rng.key(seed), torch.arange(tasks)))

    made = Episode(shots(work.shots, 1), shots(work.queries, 2), torch.zeros(tasks, work.ways).long())
    return tree_map(lambda leaf: leaf.to(device), made)


def contenders(work: Work, device: str, dtype: torch.dtype) -> Iterator[tuple[str, Any, nn.Module | None]]:
    """Yield names, functions that leave a gradient of the tasks of an Episode, and the models it is left in.

    In place of a function stands the reason why there is none.
    """
    overrides = [
        f"model={work.model}",
        f"task={'classify' if work.model == 'conv4' else 'generate'}",
        f"task.ways={work.ways}",
        "learner=maml",
        f"learner.gradient.first_order={work.first_order}",
        f"learner.steps={STEPS}",
        f"learner.rule.rate={RATE}",
        *work.overrides,
    ]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", overrides)
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    for backend in BACKENDS:
        net = copy.deepcopy(model).to(device, dtype)
        optimizer = partial(torch.optim.Adam)
        experiment = Experiment(net, instantiate(cfg.learner), optimizer, vectorize=backend).to(device)
        yield f"metagen, {backend}", partial(_ours, experiment), net
    if device == "cuda":
        for name, kind in (("CUDA graph", _Graphed), ("torch.compile", _Compiled)):
            if name not in LEFT_OUT:
                yield (f"metagen, {name}", *_tried(kind, model, cfg, work, device, dtype))
    for name, peer in peers.PEERS.items():
        net = peers.Loss(copy.deepcopy(model)).to(device, dtype)
        try:
            yield name, partial(_theirs, peer(net, RATE, STEPS, work.first_order)), net.model
        except peers.MissingError as missing:
            yield name, str(missing), None


def _ours(experiment: Experiment, batch: Episode) -> None:
    experiment.zero_grad()
    experiment.meta_loss(batch).backward()


def _tried(
    kind: Any, model: nn.Module, cfg: Any, work: Work, device: str, dtype: torch.dtype
) -> tuple[Any, nn.Module | None]:
    """Return a step of another kind and its model, or why there is none, after trying it on one task."""
    net = copy.deepcopy(model).to(device, dtype)
    adam = partial(torch.optim.Adam)
    experiment = Experiment(net, instantiate(cfg.learner), adam, vectorize="vmap").to(device)
    try:
        step = kind(experiment)
        step(episodes(work, 1, device, dtype))
    except Exception as error:  # whatever a capture or a compiler finds wrong is a note in the table
        return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}", None
    return step, net


class _Graphed:
    """A whole step, forward and backward, captured once for each shape and replayed: no interpreter."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.graphs = experiment, {}

    def __call__(self, batch: Episode) -> None:
        leaves, _ = flatten(batch)
        shape = (tuple(leaves[0].shape), torch.is_autocast_enabled("cuda"))
        if shape not in self.graphs:
            self.graphs[shape] = self._captured(batch)
        graph, static, grads = self.graphs[shape]
        for to, leaf in zip(static, leaves, strict=True):
            to.copy_(leaf)
        graph.replay()
        for p, grad in zip(self.experiment.parameters(), grads, strict=True):
            p.grad = grad

    def _captured(self, batch: Episode) -> Any:
        static = tree_map(torch.clone, batch)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # libraries choose their kernels before the capture
                _ours(self.experiment, static)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self.experiment.zero_grad()
        with torch.cuda.graph(graph):
            self.experiment.meta_loss(static).backward()
        return graph, flatten(static)[0], [p.grad for p in self.experiment.parameters()]


class _Compiled:
    """The meta-loss under ``torch.compile``, its gradient by the backward pass that comes with it."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.loss = experiment, torch.compile(experiment.meta_loss, dynamic=False)

    def __call__(self, batch: Episode) -> None:
        self.experiment.zero_grad()
        self.loss(batch).backward()


def _theirs(step: peers.Step, batch: Episode) -> None:
    parts = [tree_map(lambda leaf, t=t: leaf[t], batch) for t in range(len(batch.classes))]
    step([(part.support, part.query) for part in parts])


def gradients(work: Work, tasks: int, device: str, dtype: torch.dtype, cast: Any) -> dict[str, Tensor]:
    """Return everyone's gradient as one float64 vector, over the parameters that the loss reads."""
    found = {}
    for name, step, net in contenders(work, device, dtype):
        if net is not None:
            with cast():
                step(episodes(work, tasks, device, dtype))
            unread = tuple(pattern.rstrip("*") for pattern in net.encoder)
            leaves = [p for n, p in net.named_parameters() if not n.startswith(unread or ("-",))]
            found[name] = torch.cat([p.grad.double().flatten() for p in leaves])
    return found


def rows(
    work: Work, tasks: int, rounds: int, checked: int, device: str = "cpu", bf16: bool = False
) -> Iterator[dict[str, Any]]:
    """Time everyone in turns on ``tasks`` tasks; compare the gradients of ``checked`` tasks.

    Yields the median of a step, how often it fits into learn2learn's and the plain loop's, its share of
    the FLOP/s of a matrix product, and the relative distance of its gradient from the plain loop's in
    float64, of its own in float64 and in the precision that was timed.
    """

    def cast() -> AbstractContextManager[Any]:
        return torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()

    exact = gradients(work, checked, device, torch.float64, nullcontext)
    timed = gradients(work, checked, device, torch.float32, cast)
    batch, functions, notes = episodes(work, tasks, device, torch.float32), {}, {}
    for name, step, net in contenders(work, device, torch.float32):
        if net is None:
            notes[name] = step
        else:
            functions[name] = partial(_under, cast, step, batch)
    flops = _flops(work, device) * tasks / peak_flops(device, torch.bfloat16 if bf16 else torch.float32)
    seconds, reference = in_turns(functions, rounds, device), exact["plain loop"]
    title = f"{work.name}, {tasks} tasks" + (f", {device} {'bf16' if bf16 else 'f32'}" * (device != "cpu"))
    for name in [*functions, *notes]:
        row = {"work": title, "by": name, "note": notes.get(name, "")}
        if name in seconds:
            row |= {"ms": 1e3 * seconds[name], "x plain loop": seconds["plain loop"] / seconds[name]}
            row |= {"peak": f"{flops / seconds[name]:.0%}"}
            row |= {"gradient f64": _distance(exact[name], reference)}
            row |= {"as timed": _distance(timed[name], reference)}
            if "learn2learn" in seconds:
                row["x learn2learn"] = seconds["learn2learn"] / seconds[name]
        yield row


def _under(cast: Any, step: Callable[[Episode], None], batch: Episode) -> None:
    with cast():
        step(batch)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def _flops(work: Work, device: str) -> int:
    """Return the FLOPs of one task, as the plain loop spends them."""
    (step,) = (step for name, step, _ in contenders(work, device, torch.float32) if name == "plain loop")
    with FlopCounterMode(display=False) as counter:
        step(episodes(work, 1, device, torch.float32))
    return counter.get_total_flops()
