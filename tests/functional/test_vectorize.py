"""The gradient of many tasks at once is that of each by itself."""

import pytest
import torch

from metagen.functional.vectorize import gradient, loop, quickest, tree_map, vmap

GENERATOR = torch.Generator().manual_seed(0)
X, Y = (torch.randn(3, 4, dtype=torch.float64, generator=GENERATOR) for _ in range(2))
LOSSES = {
    "of all": lambda at, x: (at["a"] ** 3 * x + at["b"] ** 2).sum(),
    "of some": lambda at, x: (at["a"] ** 3 * x).sum(),
    "of none": lambda at, x: (x**2).sum(),
}


def second_order(over, loss):
    """The gradient inside, and the gradient of a function of it."""
    leaves = {"a": X.clone().requires_grad_(), "b": Y.clone().requires_grad_()}
    inner = over(lambda at, x: gradient(loss, at, x))(leaves, X)
    total = sum((g**2).sum() + (g * p).sum() for g, p in zip(inner.values(), leaves.values(), strict=True))
    return inner, torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_the_gradient_inside_vmap_is_that_of_a_loop(loss):
    """Zero where the loss does not depend on a tensor, as of ``torch.func.grad``."""
    (inner, outer), (want_inner, want_outer) = second_order(vmap, loss), second_order(loop, loss)
    for name in want_inner:
        torch.testing.assert_close(inner[name], want_inner[name])
    torch.testing.assert_close(outer, want_outer)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_the_gradient_inside_vmap_without_a_graph(loss):
    at = {"a": X, "b": Y}
    with torch.no_grad():
        got = vmap(lambda at, x: gradient(loss, at, x))(at, X)
    want = [torch.func.grad(loss)(tree_map(lambda leaf, i=i: leaf[i], at), X[i]) for i in range(len(X))]
    for name in at:
        torch.testing.assert_close(got[name], torch.stack([task[name] for task in want]))


def test_one_task_alone_goes_through_the_loop_and_several_through_vmap():
    def told(x):
        return x.new_tensor(float(torch._C._functorch.is_batchedtensor(x)))

    assert quickest(told)(torch.zeros(1, 2)).tolist() == [0.0]
    assert quickest(told)(torch.zeros(2, 2)).tolist() == [1.0, 1.0]
