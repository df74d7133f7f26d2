"""How a small network of a metric is trained, and the layers that it is made of."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm


def fit(net: nn.Module, loss: Callable[[], Tensor], steps: int, lr: float, name: str) -> nn.Module:
    """Train a network by AdamW on a one-cycle schedule, and return it for use alone.

    Args:
        net: to be trained, in place.
        loss: of the next batch, a scalar that depends on the weights of ``net``.
        steps: of training.
        lr: peak of the schedule (Smith, Topin: *Super-Convergence*, 2018).
        name: of the progress bar.
    """
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    for _ in tqdm(range(steps), desc=name, unit="step", disable=None, leave=False):
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def layer(inputs: int, outputs: int, side: int = 3, stride: int = 1) -> list[nn.Module]:
    """Return a convolution, which keeps the size but for its stride, with batch normalisation and ReLU."""
    return [nn.Conv2d(inputs, outputs, side, stride, side // 2), nn.BatchNorm2d(outputs), nn.ReLU()]
