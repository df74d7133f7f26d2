"""How devices and cores are shared among jobs."""

from collections import Counter

import pytest

from metagen.errors import MetagenError
from metagen.sweeps import slots
from metagen.sweeps.slots import cpu_slots, device_slots, visible_devices


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(slots, "cores", lambda: 8)
    monkeypatch.setattr(slots, "MEMORY", 1)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("per_device", "expected"),
    [
        (1, ["0", "1", "2"]),
        (2, ["0", "1", "2", "0", "1", "2"]),
        (0.5, ["0,1"]),
        (1 / 3, ["0,1,2"]),
        (0.33, ["0,1,2"]),
    ],
)
def test_devices_per_job(per_device, expected):
    found = device_slots(["0", "1", "2"], per_device)
    assert [slot.devices for slot in found] == expected
    assert {slot.threads for slot in found} == {8 // len(expected)}


def test_no_device_is_in_two_groups():
    for per_device in (1, 1 / 2, 1 / 3, 1 / 4):
        found = device_slots([str(i) for i in range(9)], per_device)
        assert max(Counter(",".join(slot.devices for slot in found).split(",")).values()) == 1


@pytest.mark.parametrize("per_device", [0, -1, 1.5, 0.7, "many"])
def test_a_share_that_does_not_divide(per_device):
    with pytest.raises(MetagenError, match="per_device"):
        device_slots(["0", "1", "2", "3"], per_device)


def test_too_few_devices_for_a_job():
    with pytest.raises(MetagenError, match="2 devices of 1"):
        device_slots(["0"], 0.5)


@pytest.mark.parametrize(
    ("waiting", "at_once", "threads", "expected"),
    [
        (20, None, None, (8, 1)),
        (3, None, None, (3, 2)),
        (20, 2, None, (2, 4)),
        (20, None, 4, (2, 4)),
        (1, 4, None, (1, 8)),
    ],
)
def test_cores_are_shared(waiting, at_once, threads, expected):
    found = cpu_slots(waiting, at_once, threads)
    assert (len(found), found[0].threads) == expected
    assert found[0].environment()["OMP_NUM_THREADS"] == str(expected[1])
    assert "CUDA_VISIBLE_DEVICES" not in found[0].environment()


def test_the_users_number_of_threads_holds_in_jobs(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert (len(cpu_slots(20)), cpu_slots(20)[0].threads) == (4, 2)
    assert device_slots(["0", "1"], 1)[0].threads == 2
    assert cpu_slots(20, None, 4)[0].threads == 4, "what the launcher is told counts more"
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert cpu_slots(20)[0].threads == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert cpu_slots(20)[0].threads == 1


def test_memory_bounds_the_jobs(monkeypatch):
    monkeypatch.setattr(slots, "MEMORY", 2**60)
    assert len(cpu_slots(20)) == 1


@pytest.mark.parametrize("value", [0, -1, "two"])
def test_a_number_of_jobs_that_is_none(value):
    with pytest.raises(MetagenError, match=f"jobs={value}"):
        cpu_slots(3, value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", []), ("-1", []), ("2, 3", ["2", "3"]), ("GPU-a1,MIG-b2", ["GPU-a1", "MIG-b2"])],
)
def test_devices_that_the_environment_names(given, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_devices() == expected


@pytest.mark.parametrize(("code", "expected"), [(0, ["0", "1"]), (9, [])])
def test_devices_that_nvidia_smi_lists(code, expected, monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    script = tmp_path / "nvidia-smi"
    script.write_text(
        f"#!/bin/sh\necho 'GPU 0: A (UUID: a)'\necho '  MIG 1g: x'\necho 'GPU 1: A (UUID: b)'\nexit {code}\n"
    )
    script.chmod(0o755)
    assert visible_devices() == expected
