"""How other libraries compute a MAML gradient, and a plain loop that needs none of them.

Each takes a network whose ``forward(shots)`` is the loss, and returns a function of a list of tasks
(support, query) that leaves the gradient of their mean query loss in ``.grad``. They work off one task
after the other, as their examples do.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from metagen.core.episode import Shots
from metagen.models import layers

Tasks = Sequence[tuple[Shots, Shots]]
Step = Callable[[Tasks], None]


class MissingError(Exception):
    """A library is not installed, or cannot do this; the message says which."""


class Loss(nn.Module):
    """A model of this project as a network of native layers, for peers that call ``forward``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for pattern in model.encoder:  # only encode() reads these; peers expect gradients everywhere
            delattr(model, pattern.split(".")[0])
        self.model = native(model)

    def forward(self, shots: Shots) -> Tensor:
        return self.model.loss(shots)


def native(module: nn.Module) -> nn.Module:
    """Put PyTorch's own layers in the place of this project's, with the same parameters."""
    for name, child in module.named_children():
        setattr(module, name, native(child))
    if isinstance(module, layers.Conv2d | layers.ConvTranspose2d):
        module.__class__ = type(module).__base__
    elif isinstance(module, layers.BatchStatNorm):
        norm = _BatchNorm(len(module.weight), module.eps, track_running_stats=False)
        norm.weight, norm.bias = module.weight, module.bias
        return norm
    elif isinstance(module, layers.GroupNorm):
        return _GroupNorm(module.groups, module.eps)
    elif isinstance(module, layers.MaxPool2d):
        return nn.MaxPool2d(module.size)
    return module


class _BatchNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor, given: int | None = None) -> Tensor:
        return super().forward(x)


class _GroupNorm(nn.Module):
    def __init__(self, groups: int, eps: float) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.groups, eps=self.eps)


def plain(net: nn.Module, rate: float, steps: int, first_order: bool) -> Step:
    """functional_call and autograd.grad, as one writes it by hand."""

    def step(tasks: Tasks) -> None:
        net.zero_grad()
        for support, query in tasks:
            phi = dict(net.named_parameters())
            for i in range(steps):
                loss = functional_call(net, phi, (support.at(i),))
                grads = torch.autograd.grad(loss, list(phi.values()), create_graph=not first_order)
                phi = {n: p - rate * g for (n, p), g in zip(phi.items(), grads, strict=True)}
            (functional_call(net, phi, (query,)) / len(tasks)).backward()

    return step


def learn2learn(net: nn.Module, rate: float, steps: int, first_order: bool) -> Step:
    maml = load_learn2learn("algorithms.maml").MAML(net, rate, first_order=first_order)

    def step(tasks: Tasks) -> None:
        maml.zero_grad()
        for support, query in tasks:
            learner = maml.clone()
            for i in range(steps):
                learner.adapt(learner(support.at(i)))
            (learner(query) / len(tasks)).backward()

    return step


def higher(net: nn.Module, rate: float, steps: int, first_order: bool) -> Step:
    library = load("higher")
    inner = torch.optim.SGD(net.parameters(), rate)

    def step(tasks: Tasks) -> None:
        net.zero_grad()
        for support, query in tasks:
            with library.innerloop_ctx(
                net, inner, copy_initial_weights=False, track_higher_grads=not first_order
            ) as (fast, optimizer):
                for i in range(steps):
                    optimizer.step(fast(support.at(i)))
                loss = fast(query) / len(tasks)
                if not first_order:
                    loss.backward()
                    continue
                grads = torch.autograd.grad(loss, list(fast.parameters()))
            for p, g in zip(net.parameters(), grads, strict=True):
                p.grad = g if p.grad is None else p.grad + g

    return step


def torchopt(net: nn.Module, rate: float, steps: int, first_order: bool) -> Step:
    library = load("torchopt")
    if first_order:
        raise MissingError("has no first-order MetaSGD")
    parameters = list(net.parameters())  # a step puts other tensors in their place

    def step(tasks: Tasks) -> None:
        for p in parameters:
            p.grad = None
        optimizer = library.MetaSGD(net, lr=rate)
        start = [library.extract_state_dict(of, by="reference") for of in (net, optimizer)]
        for support, query in tasks:
            for i in range(steps):
                optimizer.step(net(support.at(i)))
            (net(query) / len(tasks)).backward()
            for of, state in zip((net, optimizer), start, strict=True):
                library.recover_state_dict(of, state)

    return step


PEERS = {"plain loop": plain, "learn2learn": learn2learn, "higher": higher, "torchopt": torchopt}


def load(name: str) -> ModuleType:
    """Import a library, or raise :class:`MissingError` with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        why = "not installed" if error.name == name.split(".")[0] else f"does not load ({error})"
        raise MissingError(f"{why}: pip install --target DIR {name.split('.')[0]}, see README.md") from error


def load_learn2learn(module: str) -> ModuleType:
    """Import one module of learn2learn, from its unpacked sources where METAGEN_LEARN2LEARN names them.

    Its package files import everything, such as gym and the compiled parts; empty ones stand in for them.
    """
    root = os.environ.get("METAGEN_LEARN2LEARN")
    if root and "learn2learn" not in sys.modules:
        for package in ("", ".algorithms", ".data"):
            stub = ModuleType(f"learn2learn{package}")
            stub.__path__ = [os.path.join(root, "learn2learn", package[1:])]
            sys.modules[stub.__name__] = stub
        sys.modules["learn2learn"].data = sys.modules["learn2learn.data"]
        sys.modules["learn2learn"].__dict__["utils"] = importlib.import_module("learn2learn.utils")
    try:
        return importlib.import_module(f"learn2learn.{module}")
    except ImportError as error:
        raise MissingError(f"not installed ({error}): set METAGEN_LEARN2LEARN, see README.md") from error
