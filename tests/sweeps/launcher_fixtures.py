"""Sweeps whose jobs are small scripts, so that a test of the queue takes no time."""

import sys

import pytest

from metagen.sweeps import process
from metagen.sweeps.plan import Job, Sweep


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """Return a function that makes a sweep of jobs, one Python script each, run in the job's folder."""

    def make(*scripts: str) -> Sweep:
        jobs = [Job(i, str(i), [f"seed={i}", "samples=4"]) for i in range(len(scripts))]
        sweep = Sweep(tmp_path / "sweep", "train", ["seed=0,1"], [], [], str(tmp_path), jobs)
        sweep.save()
        for job in jobs:
            sweep.path(job).mkdir()

        def command(sweep, job):
            enter = f"import os; os.chdir({str(sweep.path(job))!r})\n"
            return [sys.executable, "-c", enter + scripts[job.number]]

        monkeypatch.setattr(process, "command", command)
        return sweep

    return make
