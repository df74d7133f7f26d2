"""Sweeps on this machine: ``hydra/launcher=queue``."""

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from metagen.console import echo
from metagen.ranges import PositiveFloat, PositiveInt
from metagen.sweeps.base import SweepLauncher
from metagen.sweeps.live import LiveTable
from metagen.sweeps.plan import Job, Sweep
from metagen.sweeps.queue import Queue
from metagen.sweeps.slots import Slot, cpu_slots, device_slots, visible_devices


class LocalLauncher(SweepLauncher):
    """A queue of jobs over this machine's GPUs, or over its cores where no job uses a GPU.

    Args:
        devices: GPUs, such as ``[0, 1]``; None takes those that are visible.
        per_device: jobs that share a GPU; 1/n gives each job n GPUs.
        jobs: at the same time, without GPUs; None takes one for each core, as far as the memory goes.
        threads: of each job on the CPU; None takes ``OMP_NUM_THREADS``, or shares the cores.
        fork: whether jobs are forked from one process that has imported what they need; otherwise each one
            is started anew, which takes some seconds of processor time.
    """

    def __init__(
        self,
        devices: Sequence[int | str] | None = None,
        per_device: PositiveFloat = 1,
        jobs: PositiveInt | None = None,
        threads: PositiveInt | None = None,
        fork: bool = True,
    ) -> None:
        super().__init__()
        self.fork = fork
        self.devices, self.per_device, self.jobs, self.threads = devices, per_device, jobs, threads

    def execute(self, sweep: Sweep, jobs: Sequence[Job], configs: Sequence[DictConfig]) -> None:
        """Run ``jobs`` in the queue."""
        at_once = min(len(jobs), len(self.slots))
        echo(f"sweep {sweep.root}: {len(jobs)} job{'s' if len(jobs) > 1 else ''}, {at_once} at a time")
        table = LiveTable(sweep)
        try:
            Queue(sweep, self.slots, table.say, table.show, self.fork).run(jobs)
        finally:
            table.erase()

    def prepare(self, configs: Sequence[DictConfig]) -> None:
        """Find the slots.

        Raises:
            MetagenError: a setting that is no number, or devices that are too few.
        """
        self.slots = self._slots(len(configs), configs)

    def _slots(self, waiting: int, configs: Sequence[DictConfig]) -> list[Slot]:
        devices = self.devices
        if devices is None:
            on_cpu = all(OmegaConf.select(config, "trainer.accelerator") == "cpu" for config in configs)
            devices = [] if on_cpu else visible_devices()
        if devices:
            return device_slots([str(device) for device in devices], self.per_device, self.threads)
        return cpu_slots(waiting, self.jobs, self.threads)
