"""Jobs in processes: what one costs the others, where they run, and what a signal does."""

import os
import signal
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
from launcher_scripts import DONE, NOTE, SAVES, seen

from metagen.errors import MetagenError
from metagen.sweeps.children import Spawned
from metagen.sweeps.process import Process
from metagen.sweeps.queue import Queue, SweepInterruptedError
from metagen.sweeps.slots import Slot
from metagen.sweeps.table import jobs_table

pytest_plugins = ["launcher_fixtures"]
CPU = [Slot(None, 1), Slot(None, 1)]
FAILS = "import sys; print('metagen: error: no such luck'); print('a last word'); sys.exit(1)"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def test_a_job_that_fails_or_is_killed_costs_that_job_only(scripted):
    sweep, lines = scripted(FAILS, DONE, KILLED, "print('x', end='')", DONE), []
    Queue(sweep, CPU, lines.append).run(sweep.jobs)
    records = [sweep.record(job) for job in sweep.jobs]
    assert [record.state for record in records] == ["failed", "done", "killed (SIGKILL)", "failed", "done"]
    assert records[0].error == "no such luck"
    assert "out of memory" in records[2].error
    assert records[3].error == "x"
    assert sweep.log(sweep.jobs[0]).read_text().endswith("a last word\n")
    assert sum("started" in line for line in lines) == 5
    table = jobs_table(sweep, sweep.jobs, ["loss"])
    assert "2.00 ± 0.50" in table
    assert "samples" not in table, "only what differs labels a job"
    assert f"job 0 failed: no such luck\n  log {sweep.root}/jobs/0.log" in table
    assert "2 failed, 2 done, 1 killed (SIGKILL)" in table
    assert f"metagen train -m --resume {sweep.root}" in table


def test_no_device_is_shared(scripted):
    sweep = scripted(*[NOTE] * 6)
    Queue(sweep, [Slot("0", 3), Slot("1,2", 3)], lambda text: None).run(sweep.jobs)
    found = seen(sweep)
    assert {job["CUDA_VISIBLE_DEVICES"] for job in found} == {"0", "1,2"}
    assert {job["OMP_NUM_THREADS"] for job in found} == {"3"}
    for a in found:
        for b in found:
            if a is not b and a["CUDA_VISIBLE_DEVICES"] == b["CUDA_VISIBLE_DEVICES"]:
                assert a["end"] <= b["start"] or b["end"] <= a["start"]
    pairs = [(a, b) for a in found for b in found if a["start"] < b["start"] < a["end"]]
    assert pairs, "both slots were busy at the same time"
    assert [sweep.record(job).devices for job in sweep.jobs] == [j["CUDA_VISIBLE_DEVICES"] for j in found]


def test_a_job_that_runs_again_has_as_many_threads(scripted):
    sweep = scripted(NOTE)
    Queue(sweep, [Slot(None, 3)], lambda text: None).run(sweep.jobs)
    Queue(sweep, [Slot(None, 8)], lambda text: None).run(sweep.jobs)
    assert seen(sweep)[0]["OMP_NUM_THREADS"] == "3"


def wait_for(path):
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_jobs_save_and_leaves_the_rest(number, scripted):
    sweep = scripted(DONE, SAVES, SAVES, DONE)

    def interrupt():
        for job in sweep.jobs[1:3]:
            wait_for(sweep.path(job) / "ready")
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    threading.Thread(target=interrupt).start()
    with pytest.raises(SweepInterruptedError, match="--resume") as caught:
        Queue(sweep, CPU, lambda text: None).run(sweep.jobs)
    assert caught.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert [sweep.path(job).joinpath("saved").exists() for job in sweep.jobs] == [False, True, True, False]
    table = jobs_table(sweep, sweep.jobs)
    assert "1 done, 2 interrupted, 1 waiting" in table


def test_a_second_signal_kills(scripted):
    sweep = scripted(SAVES.replace("sys.exit(128 + number)", "pass"))

    def interrupt():
        wait_for(sweep.path(sweep.jobs[0]) / "ready")
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(sweep.path(sweep.jobs[0]) / "saved")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    start = time.monotonic()
    with pytest.raises(SweepInterruptedError):
        Queue(sweep, CPU, lambda text: None).run(sweep.jobs)
    assert time.monotonic() - start < 30
    assert sweep.record(sweep.jobs[0]).state == "interrupted"


def test_jobs_of_a_sweep_run_once_at_a_time(scripted):
    sweep = scripted(SAVES)
    with sweep.locked() as lock:
        process = Process(sweep, sweep.jobs[0], start=partial(Spawned, inherit=[lock]))
        wait_for(sweep.path(sweep.jobs[0]) / "ready")
    with pytest.raises(MetagenError, match="still running"):
        Queue(sweep, CPU, lambda text: None).run(sweep.jobs)
    process.stop(signal.SIGTERM)
    assert process.wait().state == "interrupted"
    with sweep.locked():
        pass


LATE = DONE + "\n" + KILLED


def test_a_job_that_is_killed_after_its_record_is_done(scripted):
    """The record is written last: nothing is left to do, and nothing else is said."""
    sweep = scripted(LATE, KILLED)
    Queue(sweep, CPU, lambda text: None).run(sweep.jobs)
    assert [sweep.record(job).state for job in sweep.jobs] == ["done", "killed (SIGKILL)"]
    assert sweep.unfinished() == sweep.jobs[1:]
    table = jobs_table(sweep, sweep.jobs[:1], ["loss"])
    assert "1 done" in table
    assert "2.00" in table


@pytest.mark.parametrize("state", ["running", "killed (SIGKILL)", "done"])
def test_one_look_tells_what_is_done_and_what_is_run_again(state, scripted):
    """Also where an earlier version, or a sweep that was killed itself, wrote down another state."""
    sweep = scripted(DONE)
    Queue(sweep, CPU, lambda text: None).run(sweep.jobs)
    (job,) = sweep.jobs
    sweep.write_record(job, replace(sweep.record(job), state=state, error="killed from outside"))
    assert sweep.unfinished() == []
    table = jobs_table(sweep, sweep.jobs)
    assert "1 done" in table
    assert "killed" not in table
    assert "--resume" not in table
    (sweep.path(job) / "metrics.json").write_text("{")
    assert sweep.unfinished() == [job]
    assert "--resume" in jobs_table(sweep, sweep.jobs)


def test_a_result_from_before_its_start_is_none_of_a_job(scripted):
    sweep = scripted(KILLED)
    result = sweep.path(sweep.jobs[0]) / "metrics.json"
    result.write_text('{"metrics": {"loss": {"mean": 1}}}')
    os.utime(result, (1e9, 1e9))
    Queue(sweep, CPU, lambda text: None).run(sweep.jobs)
    assert sweep.unfinished() == sweep.jobs


def test_a_damaged_note_of_a_job_is_no_end_of_the_sweep(scripted):
    sweep = scripted(KILLED)
    Queue(sweep, CPU, lambda text: None).run(sweep.jobs)
    (sweep.root / "jobs" / "0.json").write_text('{"state": "don')
    assert sweep.unfinished() == sweep.jobs
    assert "cannot be read" in jobs_table(sweep, sweep.jobs)
