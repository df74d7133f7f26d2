"""Where the time of a training loop goes: to the learner, or to what surrounds it.

make profile                                    measures experiment=quickstart
python benchmarks/profile_loop.py KEY=VALUE...  measures any other

The learner's are the meta-loss, its gradient, the optimizer's update and the losses of validation. The
rest are drawing the episodes, and Lightning with its callbacks, logging, progress bar and checkpoints.
"""

import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import SimpleProfiler
from timing import machine, markdown

from metagen import build, compose
from metagen.jobs.setup import Setup

LEARNER = ("meta-loss", "gradient", "update", "validation")
COLUMNS = ("part", "seconds", "share", "ms a step")


class Watch(Callback):
    """Adds up the seconds of each part of the loop, between its first and its last batch."""

    def __init__(self, setup: Setup) -> None:
        self.seconds: Counter[str] = Counter()
        self.steps, self._marks = 0, {}
        self._wrap(setup.experiment, "meta_loss", "meta-loss")
        self._wrap(setup.experiment, "validation_step", "validation")
        for stream in (setup.data.streams.train, setup.data.streams.val):
            if stream is not None:
                self._wrap(stream, "batch", "episodes")

    def _wrap(self, owner: Any, name: str, part: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._start(part)
            out = function(*args, **kwargs)
            self._stop(part)
            return out

        setattr(owner, name, timed)

    def _start(self, part: str) -> None:
        self._marks[part] = time.perf_counter()

    def _stop(self, part: str) -> None:
        if part in self._marks:
            self.seconds[part] += time.perf_counter() - self._marks.pop(part)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *_: self._stop("update"))

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, index: int) -> None:
        if self.steps == 0:  # the first batch compiles and fills caches, but belongs to the loop
            self._start("loop")
        self.steps += 1

    def on_before_backward(self, trainer: L.Trainer, module: Any, loss: Any) -> None:
        self._start("gradient")

    def on_after_backward(self, trainer: L.Trainer, module: Any) -> None:
        self._stop("gradient")

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        self._start("update")

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        self._stop("loop")

    def rows(self) -> list[dict[str, Any]]:
        loop, parts = self.seconds["loop"], [*LEARNER, "episodes"]
        table = [(part, self.seconds[part]) for part in parts]
        table.append(("all else", loop - sum(seconds for _, seconds in table)))
        table.append(("the learner", sum(self.seconds[part] for part in LEARNER)))
        table.append(("the loop", loop))
        return [
            {"part": part, "seconds": s, "share": f"{s / loop:.1%}", "ms a step": 1e3 * s / self.steps}
            for part, s in table
        ]


def main(overrides: list[str]) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        run = compose([*(overrides or ["experiment=quickstart"]), f"hydra.run.dir={folder}/run"])
        setup = build(run)
        watch, profiler = Watch(setup), SimpleProfiler()
        trainer = setup.trainers.training(run.folder, "profile", [watch])
        trainer.profiler = trainer.strategy.profiler = profiler
        trainer.fit(setup.experiment, datamodule=setup.data)
    print(markdown(watch.rows(), COLUMNS))
    actions = sorted(
        ((sum(values), name) for name, values in profiler.recorded_durations.items()), reverse=True
    )
    table = [{"Lightning's own account": name, "seconds": seconds} for seconds, name in actions[:20]]
    print(markdown(table, ("Lightning's own account", "seconds")))
    print(", ".join(f"{key} {value}" for key, value in machine("cpu").items()))


if __name__ == "__main__":
    main(sys.argv[1:])
