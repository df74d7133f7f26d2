"""Metrics that would be undefined, or that a judge cannot serve, are found before a training."""

import logging

import pytest
from bad_values import composed
from conftest import choices

from metagen.config.trusted import instantiate
from metagen.core.metric import Metric
from metagen.errors import MetagenError, UsageError
from metagen.jobs.rehearsal_of_test import check_metrics

CLASSIFIES = ("task=classify", "model=conv4", "learner=maml")


def made(names, *overrides):
    config = composed((f"metric=[{','.join(names)}]", *overrides))
    metrics = {name: instantiate(node) for name, node in config["metrics"].items()}
    return metrics, instantiate(config["judge"], "judge"), config["task"]


@pytest.mark.parametrize("kind", ["generate", "classify"])
def test_every_metric_is_defined_as_it_is(kind, caplog):
    other = "logits" if kind == "generate" else "samples"
    metrics, judge, task = made(choices("metric"), *(CLASSIFIES if kind == "classify" else ()))
    fitting = {name: one for name, one in metrics.items() if not getattr(one, f"needs_{other}")}
    assert len(fitting) > 10
    with caplog.at_level(logging.WARNING):
        for name, one in fitting.items():
            check_metrics({name: one}, judge, task, 64)
    assert not caplog.text


def test_a_metric_that_would_be_undefined_is_refused_or_said(caplog):
    metrics, judge, task = made(["coverage", "negative_elbo"])
    with pytest.raises(UsageError, match=r"metric coverage is undefined for . support, .* query and 3 drawn"):
        check_metrics(metrics, judge, task, 3)
    with caplog.at_level(logging.WARNING):
        check_metrics(dict(reversed(metrics.items())), judge, task, 3)
    assert "metric coverage is undefined" in caplog.text


def test_a_judge_without_classes_is_refused():
    metrics, judge, task = made(["recognised"], "judge=protonet")
    with pytest.raises(MetagenError, match="judge=protonet has no classes of its own"):
        check_metrics(metrics, judge, task, 64)


def test_a_metric_of_ones_own_that_is_never_defined_is_found():
    class Never(Metric):
        name = "never"

        def measure(self, outcome):
            return outcome.loss * float("nan")

    with pytest.raises(UsageError, match="metric never is undefined"):
        check_metrics({"never": Never()}, None, {"kind": "generate", "shots": 1}, 1)


def test_a_metric_of_ones_own_that_fails_is_named():
    class Faulty(Metric):
        name = "faulty"

    with pytest.raises(UsageError, match=r"metric faulty fails on made-up images \(there is no measure"):
        check_metrics({"faulty": Faulty()}, None, {"kind": "generate", "shots": 1}, 1)
    Faulty.measure = lambda self, outcome: {}["ink"]
    with pytest.raises(UsageError, match=r"\(KeyError: 'ink', in test_rehearsal_of_test\.py, line \d+"):
        check_metrics({"faulty": Faulty()}, None, {"kind": "generate", "shots": 1}, 1)


def test_a_metric_that_trains_a_network_is_not_tried(monkeypatch):
    monkeypatch.setattr("metagen.metrics.augmentation.fit", lambda *args: pytest.fail("it was trained"))
    metrics, judge, task = made(["augmentation", "augmentation_support"])
    check_metrics(metrics, judge, task, 64)
