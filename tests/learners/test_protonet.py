"""Prototypical networks against their definition."""

import pytest
import torch
from conftest import build_pair, random_episodes

from metagen.functional.vectorize import vmap


@pytest.mark.parametrize("model", ["conv4", "basenet"])
@pytest.mark.parametrize("shots", [1, 4])
def test_the_linear_form_is_the_softmax_over_distances_to_the_class_means(model, shots):
    _, learner, objective = build_pair(model, "protonet")
    episodes, params = random_episodes(shots=shots), objective.params()

    def both(episode):
        phi = learner.adapt(objective, params, episode.support)
        linear = objective.call("logits", phi, episode.query.x.flatten(0, 1)).log_softmax(-1)
        seen = objective.call("features", params, episode.support.x.flatten(0, 1))
        means = seen.unflatten(0, episode.support.y.shape).mean(1)
        f = objective.call("features", params, episode.query.x.flatten(0, 1))
        distances = (f[:, None] - means[None]).square().sum(-1)
        return linear, (-distances).log_softmax(-1)

    linear, metric = vmap(both)(episodes)
    torch.testing.assert_close(linear, metric, rtol=1e-9, atol=1e-9)
    assert linear.std() > 1e-4


@pytest.mark.parametrize("ways", [2, 7])
def test_any_number_of_ways_fits(ways):
    _, learner, objective = build_pair("conv4", "protonet")
    episodes, params = random_episodes(ways=ways), objective.params()
    phi = vmap(lambda s: learner.adapt(objective, params, s))(episodes.support)
    assert phi["readout.bias"].shape == (2, ways)


def test_the_means_do_not_depend_on_the_labels_order():
    _, learner, objective = build_pair("conv4", "protonet")
    support = type(s := random_episodes(tasks=1).support)(*(part[0] for part in s))
    order = torch.tensor([2, 0, 1])
    one, other = (
        learner.adapt(objective, objective.params(), shots)["readout.weight"]
        for shots in (support, support._replace(x=support.x[order]))
    )
    torch.testing.assert_close(other, one[order])
