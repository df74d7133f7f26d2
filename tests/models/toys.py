"""Small binary images, and a model that was fitted to them."""

import torch

from metagen.core.episode import Shots
from metagen.functional import rng


def shots(n=2, k=3, seed=0, key=0):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(n, k, 1, 28, 28, dtype=torch.float64, generator=generator) < 0.2).double()
    return Shots(x, torch.arange(n)[:, None].expand(n, k), rng.key(key))


def fitted_to(data, model, row):
    """Take a few steps, so that the model's posterior is not its prior."""
    model.context.data = torch.randn(len(data.y), row, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(60):
        optimizer.zero_grad()
        model.loss(data.at(step)).backward()
        optimizer.step()
    return model


def bounds_after_the_elbo(model, data, draws, samples, repeats):
    """Check that one sample of the importance bound is the ELBO in expectation; return it and the bounds."""
    elbo = -torch.stack([model.loss(data.at(step)) for step in range(draws)])
    one = torch.stack([model.log_likelihood(data.at(step), 1).mean() for step in range(draws)])
    spread = (elbo.std() + one.std()) / draws**0.5
    assert abs(elbo.mean() - one.mean()) < 4 * spread, "one sample of the bound is the ELBO in expectation"
    bounds = [
        torch.stack([model.log_likelihood(data.at(1000 + i), s).mean() for i in range(repeats)]).mean()
        for s in samples
    ]
    return elbo.mean(), bounds
