"""The negative ELBO is that of a likelihood, or is not reported at all."""

import logging

import pytest
from conftest import choices, composed
from hydra.utils import instantiate

from metagen.cli.main import run
from metagen.core.model import Generator
from metagen.jobs.build import _fitting
from metagen.metrics.diversity import Diversity
from metagen.metrics.negative_elbo import NegativeElbo

GENERATORS = {
    name: model
    for name in choices("model")
    if isinstance(model := instantiate(composed(f"model={name}").model), Generator)
}


@pytest.mark.parametrize("name", GENERATORS)
def test_it_is_refused_exactly_where_the_loss_is_no_likelihood(name):
    reason = NegativeElbo().unfit(GENERATORS[name])
    assert (reason is not None) == (name in ("deformation", "flow", "gan", "warp"))
    if reason is not None:
        assert GENERATORS[name].loss_unit in reason
        assert "\n" not in reason


def test_other_metrics_are_kept_and_the_log_says_what_is_left_out(caplog):
    both = {"diversity": Diversity(), "negative_elbo": NegativeElbo()}
    with caplog.at_level(logging.WARNING):
        assert list(_fitting(both, GENERATORS["vae"])) == ["diversity", "negative_elbo"]
        assert not caplog.records
        assert list(_fitting(both, GENERATORS["flow"])) == ["diversity"]
    assert [record.getMessage() for record in caplog.records] == [
        "metric negative_elbo is left out: the loss of Flow is a squared error, no bound of -log p in nats: "
        "judge its samples instead, by metrics such as recognised or coverage"
    ]


def test_the_metric_that_a_run_goes_by_is_refused_before_anything_is_written(tmp_cwd, capsys):
    argv = ["train", "experiment=quickstart", "model=flow", "metric=[negative_elbo,diversity]"]
    assert run([*argv, "hydra.run.dir=out"]) != 0
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert "negative_elbo" in error
    assert "metric=[...]" in error
    assert not (tmp_cwd / "out" / "metrics.json").exists()
