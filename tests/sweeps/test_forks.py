"""The fork server: what its jobs get, what one costs the others, and how all end."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from metagen.cli import threads
from metagen.processes import born
from metagen.sweeps import forks, process, queue
from metagen.sweeps.children import Command
from metagen.sweeps.forks import JOB, ForkServer
from metagen.sweeps.plan import Job, Sweep
from metagen.sweeps.queue import Queue, SweepInterruptedError
from metagen.sweeps.slots import Slot

SERVER = """
import os, sys
from metagen.cli import fork_server, job

def imported():
    sys.waiting = os.environ["OMP_WAIT_POLICY"]
    return ()

fork_server.NEEDED = fork_server.USEFUL = ()
fork_server._parts = imported
fork_server._renew = lambda: None
job.main = lambda: job.end_with_parent() or exec(sys.argv[1], {"sys": sys}) or 0
sys.exit(fork_server.main())
"""
"""A server that has nothing to import, whose jobs are scripts."""
TELLS = """
import json, os, signal, sys
keys = ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MINE", "SERVERS"]
found = {key: os.environ.get(key) for key in keys}
found |= {"folder": os.getcwd(), "seen": getattr(sys, "seen", None), "argv": sys.argv[2:]}
found |= {"waiting": sys.waiting}
found |= {"leads": os.getsid(0) == os.getpid(), "stdin": sys.stdin.read(), "parent": os.getppid()}
sys.seen = os.environ["MINE"] = "something of the job before"
print(json.dumps(found))
"""
SLEEPS = "import time; print('ready', flush=True); time.sleep(60)"
SAVES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("saved") or 143))
print("ready", flush=True)
for _ in range(1200):
    time.sleep(0.05)
"""
"""It naps: Python acts on a signal that comes just before a sleep only after it."""


@pytest.fixture
def server(monkeypatch):
    for name in threads.WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SERVERS", "own")
    monkeypatch.setattr(forks, "SERVER", (sys.executable, "-P", "-c", SERVER))
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def start(server, tmp_path):
    """Return a function that starts a script as a job; it returns the job and its log."""

    def started(script, name="job", words=(), **environment):
        log = tmp_path / f"{name}.log"
        command = Command(
            [*JOB, script, *words], {"PATH": os.environ["PATH"]} | environment, str(tmp_path), log
        )
        return server(command), log

    return started


def until(log, text):
    end = time.monotonic() + 20
    while text not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < end, log
        time.sleep(0.01)


def until_gone(pid):
    end = time.monotonic() + 20
    while born(pid) is not None:
        assert time.monotonic() < end, pid
        time.sleep(0.01)


def test_a_job_has_its_own_variables_folder_and_log_and_nothing_of_another(start, tmp_path):
    for number in "12":
        child, log = start(TELLS, number, ["seed=0"], CUDA_VISIBLE_DEVICES=number, OMP_NUM_THREADS="3")
        assert child.wait() == 0
        found = json.loads(log.read_text())
        parent = found.pop("parent")
        assert parent != os.getpid(), "of the server"
        assert found == {
            "CUDA_VISIBLE_DEVICES": number, "OMP_NUM_THREADS": "3", "MINE": None, "SERVERS": None,
            "folder": str(tmp_path), "seen": None, "argv": ["seed=0"], "leads": True, "stdin": "",
            "waiting": "passive",
        }  # fmt: skip


def test_exit_codes_are_those_of_a_process(start):
    ends = {
        "sys.exit(3)": 3,
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": -signal.SIGKILL,
        "import atexit; atexit.register(print, 'at the end'); sys.exit('no luck')": 1,
        "1 / 0": 1,
    }
    jobs = [start(script, str(i)) for i, script in enumerate(ends)]
    assert [child.wait() for child, _ in jobs] == list(ends.values())
    assert jobs[2][1].read_text() == "no luck\nat the end\n"
    assert "ZeroDivisionError" in jobs[3][1].read_text()


def test_a_job_that_is_killed_with_what_it_started_costs_no_other(start):
    grandchild = "import subprocess; print('pid', subprocess.Popen(['sleep', '60']).pid, flush=True)\n"
    (killed, first), (other, second) = start(grandchild + SLEEPS, "first"), start(SAVES, "second")
    for log in (first, second):
        until(log, "ready")
    killed.stop(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    pid = int(first.read_text().split()[1])
    until_gone(pid)
    assert other.poll() is None
    other.stop(signal.SIGTERM)
    assert other.wait() == 143
    assert "saved" in second.read_text()
    other.stop(signal.SIGKILL)  # nobody any more


def test_nothing_is_left_at_the_end(server, start):
    child, log = start("import os; print('pid', os.getpid())\n" + SAVES)
    until(log, "ready")
    server.close()
    assert child.poll() == -signal.SIGKILL
    until(log, "saved")
    until_gone(int(log.read_text().split()[1]))


def test_a_server_that_is_killed_is_started_again(server, start):
    (child, log), before = start(SAVES), server._line._process.pid
    until(log, "ready")
    os.kill(before, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    until(log, "saved")  # the jobs end with it, as with the sweep
    again, _ = start("pass", "again")
    assert again.wait() == 0
    assert server._line._process.pid != before


def test_what_is_no_job_of_ours_is_started_as_it_is(server, tmp_path):
    command = Command([sys.executable, "-c", "print(1)"], dict(os.environ), None, tmp_path / "log")
    assert server(command).wait() == 0
    assert (tmp_path / "log").read_text() == "1\n"
    assert server._line is None


@pytest.mark.parametrize("importing", [True, False])
def test_a_signal_ends_a_sweep_and_leaves_nothing(importing, server, tmp_path, monkeypatch):
    slow = "import time; time.sleep(60)\n" if importing else ""
    monkeypatch.setattr(forks, "SERVER", (sys.executable, "-P", "-c", slow + SERVER))
    monkeypatch.setattr(process, "command", lambda sweep, job: [*JOB, SAVES])
    sweep = Sweep(
        tmp_path, "train", [], [], [], str(tmp_path), [Job(i, str(i), [f"seed={i}"]) for i in range(3)]
    )
    sweep.save()

    def interrupt():
        until(sweep.root / "jobs.json", "seed=0")
        for job in () if importing else sweep.jobs[:2]:
            until(sweep.log(job), "ready")
        for _ in range(1 + importing):
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(forks, "GRACE", 1.0)
    monkeypatch.setattr(queue, "POLL", 0.01)
    threading.Thread(target=interrupt).start()
    with pytest.raises(SweepInterruptedError) as caught:
        Queue(sweep, [Slot(None, 1)] * 2, lambda text: None).run(sweep.jobs)
    assert caught.value.code == 128 + signal.SIGTERM
    states = [(sweep.record(job).state if sweep.record(job) else None) for job in sweep.jobs]
    assert states == ["interrupted", "interrupted", None]


def test_threads_sleep_while_they_wait_unless_the_user_said_how(monkeypatch):
    for name in threads.WAITING:
        monkeypatch.delenv(name, raising=False)
    threads.let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    threads.let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    threads.let_threads_sleep()
    assert "OMP_WAIT_POLICY" not in os.environ
