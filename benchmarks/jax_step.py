"""The second-order step of step.py in JAX: the same network as a function of the same weights, under jit.

JAX is no part of this project: where it is not installed, its rows say so. The gradients are compared with
ours, in float32, from the same weights and images; the exit code tells whether they are equal.

    python benchmarks/jax_step.py cpu --tasks 4       # or cuda, --only strided, --quick
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import peers
import step
import torch
from timing import in_turns, markdown
from torch import Tensor, nn

from metagen.core.episode import Episode

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or it takes most of the card at once
COLUMNS = ("work", "by", "ms", "x JAX", "first call s", "gradient", "note")
EQUAL = 1e-3
"""Relative distance of two gradients in float32 up to which they are equal."""
WAYS = ("vmap", "map")
"""How JAX goes over the tasks: all at once, or one after the other in one compiled loop."""


class Step:
    """The gradient of the mean query loss of tasks, by ``jax.jit`` of ``jax.grad`` through the inner steps.

    Args:
        model: a Conv4 of this project, whose weights are taken over.
        batch: the tasks.
        over: one of ``WAYS``.
        rate, steps: of the inner loop.
        first_order: whether the inner gradients are constants.
        device: ``cpu`` or ``cuda``.

    Raises:
        MissingError: JAX is not installed, has no such device, or the model is none that it is written for.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Episode,
        over: str,
        rate: float,
        steps: int,
        first_order: bool,
        device: str,
    ) -> None:
        self.jax = jax = peers.load("jax")
        if type(model).__name__ != "Conv4":
            raise peers.MissingError(f"written for Conv4 alone, not for {type(model).__name__}")
        try:
            self.device = jax.devices("gpu" if device == "cuda" else "cpu")[0]
        except RuntimeError as error:
            raise peers.MissingError(f"jax finds no device for {device}: install jax[cuda]") from error
        self.params = {name: self._there(p) for name, p in model.named_parameters()}
        parts = (batch.support.x, batch.support.y, batch.query.x, batch.query.y)
        self.batch = tuple(self._there(part) for part in parts)
        self.run = jax.jit(_gradient(jax, _conv4(jax, model), over, rate, steps, first_order))

    def __call__(self) -> None:
        """Take one step and wait for it."""
        self.jax.block_until_ready(self.run(self.params, *self.batch))

    def gradient(self) -> dict[str, Tensor]:
        """Return the gradient by the name of the parameter."""
        with self.jax.default_matmul_precision("highest"):  # a GPU's usual one has 10 bits
            found = self.run(self.params, *self.batch)
        return {name: torch.tensor(self.jax.device_get(g)) for name, g in found.items()}

    def _there(self, x: Tensor) -> Any:
        return self.jax.device_put(x.detach().cpu().numpy(), self.device)


def _gradient(
    jax: Any, loss: Any, over: str, rate: float, steps: int, first_order: bool
) -> Callable[..., Any]:
    def task(params: Any, x: Any, y: Any, query_x: Any, query_y: Any) -> Any:
        phi = params
        for _ in range(steps):
            grads = jax.grad(loss)(phi, x, y)
            grads = jax.lax.stop_gradient(grads) if first_order else grads
            phi = jax.tree.map(lambda p, g: p - rate * g, phi, grads)
        return loss(phi, query_x, query_y)

    def mean(params: Any, *batch: Any) -> Any:
        if over == "vmap":
            return jax.vmap(task, (None, 0, 0, 0, 0))(params, *batch).mean()
        return jax.lax.map(lambda one: task(params, *one), batch).mean()

    return jax.grad(mean)


def _conv4(jax: Any, model: Any) -> Callable[..., Any]:
    """Return the loss of Conv4 by its parameters: four convolutions with batch statistics, and a readout."""
    lax, jnp = jax.lax, jax.numpy
    pooled = any(type(module).__name__ == "MaxPool2d" for module in model.modules())
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    norms = [(n, m.eps) for n, m in model.named_modules() if type(m).__name__ == "BatchStatNorm"]
    kinds = [m for m in model.modules() if isinstance(m, nn.Conv2d)]

    def loss(p: Any, x: Any, y: Any) -> Any:
        x, y = x.reshape(-1, *x.shape[-3:]), y.reshape(-1)
        for name, (norm, eps), conv in zip(convolutions, norms, kinds, strict=True):
            pads = [(conv.padding[0],) * 2] * 2
            x = lax.conv_general_dilated(x, p[f"{name}.weight"], conv.stride, pads)
            if f"{name}.bias" in p:
                x = x + p[f"{name}.bias"][:, None, None]
            mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
            x = (x - mean) * lax.rsqrt(var + eps)
            x = jax.nn.relu(x * p[f"{norm}.weight"][:, None, None] + p[f"{norm}.bias"][:, None, None])
            if pooled:
                x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        x = x.reshape(len(x), -1) if pooled else x.mean((2, 3))
        logits = x @ p["readout.weight"].T + p["readout.bias"]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

    return loss


def rows(work: step.Work, tasks: int, rounds: int, device: str) -> Iterator[dict[str, Any]]:
    """Yield a row for our step and one for each way of JAX's, with the distance of its gradient from ours."""
    batch = step.episodes(work, tasks, device, torch.float32)
    ours = next(
        found for found in step.contenders(work, device, torch.float32) if found[0] == "metagen, auto"
    )
    name, run, model = ours
    run(batch)
    reference = {n: p.grad.cpu().clone() for n, p in model.named_parameters()}
    title = f"{work.name}, {tasks} tasks, {device} f32"
    seconds, made = {name: in_turns({name: lambda: run(batch)}, rounds, device)[name]}, []
    for over in WAYS:
        row = {"work": title, "by": f"JAX, jit + {over}"}
        try:
            other = Step(model, batch, over, step.RATE, step.STEPS, work.first_order, device)
            start = time.perf_counter()
            other()
            row |= {
                "first call s": time.perf_counter() - start,
                "gradient": _distance(other.gradient(), reference),
            }
            row |= {"ms": 1e3 * in_turns({over: other}, rounds, device)[over]}
        except peers.MissingError as missing:
            row["note"] = str(missing)
        made.append(row)
    known = [row["ms"] for row in made if "ms" in row]
    own = {"work": title, "by": name, "ms": 1e3 * seconds[name]}
    yield own | ({"x JAX": min(known) / own["ms"]} if known else {})
    yield from made


def _distance(found: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    a, b = (torch.cat([g[name].double().flatten() for name in reference]) for g in (found, reference))
    return float((a - b).norm() / b.norm())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device", choices=("cpu", "cuda"))
    parser.add_argument(
        "--only", default="strided, 5-way 1-shot, second", help="works with this in their name"
    )
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2 tasks and a small network, once")
    args = parser.parse_args()
    found: list[dict[str, Any]] = []
    for work in step.works():
        if args.only in work.name and work.model == "conv4":
            small = (*work.overrides, "model.filters=8")
            work = work._replace(overrides=small, queries=3) if args.quick else work
            tasks, rounds = (2, 1) if args.quick else (args.tasks, args.rounds)
            found += rows(work, tasks, rounds, args.device)
    print(markdown(found, COLUMNS))
    unequal = [row["by"] for row in found if not row.get("gradient", 0.0) < EQUAL]
    missing = sorted({row["note"].partition(":")[0] for row in found if "note" in row})
    said = [f"{row['by']} {row['ms']:.0f} ms" for row in found if "ms" in row]
    print(
        *said, *(f"JAX: {note}" for note in missing), *(f"{by}: another gradient" for by in unequal), sep="; "
    )
    return bool(unequal)


if __name__ == "__main__":
    sys.exit(main())
