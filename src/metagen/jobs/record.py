"""Write what a run did and found: ``metrics.json``, ``episodes.npz``, samples and pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metagen.data.bank import Bank
from metagen.errors import MetagenError
from metagen.evaluation.evaluation import Evaluation
from metagen.files import write_json, write_npz
from metagen.jobs.environment import git_commit, machine, versions
from metagen.jobs.setup import Setup
from metagen.report.pictures import adaptation_plot, predictions_grid, samples_grid, to_uint8
from metagen.runs.run import Run


@dataclass(frozen=True)
class Training:
    """The training behind the weights.

    steps:               of training.
    planned:             steps that it would have had; None where the weights are those of another run.
    ended:               what ended it before, such as ``max_time``; None where nothing did.
    diverged:            whether it had diverged at its end.
    seconds:             of training; None where the weights are those of another run.
    episodes_per_second: validation included.
    ranks:               processes that trained together.
    skipped:             steps that were skipped.
    resumed:             how often the training was taken up again.
    checkpoint, sha256:  of an evaluation: the file of the weights, and its checksum.
    """

    steps: int
    planned: int | None = None
    ended: str | None = None
    diverged: bool = False
    seconds: float | None = None
    episodes_per_second: float | None = None
    ranks: int = 1
    skipped: int = 0
    resumed: int = 0
    checkpoint: str | None = None
    sha256: str | None = None

    def described(self) -> dict[str, Any]:
        """Return what the record tells: of an evaluation the checkpoint, of a training how it went."""
        own = (
            ("planned", "ended", "diverged", "ranks", "skipped", "resumed")
            if self.checkpoint is None
            else ("checkpoint", "sha256")
        )
        names = ("steps", "seconds", "episodes_per_second", *own)
        return {name: getattr(self, name) for name in names}


def write_record(run: Run, setup: Setup, evaluation: Evaluation, training: Training) -> None:
    """Write every result of a run into its folder; each file appears whole or not at all.

    ``metrics.json`` is the last one: where it is, the run has come to its end.
    """
    folder, streams, test = run.folder, setup.data.streams, setup.data.streams.test
    if len(evaluation) != _episodes(test):
        raise MetagenError(
            f"{len(evaluation)} of {_episodes(test)} test episodes were measured: nothing is recorded, whose "
            "checksum is that of all; leave out what ends the test before"
        )
    write_npz(folder / "episodes.npz", **test.audit())
    adaptation_plot(evaluation.curve(), setup.metrics, folder / "adaptation.png")
    _write_samples(setup, evaluation, folder)
    experiment = setup.experiment
    write_json(
        folder / "metrics.json",
        {
            "task": run.config["task"],
            "split": streams.split,
            "episodes": {"count": len(evaluation), "seed": test.seed, "sha256": test.fingerprint()},
            "metrics": evaluation.summary(),
            "units": {name: metric.unit for name, metric in setup.metrics.items()},
            "about": {name: metric.about for name, metric in setup.metrics.items()},
            "better": {name: metric.better for name, metric in setup.metrics.items()},
            "main": next(iter(setup.metrics), None),
            "beside": next((metric.beside for metric in setup.metrics.values()), None),
            "per_episode": evaluation.values[evaluation.steps],
            "per_episode_by_step": evaluation.values,
            "adaptation": evaluation.curve(),
            "likelihood": evaluation.likelihood.summary() if evaluation.likelihood else None,
            "pixels": getattr(getattr(experiment.model, "pixels", None), "name", None),
            "judge": getattr(evaluation.judge, "accuracy", None),
            "batch_statistics": batch_statistics(experiment.model),
            "training": training.described(),
            "precision": {"trainer": setup.trainers.precision, "low": experiment.precision.describe()},
            "parameters": {"model": _count(experiment.model), "learner": _count(experiment.learner)},
            "data": {"train": _bank(setup.data.bank), "test": _bank(setup.data.test_bank)},
            "device": str(experiment.device),
            "machine": machine(experiment.device),
            "versions": versions(),
            "git": git_commit(),
            "seed": run.config["seed"],
            "overrides": list(run.overrides),
            "choices": dict(run.choices),
        },
    )


def _episodes(test: Any) -> int:
    """Return how many episodes a test stream has; a batch of single images is one."""
    return getattr(test, "total", None) or int(test.batches)


def _write_samples(setup: Setup, evaluation: Evaluation, folder: Path) -> None:
    """Write support images beside generated (or classified) ones, as arrays and as a picture."""
    shown = evaluation.shown
    if shown is None:
        return
    names = setup.data.test_bank.names
    classes = [names[int(label)] for label in shown.labels]
    support = to_uint8(shown.support)
    kept: dict[str, Any] = {"support": support, "classes": classes}
    if shown.samples is not None:
        kept["samples"] = to_uint8(shown.samples)
        samples_grid(support, kept["samples"], classes, folder / "samples.png")
    if shown.logits is not None:
        query, predicted = _by_class(shown.query, shown.y, shown.logits.argmax(-1))
        if len(support) != len(query):
            support = kept["support"] = query[:, :0]
        kept |= {"query": query, "predicted": predicted}
        name = "samples" if shown.samples is None else "predictions"
        predictions_grid(support, query, predicted, classes, folder / f"{name}.png")
    if len(kept) > 2:
        write_npz(folder / "samples.npz", **kept)


def _by_class(images: Tensor, y: Tensor, predicted: Tensor) -> tuple[Any, Any]:
    """Group classified images by their class: (C, Q, H, W[, 3]) uint8 and (C, Q), as many of each class."""
    flat, labels = to_uint8(images.flatten(0, 1)), y.flatten()
    classes = int(labels.max()) + 1
    count = int(torch.bincount(labels, minlength=classes).min())
    rows = torch.stack([(labels == label).nonzero()[:count, 0] for label in range(classes)])
    return flat[rows.numpy()], predicted[rows].numpy()


def batch_statistics(model: Any) -> str | None:
    """Return how query images are normalised, ``"transductive"`` or ``"inductive"``; None if not at all."""
    if not model.batch_statistics:
        return None
    return "transductive" if model.transductive else "inductive"


def _bank(bank: Bank) -> dict[str, Any]:
    return {"name": bank.name, "sha256": bank.sha256, "images": len(bank.images)}


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
