"""The job behind ``metagen demo``: load the runs, warm up, serve the page until Ctrl-C."""

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from metagen.demo.listen import free_port, launch
from metagen.errors import MetagenError, installing
from metagen.files import scratch
from metagen.functional.device import device_of, in_words

CPU = torch.device("cpu")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SILENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}
log = logging.getLogger(__name__)


def check_installed() -> None:
    """Raise a MetagenError where the extra is missing."""
    if importlib.util.find_spec("gradio") is None:
        raise MetagenError(f"metagen demo needs its extra: {installing('demo')}")


def serve(
    runs: Sequence[Path], host: str, port: int | None, echo: Callable[[str], Any], device: str = "cpu"
) -> None:
    """Serve the page of ``runs`` until Ctrl-C.

    Args:
        runs: folders of generators' runs.
        host: address to listen at; only this machine reaches a loopback one.
        port: or None for the first free one from 7860 on.
        echo: takes the lines that the user is to see.
        device: where the runs compute, see :func:`metagen.functional.device.device_of`.

    Raises:
        MetagenError: the extra or a run is missing, or a run cannot draw, or the port is taken.
    """
    check_installed()
    with running(runs, host, port, device_of(device)) as (url, missing):
        for line in missing:
            echo(f"no held-out classes of {line}")
        if host not in LOOPBACK:
            echo(f"whoever reaches {host} on the network can use this page")
        echo(f"{url}  (on {in_words(device_of(device))}; Ctrl-C stops it)")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            echo("\nstopped")


@contextmanager
def running(
    runs: Sequence[Path], host: str, port: int | None, device: torch.device = CPU
) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a running page and why some classes are missing; close it afterwards.

    Raises:
        MetagenError: see :func:`serve`.
    """
    from metagen.demo.engine import Engine
    from metagen.demo.held_out import HeldOut
    from metagen.jobs.process import keep_freed_memory

    port = free_port(host, port)
    keep_freed_memory()
    # A second thread does not make such small tensors faster, and ten times slower beside a busy browser.
    torch.set_num_threads(1)
    engine = Engine(runs, device)
    held_out = HeldOut(engine.runners)
    os.environ.update(SILENT)
    with _private_files():
        blocks = _page(engine, held_out)
        try:
            url = launch(blocks, host, port)
            yield url, held_out.missing
        finally:
            engine.close()
            blocks.close(verbose=False)


@contextmanager
def _private_files() -> Iterator[None]:
    """Let the library keep uploads in a folder that is this process' own, and goes with it."""
    # Who ends the process by a signal wants the files gone, too; after a SIGKILL the next start removes them.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with scratch(name="metagen-demo") as folder:
            os.environ["GRADIO_TEMP_DIR"] = str(folder)
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _page(engine: Any, held_out: Any) -> Any:
    from metagen.demo.page import SAMPLES, Page

    engine.warm_up(SAMPLES)
    for runner in engine.runners:
        log.info("%s: %.2f s a result", runner.folder, runner.seconds)
    return Page(engine, held_out).build()
