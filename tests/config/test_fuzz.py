"""A sample of the bad values of every key; `make fuzz` tries them all."""

import fuzz
import fuzz_commands
import pytest
from bad_values import Case, bad_values, choices, composed, with_value

from metagen.config.overrides import check_of_hydra
from metagen.config.schema import check, declarations
from metagen.config.tree import conf_dir
from metagen.errors import UsageError
from metagen.models.vae import VAE


def test_a_sample_of_the_bad_values_is_refused_in_one_line():
    found = fuzz.run(share=0.005, seed=0)
    assert not found.faults
    assert found.counts["refused"] > 40


@pytest.mark.slow
def test_a_sample_of_them_is_refused_by_every_command(tmp_path, monkeypatch):
    """A bad value of one key by evaluate, generate, and sweeps of both kinds."""
    monkeypatch.setenv("METAGEN_CACHE", str(tmp_path / "cache"))
    fuzz_commands.prepare(tmp_path)
    assert fuzz_commands.run_all(tmp_path, 3, 60, seed=1)[1] == []
    assert "nothing" not in fuzz_commands.outcome("generate", Case((), "seed", -1), tmp_path)
    assert "exit code 0" in fuzz_commands.outcome("generate", Case((), "max_skips", 5), tmp_path)


def test_bad_values_lie_around_the_declared_bounds():
    hints = declarations(VAE)
    assert {0, 1, 65_536, 65_537} <= {v for v in bad_values(hints["maps"]) if isinstance(v, int)}


def test_every_choice_of_a_group_takes_part():
    words = {word for one in choices() for word in one}
    for group in ("data", "learner", "model", "judge", "optimizer", "scheduler", "trainer"):
        assert {f"{group}={path.stem}" for path in (conf_dir() / group).glob("*.yaml")} <= words


def test_a_fault_would_be_found():
    """A key that is looked after by nobody is nonsense that passes."""
    config = composed(())
    assert fuzz.outcome(Case((), "task.ways", 2**64), config)[0] == "refused"
    assert fuzz.nonsense(float("nan"))
    assert fuzz.nonsense(2**64)
    assert not fuzz.nonsense(3)
    with pytest.raises(UsageError, match=r"model\.maps=0: expected a whole number from 1 to 65,536"):
        check(with_value(config, Case((), "model.maps", 0)))


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir", "hydra.job.num", "hydra.job.env_set.A",
                                 "hydra.launcher.jobs", "hydra.sweeper.params.seed", "hydra.verbose",
                                 "hydra.job_logging.root.level", "hydra.runtime.choices.x"])  # fmt: skip
def test_keys_that_hydra_has_are_taken(key):
    check_of_hydra([f"{key}=1", f"+{key}=1"])
