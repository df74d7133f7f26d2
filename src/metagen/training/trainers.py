"""Lightning's trainers of one configuration: one that trains, and one that tests on one device."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from metagen.config.trusted import instantiate
from metagen.functional import autocast
from metagen.training import parallel
from metagen.training.checkpoints import AtomicCheckpoints


class Trainers:
    """Makes trainers.

    Args:
        node: the configuration of a ``lightning.Trainer``.

    Raises:
        MetagenError: a device that is not here, or several without ``trainer=ddp``.
    """

    def __init__(self, node: Mapping[str, Any]) -> None:
        self.node = dict(node)
        parallel.check_accelerator(self.node)
        self.ranks = parallel.ranks(self.node)

    @property
    def precision(self) -> str:
        """Return what ``trainer.precision`` says."""
        return str(self.node["precision"])

    def check(self, task: Mapping[str, Any], optimizer: Mapping[str, Any], chunk: int | None) -> None:
        """Refuse a task that the ranks cannot share, and a precision that the rest does not allow.

        Raises:
            MetagenError: see :func:`metagen.training.parallel.check` and :mod:`metagen.functional.autocast`.
        """
        parallel.check(self.ranks, task)
        clipped, fused = bool(self.node.get("gradient_clip_val")), bool(optimizer.get("fused"))
        autocast.check(self.node["precision"], parallel.on_cpu(self.node), clipped, fused, chunk)

    def training(
        self, folder: Path, callbacks: Sequence[Callback] = (), resumed: int | None = None
    ) -> L.Trainer:
        """Return a trainer that writes into ``folder``.

        Args:
            folder: of the run.
            callbacks: beside the progress bar.
            resumed: the step that the training goes on from: what was logged after it is logged again.
        """
        return self._make(self.node, folder, callbacks, resumed)

    def testing(self, folder: Path) -> L.Trainer:
        """Return a trainer that tests, in one process on one device."""
        return self._make(parallel.alone(self.node), folder, (), None)

    def _make(
        self, node: Mapping[str, Any], folder: Path, callbacks: Sequence[Callback], resumed: int | None
    ) -> L.Trainer:
        again: dict[str, Any] = {} if resumed is None else {"purge_step": resumed}
        # A log file has no use for a line at every step.
        bar = [TQDMProgressBar(5 if sys.stderr.isatty() else 100)] if node["enable_progress_bar"] else []
        made: L.Trainer = instantiate(
            node,
            "trainer",
            default_root_dir=str(folder),
            enable_checkpointing=bool(callbacks),
            callbacks=[*callbacks, *bar],
            plugins=[AtomicCheckpoints()],
            logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False, **again),
        )
        return made
