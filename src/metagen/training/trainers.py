"""Lightning's trainers of one configuration: one that trains, and one that tests on one device."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar

from metagen.config.trusted import instantiate
from metagen.functional import autocast
from metagen.training import arguments, parallel
from metagen.training.callbacks import (
    check_callbacks,
    check_places,
    check_validated,
    make_callbacks,
)
from metagen.training.checkpoints import AtomicCheckpoints
from metagen.training.loggers import check_loggers, make_loggers
from metagen.training.progress import StepsBar


class Trainers:
    """Makes trainers.

    Args:
        node: the configuration of a ``lightning.Trainer``.
        loggers: configurations of its loggers, by name.
        callbacks: configurations of callbacks, by name.

    Raises:
        MetagenError: a device that is not here, several without ``trainer=ddp``, an argument that a run does
            not take, or a logger or callback that cannot be made.
    """

    def __init__(
        self,
        node: Mapping[str, Any],
        loggers: Mapping[str, Any] | None = None,
        callbacks: Mapping[str, Any] | None = None,
    ) -> None:
        self.node, self.loggers, self.callbacks = dict(node), dict(loggers or {}), dict(callbacks or {})
        arguments.check_arguments(self.node)
        for name, one in (("trainer", self.node), ("logger", self.loggers), ("callbacks", self.callbacks)):
            check_places(one, name)
        check_loggers(self.loggers)
        check_callbacks(make_callbacks(self.callbacks), bool(self.loggers))
        parallel.check_environment()
        parallel.check_accelerator(self.node)
        self.ranks = parallel.ranks(self.node)

    @property
    def precision(self) -> str:
        """Return what ``trainer.precision`` says."""
        return str(self.node["precision"])

    @property
    def overfit(self) -> int | None:
        """Return how many training batches are repeated; None where they go on."""
        return arguments.overfit(self.node)

    def planned_steps(self, batches: int | None) -> int:
        """Return the steps of a whole training; ``batches``: of an epoch, None where it is endless."""
        return arguments.planned_steps(self.node, batches)

    def check(self, task: Mapping[str, Any], optimizer: Mapping[str, Any], chunk: int | None) -> None:
        """Refuse a length or a task that does not fit the trainer, and a precision that the rest rules out.

        Raises:
            MetagenError: see :mod:`metagen.training.arguments`, :func:`metagen.training.parallel.check` and
                :mod:`metagen.functional.autocast`.
        """
        arguments.check_length(self.node, endless="shots" in task)
        parallel.check(self.ranks, task)
        clipped, fused = bool(self.node.get("gradient_clip_val")), bool(optimizer.get("fused"))
        autocast.check(self.node["precision"], parallel.on_cpu(self.node), clipped, fused, chunk)

    def check_validated(self) -> None:
        """Refuse callbacks that look at a validation: there is none.

        Raises:
            MetagenError: there is one.
        """
        check_validated(make_callbacks(self.callbacks))

    def training(
        self, folder: Path, name: str = "", callbacks: Sequence[Callback] = (), resumed: int | None = None
    ) -> L.Trainer:
        """Return a trainer that writes into ``folder``.

        Args:
            folder: of the run.
            name: of the run, for its loggers.
            callbacks: beside those of the configuration and the progress bar.
            resumed: the step that the training goes on from: what was logged after it is logged again.
        """
        return self._make(self.node, folder, name, [*callbacks, *make_callbacks(self.callbacks)], resumed)

    def testing(self, folder: Path, name: str = "") -> L.Trainer:
        """Return a trainer that tests, in one process on one device."""
        return self._make(parallel.alone(self.node), folder, name, [], None)

    def _make(
        self,
        node: Mapping[str, Any],
        folder: Path,
        name: str,
        callbacks: Sequence[Callback],
        resumed: int | None,
    ) -> L.Trainer:
        named = any(isinstance(one, ProgressBar) for one in callbacks)
        bar = [StepsBar()] if node["enable_progress_bar"] and not named else []
        made: L.Trainer = instantiate(
            arguments.translated(node),
            "trainer",
            default_root_dir=str(folder),
            enable_checkpointing=bool(callbacks),
            callbacks=[*callbacks, *bar],
            plugins=[AtomicCheckpoints()],
            logger=make_loggers(self.loggers, folder, name, resumed) or False,
        )
        return made
