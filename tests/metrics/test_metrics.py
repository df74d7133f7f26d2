import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from metagen.core.episode import Shots
from metagen.core.metric import Metric, Outcome
from metagen.errors import MetagenError
from metagen.functional import rng
from metagen.metrics.accuracy import Accuracy
from metagen.metrics.diversity import Diversity
from metagen.metrics.memorisation import Memorisation
from metagen.metrics.negative_elbo import NegativeElbo
from metagen.metrics.recognised import Recognised

CONF = Path(__file__).parents[2] / "conf" / "metric"
N, K, Q = 3, 5, 400
LABELS = torch.tensor([7, 2, 9])


def images(seed: int, count: int, labels: Tensor = LABELS) -> Tensor:
    """Noise whose brightness tells the class, so that a perfect judge exists."""
    return rng.uniform(rng.key(seed), (len(labels), count, 1, 6, 6)) * 0.05 + labels.view(-1, 1, 1, 1, 1) / 10


class PerfectJudge:
    def __call__(self, x: Tensor) -> Tensor:
        return -(x.mean((1, 2, 3))[:, None] - 0.025 - torch.arange(10) / 10).abs()

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def outcome(samples: Tensor | None, **changes: object) -> Outcome:
    y = torch.arange(N)[:, None]
    support, query = (Shots(images(s, k), y.expand(N, k), rng.key(s)) for s, k in ((0, K), (1, Q)))
    return Outcome(support, query, LABELS, torch.tensor(1.5), PerfectJudge(), samples)._replace(**changes)


def test_a_constant_generator_has_no_diversity() -> None:
    assert Diversity()(outcome(images(2, 1).expand(-1, 8, -1, -1, -1))) == pytest.approx(0, abs=1e-12)


def test_real_images_are_as_diverse_and_as_far_as_real_images() -> None:
    real = outcome(images(2, Q))
    assert Diversity()(real) == pytest.approx(1, abs=0.02)
    assert Memorisation()(real) == pytest.approx(1, abs=0.02)


def test_half_the_contrast_is_half_the_diversity() -> None:
    real = outcome(None)
    assert Diversity()(outcome(real.query.x / 2)) == pytest.approx(0.5)


def test_a_single_image_has_no_diversity_to_measure() -> None:
    assert math.isnan(Diversity()(outcome(images(2, 1))))


def test_a_copier_is_caught() -> None:
    copies = outcome(None).support.x.repeat(1, 4, 1, 1, 1)
    assert Memorisation()(outcome(copies)) == 0


def test_memorisation_looks_at_the_own_class_only() -> None:
    assert Memorisation()(outcome(outcome(None).support.x.roll(1, 0))) > 1


def test_recognised_by_a_perfect_judge() -> None:
    assert Recognised()(outcome(images(2, 4))) == 100
    assert Recognised()(outcome(images(2, 4).roll(1, 0))) == 0
    half = torch.cat([images(2, 4), images(2, 4).roll(1, 0)], 1)
    assert Recognised()(outcome(half)) == 50


def test_recognised_among_the_classes_of_the_episode() -> None:
    near_seven = images(2, 4, torch.tensor([6, 2, 9]))
    assert Recognised("all")(outcome(near_seven)) == pytest.approx(200 / 3)
    assert Recognised("episode")(outcome(near_seven)) == 100
    with pytest.raises(MetagenError, match="among"):
        Recognised("some")  # type: ignore[arg-type]


def test_accuracy_counts_argmax() -> None:
    logits = torch.eye(N).repeat_interleave(Q, 0)
    logits[:Q] = torch.tensor([0.0, 1.0, 0.0])
    assert Accuracy()(outcome(None, logits=logits)) == pytest.approx(200 / 3)


def test_losses_pass_through() -> None:
    assert NegativeElbo()(outcome(None)) == 1.5


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_is_a_metric_of_its_name_and_says_what_it_needs(path: Path) -> None:
    node = OmegaConf.load(path)
    metric = instantiate(OmegaConf.merge(node, {"steps": 2}) if "steps" in node else node)
    assert isinstance(metric, Metric)
    assert metric.name == path.stem
    assert path.read_text().startswith(f"# @package metrics.{path.stem}\n")
    assert metric.unit in ("%", "nats", "bits", "")
    logits = torch.zeros(N * Q, N)
    rest = (images(3, 4), images(4, 4))
    full = outcome(images(2, 8), logits=logits, inductive=logits, transductive=logits, others=rest)
    assert math.isfinite(metric(full))
    for part in ("samples", "logits", "judge", "others"):
        if getattr(metric, f"needs_{part}"):
            with pytest.raises(MetagenError, match=part):
                metric(full._replace(**{part: None}))
        else:
            metric(full._replace(**{part: None}))
