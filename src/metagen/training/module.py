"""The LightningModule: a model and a learner, trained on batches of tasks."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.plugins.precision import Precision as PrecisionPlugin
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.optim.lr_scheduler import ChainedScheduler, ReduceLROnPlateau

from metagen.core.episode import Episode, Shots
from metagen.core.learner import Learner
from metagen.core.objective import Objective
from metagen.errors import MetagenError
from metagen.evaluation.evaluation import Evaluation
from metagen.functional.autocast import FULL, Lowered, LowPrecision, ambient, full, least
from metagen.functional.chunked import MOST, Plan, Size, mean_over, plan, size_of
from metagen.functional.vectorize import backend, flatten, loop, parts_of, quickest, tasks_of, tree_map, vmap
from metagen.training.plateau import NEVER

log = logging.getLogger(__name__)

STATES = 12
"""As many times the bytes of a task's state are in use at most while a learned rule takes a step."""
TENSORS = 8
"""As many times the bytes of a chunk's largest tensor may be remembered from one step to the next."""


class Experiment(L.LightningModule):
    r"""Meta-training of theta (and of the learner's own parameters) on the mean meta-loss of T tasks.

    .. math:: \min_\theta \frac{1}{T} \sum_{t=1}^T \text{meta\_loss}(\theta; \text{episode}_t)

    Args:
        model: gives the loss.
        learner: gives the adaptation; is bound to the model here.
        optimizer: makes the meta-optimizer from the parameters.
        scheduler: makes a learning-rate schedule, stepped every training step, from the optimizer.
        vectorize: backend over tasks, see :mod:`metagen.functional.vectorize`. ``"auto"`` is ``vmap`` over
            chunks of tasks, on a CPU in threads, see :mod:`metagen.functional.chunked`; the unrolled steps of
            one task alone go through ``loop``.
        classes: number of (pseudo-)classes in meta-training.
        chunk: tasks at a time, ``None`` to choose it.
        workers: threads, ``None`` to choose them; both are for ``"auto"`` alone.
        autocast: what the trainer's mixed precision lowers, see
            :mod:`metagen.functional.autocast`. ``"auto"`` lowers as much as the model
            and the learner allow without spoiling the meta-gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        learner: Learner,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
        vectorize: str = "auto",
        classes: int = 1,
        chunk: int | None = None,
        workers: int | None = None,
        autocast: Literal["auto", "none", "query", "all"] = "auto",
    ) -> None:
        super().__init__()
        self.save_hyperparameters("classes", logger=False)
        self.model = model
        self.learner: Learner = learner
        self._optimizer, self._scheduler = optimizer, scheduler
        self.objective = Objective(model)
        learner.bind(self.objective, classes)
        self.objective.model.settle(learner.takes_steps or vectorize == "vmap")
        self.chunked, self.chunk, self.workers = vectorize == "auto", chunk, workers
        self.over = backend("vmap" if vectorize == "auto" else vectorize)
        if self.chunked and self.objective.model.one_by_one:
            self.over, self.chunk = loop, chunk or 1
        elif self.chunked and learner.steps_kept(0):
            self.over = quickest  # the graph of the steps of one task alone takes half the memory
        if autocast in ("query", "all") and learner.lowers == "none":
            raise MetagenError(
                f"autocast={autocast}: {learner.describe()} cannot tell what may run in low precision; "
                f"use autocast=auto"
            )
        kept = least((self.objective.model.lowers, learner.lowers))
        self.lowers: Lowered = kept if autocast == "auto" else autocast
        self.precision = FULL
        self.evaluation: Evaluation | None = None
        self._sizes: dict[torch.Size, Size] = {}
        self._states: dict[torch.Size, int] = {}

    def meta_loss(self, batch: Episode, now: int = 0) -> Tensor:
        """Return the mean meta-loss over the tasks of ``batch`` at meta-training step ``now``, a scalar."""
        tasks = tasks_of(batch)
        how = self._plan(tasks, batch) if self.chunked else Plan(tasks, 1)
        if how.chunk >= tasks:
            return self._total_loss(now, self.model, self.learner, batch) / tasks
        leaves = [p for p in self.parameters() if p.requires_grad]
        return mean_over(partial(self._total_loss, now), batch, (self.model, self.learner), how, leaves)

    def _plan(self, tasks: int, batch: Episode) -> Plan:
        """Return how to work off the batch; what its largest tensor is must be measured once a shape."""
        shape = batch.query.x.shape[1:]

        def size() -> Size:
            if shape not in self._sizes:
                self._sizes[shape] = self._size(tree_map(lambda leaf: leaf[:1], batch))
            return self._sizes[shape]

        return plan(tasks, self.device, self.chunk, self.workers, lambda: size().largest, lambda: size().kept)

    def _size(self, first: Episode) -> Size:
        """Return the bytes of a task's largest tensor, and about as many as its graph remembers.

        Instead of the largest tensor an eighth of the states of all steps, if that is more: a chunk may
        remember eight times as much as its largest tensor may take. A gradient within the graph keeps what
        its loss kept, and as much again.
        """
        params = self.objective.for_ways(self.objective.params(), first.query.x.shape[1])
        reads = getattr(self.model, "needs_memory", False)

        def loss(shots: Shots, support: Shots) -> Tensor:
            seen = self.learner.begin(self.objective, params, support).params if reads else {}
            return self.objective.loss({**params, **seen}, shots)

        # As in training: a loss with a gradient inside refuses to be measured without tasks.
        largest, query = size_of(lambda: vmap(loss)(first.query, first.support))
        steps = self.learner.steps_kept(0)
        if not steps:
            return Size(largest, query)
        support = size_of(lambda: vmap(loss)(first.support, first.support)).kept
        return Size(max(largest, steps * self._state(first) // TENSORS), query + 2 * steps * support)

    def _state(self, first: Episode) -> int:
        """Return the bytes of what the learner moves and remembers of one task."""
        shape = first.support.x.shape
        if shape not in self._states:
            params = self.objective.params()
            with torch.no_grad():
                state = self.over(lambda e: self.learner.begin(self.objective, params, e.support, 0))(first)
            self._states[shape] = sum(x.numel() * x.element_size() for x in flatten(state)[0])
        return self._states[shape]

    def _parts(self, batch: Episode) -> list[Episode]:
        """Return a batch to adapt to without a graph, on a CPU in parts whose states take ``MOST`` bytes."""
        if not self.chunked or self.device.type != "cpu" or tasks_of(batch) == 1:
            return [batch]
        most = max(1, MOST // (STATES * max(1, self._state(tree_map(lambda leaf: leaf[:1], batch)))))
        return parts_of(batch, most)

    def _total_loss(self, now: int, model: nn.Module, learner: Learner, batch: Episode) -> Tensor:
        """Return the sum of the meta-losses of all tasks."""
        objective = Objective(model, self.precision)
        params = objective.params()
        return self.over(lambda episode: learner.meta_loss(objective, params, episode, now))(batch).sum()

    def on_train_start(self) -> None:
        """Ask Lightning for the precision, once, and say what runs in it."""
        with self.trainer.precision_plugin.forward_context():
            self.precision = LowPrecision(self.lowers, ambient(self.device), self.device.type)
        log.info("precision: %s", self.precision.describe())

    def training_step(self, batch: Episode, step: int) -> Tensor:
        """Return the meta-loss and log it, every so many steps: a call to the logger is not free.

        Lightning writes what was logged last at the end of every n-th step, so it must be this step's. The
        first loss is for the progress bar alone.
        """
        # Lightning lowers the whole step; what is to be lowered is said anew, in the threads, too.
        with full(self.device):
            loss = self.meta_loss(batch, self.global_step)
        if self.trainer.world_size > 1:
            loss = _OfAllRanks.apply(loss)
        if self._written(self.global_step):
            self.log("train/loss", loss, prog_bar=True, batch_size=1)
        return loss

    def _written(self, step: int) -> bool:
        """Return whether the loss of a step is written down, or the first to be shown."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return step == 0 or bool(every and (step + 1) % every == 0)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, in bf16 those of a fused optimizer, too.

        Lightning refuses these in every mixed precision. But only a loss scale, which bf16 has not, would be
        undone after the clipping; for float16 see :func:`metagen.functional.autocast.check`.
        """
        plugin = self.trainer.precision_plugin
        if gradient_clip_val and getattr(plugin, "scaler", None) is None:
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            PrecisionPlugin.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def validation_step(self, batch: Episode, step: int) -> None:
        """Log the query loss after adaptation, by which the best checkpoint is chosen."""
        self.log("val/loss", self.query_loss(batch), prog_bar=True, batch_size=batch.classes.shape[0])

    def query_loss(self, batch: Episode, steps: int | None = None) -> Tensor:
        """Return the mean query loss after adaptation in ``steps`` steps, a scalar; None: as in the test."""
        params = self.objective.params()

        def of_one(episode: Episode) -> Tensor:
            phi = self.learner.adapt(self.objective, params, episode.support, steps)
            return self.objective.query_loss(phi, episode)

        with full(self.device):
            return torch.cat([self.over(of_one)(part) for part in self._parts(batch)]).mean()

    def test_step(self, batch: Episode, step: int) -> None:
        """Hand the batch to the evaluation, which keeps every episode's metrics."""
        if self.evaluation is None:
            raise MetagenError("nothing to evaluate with: set experiment.evaluation before the test")
        with full(self.device):
            for part in self._parts(batch):
                self.evaluation.update(self.objective, self.learner, part, self.over)

    def configure_optimizers(self) -> Any:
        """Return the meta-optimizer over everything that is meta-trained, and its schedule.

        None where there is nothing to be trained, as with ``model=warp``.
        """
        trained = [p for p in self.parameters() if p.requires_grad]
        if not trained and not self.learner.meta_trained:
            return None
        optimizer = self._optimizer(trained)
        if self._scheduler is None:
            return optimizer
        try:
            schedule = _schedule(self._scheduler, optimizer)
        except ZeroDivisionError as error:
            # torch divides by the steps of the rise less one.
            raise MetagenError(
                "scheduler: the learning rate would rise within exactly one step, which OneCycleLR cannot: "
                "set another scheduler.pct_start or trainer.max_steps, of which one more will do"
            ) from error
        config: dict[str, Any] = {"scheduler": schedule, "interval": "step"}
        if isinstance(schedule, ReduceLROnPlateau):
            config |= {"monitor": "val/loss", "strict": False, "frequency": NEVER}
        return {"optimizer": optimizer, "lr_scheduler": config}


def _schedule(make: Callable[..., Any], optimizer: torch.optim.Optimizer) -> Any:
    """Return a schedule of an optimizer; one that is made of others has these made of it, too."""
    parts = make.keywords.get("schedulers") if isinstance(make, partial) else None
    if parts is None or not isinstance(make, partial):
        return make(optimizer)
    made = [_schedule(one, optimizer) if isinstance(one, partial) else one for one in parts]
    if make.func is ChainedScheduler:
        return ChainedScheduler(made, optimizer)
    return make(optimizer, schedulers=made)


class _OfAllRanks(torch.autograd.Function):
    """The mean of a loss over the ranks, on which all of them act; its gradient is that of our own tasks."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        total = loss.clone()
        torch.distributed.all_reduce(total)
        return total / torch.distributed.get_world_size()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        return outer
