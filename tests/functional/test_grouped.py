"""Values and derivatives of the project's own operations against PyTorch's, with a loop and under vmap."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from metagen.functional import grouped as ops

TASKS = 3


def norm_of_the_batch(x, weight, bias):
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(var + 1e-5) * weight[:, None, None] + bias[:, None, None]


def rand(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(TASKS, *shape, dtype=torch.float64, generator=generator)


CASES = {
    "conv": (
        lambda x, w, b: ops.conv2d(x, w, b, 1, 1),
        lambda x, w, b: F.conv2d(x, w, b, 1, 1),
        [rand(2, 4, 7, 7), rand(6, 4, 3, 3), rand(6)],
    ),
    "conv with stride": (
        lambda x, w: ops.conv2d(x, w, None, 2, 1),
        lambda x, w: F.conv2d(x, w, None, 2, 1),
        [rand(2, 1, 9, 9), rand(6, 1, 4, 4)],
    ),
    "transposed": (
        lambda x, w, b: ops.conv_transpose2d(x, w, b, 2, 1),
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1),
        [rand(2, 4, 5, 5), rand(4, 6, 4, 4), rand(6)],
    ),
    "batch norm": (ops.batch_norm, norm_of_the_batch, [rand(4, 3, 5, 5), rand(3), rand(3)]),
    "group norm": (
        lambda x: ops.group_norm(x, 2),
        lambda x: torch.cat([norm_of_the_batch(h, *_unit(1)) for h in _groups(x)]).reshape(x.shape),
        [rand(3, 6, 5, 5)],
    ),
    "max pool": (lambda x: ops.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 2), [rand(3, 4, 7, 7)]),
}


def _unit(n):
    return torch.ones(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)


def _groups(x):
    """Every group of every image as a batch of one image with one wide channel."""
    return x.unflatten(1, (2, -1)).flatten(0, 1).flatten(1, 2)[:, None, None]


def scalar(op):
    return lambda *args: (op(*args) ** 3).mean()


def penalty(op):
    """A function whose gradient holds the second derivatives of ``op``."""

    def of(*args):
        grads = grad(scalar(op), tuple(range(len(args))))(*args)
        return sum((g**2).sum() for g in grads) + scalar(op)(*args)

    return of


@pytest.mark.parametrize("order", [scalar, penalty], ids=["first", "second"])
@pytest.mark.parametrize("case", CASES)
def test_derivatives(case, order):
    ours, theirs, args = CASES[case]
    by = tuple(range(len(args)))
    for t in range(TASKS):
        one = [x[t] for x in args]
        torch.testing.assert_close(ours(*one), theirs(*one), rtol=1e-10, atol=1e-12)
    want = [
        torch.stack(gs)
        for gs in zip(*(grad(order(theirs), by)(*(x[t] for x in args)) for t in range(TASKS)), strict=True)
    ]
    for got in (
        vmap(grad(order(ours), by))(*args),
        [
            torch.stack(gs)
            for gs in zip(*(grad(order(ours), by)(*(x[t] for x in args)) for t in range(TASKS)), strict=True)
        ],
        torch.autograd.grad(sum(order(ours)(*(x[t] for x in leaves)) for t in range(TASKS)), leaves)
        if (leaves := [x.clone().requires_grad_() for x in args])
        else [],
    ):
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_shared_weights_get_the_sum_of_the_tasks_gradients():
    ours, theirs, (x, w, b) = CASES["conv"]

    def total(op):
        leaves = [w[0].clone().requires_grad_(), b[0].clone().requires_grad_()]
        return torch.autograd.grad(vmap(lambda x: scalar(op)(x, *leaves))(x).sum(), leaves)

    for a, b_ in zip(total(ours), total(theirs), strict=True):
        torch.testing.assert_close(a, b_, rtol=1e-10, atol=1e-12)


def test_a_weight_of_zero_has_a_second_derivative():
    _, _, (x, weight, bias) = CASES["batch norm"]
    weight = weight[0].clone()
    weight[1] = 0
    args = (x[0], weight, bias[0])
    for a, b in zip(
        grad(penalty(ops.batch_norm), (0, 1, 2))(*args),
        grad(penalty(norm_of_the_batch), (0, 1, 2))(*args),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_and_their_gradients_lie_channels_last(channels):
    """Where they lay in two ways, what is done pixel by pixel would take three times as long."""
    x = torch.rand(5, channels, 8, 8)[:, :, ::2]  # not laid out in any way
    w = torch.rand(6, channels, 4, 4, requires_grad=True)
    strides = []
    y = ops.conv2d(x, w, None, 2, 1)
    y.register_hook(lambda gradient: strides.append(gradient.stride()))
    back = ops.conv_transpose2d(y, w, None, 2, 1)
    back.square().sum().backward()
    assert y.stride() == (2 * 4 * 6, 1, 4 * 6, 6)
    assert strides == [y.stride()]
