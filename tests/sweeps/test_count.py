"""The number of jobs of a sweep is known before they are multiplied out."""

import pytest

from metagen.errors import UsageError
from metagen.sweeps.count import check_jobs


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["seed=range(0,1000000)"], "1,000,000"),
        (["seed=range(0,40)", "task.shots=range(1,30)", "learner=maml,scratch"], "2,320"),
        (["seed=0,1", "seed=range(0,2000)"], "2,000"),
        (["+hydra.sweeper.params.seed=range(0,1001)"], "1,001"),
        (["learner.rule.rate=range(0,1,0.0005)"], "2,000"),
        (["hydra/sweeper=optuna", "hydra.sweeper.n_trials=5000", "seed=range(0,10)"], "5,000"),
    ],
)
def test_many_jobs_are_done_only_if_one_says_so(words, count):
    with pytest.raises(UsageError, match=rf"this sweep is of {count} jobs.*--up-to {count.replace(',', '')}"):
        check_jobs(words)
    check_jobs(words, int(count.replace(",", "")))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["seed=range(0,1000)"],
        ["hydra/sweeper=optuna", "seed=range(0,1000000)"],
        ["hydra.launcher.jobs=2", "learner=glob(*)", "learner.rule.rate=interval(0,1)"],
    ],
)
def test_few_jobs_are_not_asked_about(words):
    check_jobs(words)


@pytest.mark.parametrize("text", ["range(0,10,0)", "range(0.5,inf)", "range(5,0)"])
def test_a_range_that_never_ends_or_is_empty_is_refused(text):
    with pytest.raises(UsageError, match="a range"):
        check_jobs([f"seed={text}"])
