"""A generator as a classifier: Bayes' rule over the likelihoods that it gives an image in every class."""

import torch
from torch import Tensor

from metagen.core.episode import Params, Shots
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.functional import rng

IMPORTANCE_SAMPLES = 16
"""Of a likelihood that is a bound, unless something else is asked for."""
PIXELS = 2**19
"""At most in one call of the model (669 images of 28 x 28), or one image against all classes."""


def class_logits(
    objective: Objective,
    phi: Params,
    query: Shots,
    importance_samples: int = IMPORTANCE_SAMPLES,
    most: int = PIXELS,
) -> Tensor:
    r"""Return log p(x_b | class n) of every query image and every class, (N Q, N) nats.

    .. math:: p(n \mid x) = \frac{p(x \mid n)}{\sum_m p(x \mid m)}

    with a uniform prior over the N classes of the episode, so that the softmax of a row is the posterior: a
    generative classifier (Ng and Jordan: *On discriminative vs. generative classifiers*, NIPS 2001), as in
    the one-shot classification of Lake, Salakhutdinov, Tenenbaum (*Human-level concept learning through
    probabilistic program induction*, Science 2015). Where the likelihood is a bound, so is each logit, and
    the posterior is exact in the limit of many importance samples.

    Args:
        objective: of a generator with a likelihood.
        phi: its parameters after the adaptation to the support images of N classes.
        query: Q images of each class (N, Q, C, H, W); the labels are not read.
        importance_samples: S, for models whose likelihood is a bound.
        most: pixels that the model sees at once, unless one image against all classes has more.

    Raises:
        MetagenError: the model has no likelihood.
    """
    if reason := no_likelihood(objective.model):
        raise MetagenError(reason)
    x, ways = query.x.flatten(0, 1), query.x.shape[0]
    at_once = max(1, most // (ways * x[0].numel()))
    y = torch.arange(ways, device=x.device)[:, None]
    parts = []
    for number, images in enumerate(x.split(at_once)):
        every = images.expand(ways, *images.shape)  # all of them as images of each class
        key = rng.fold_in(query.key, number)
        shots = Shots(every, y.expand(ways, len(images)), key)
        parts.append(objective.call("log_likelihood", phi, shots, importance_samples).T)
    return torch.cat(parts)


def no_likelihood(model: object) -> str | None:
    """Return why a generator cannot classify, and what can; None where it has a likelihood."""
    if getattr(model, "likelihood", None) is not None:
        return None
    return (
        f"{type(model).__name__} has no likelihood of pixels in nats, so that Bayes' rule says nothing: use "
        f"a model that has one, such as model=pixel_transformer or model=vae"
    )
