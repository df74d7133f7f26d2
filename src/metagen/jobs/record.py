"""Write what a run did and found: ``metrics.json``, ``episodes.npz``, samples and pictures."""

from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from metagen.data.bank import Bank
from metagen.evaluation.evaluation import Evaluation
from metagen.files import write_json, write_npz
from metagen.jobs.build import Parts
from metagen.jobs.environment import git_commit, machine, versions
from metagen.report.pictures import adaptation_plot, predictions_grid, samples_grid, to_uint8


def write_record(
    cfg: DictConfig, parts: Parts, evaluation: Evaluation, training: dict[str, Any], folder: Path
) -> None:
    """Write every result of a run into its folder; each file appears whole or not at all.

    ``metrics.json`` is the last one: where it is, the run has come to its end.
    """
    streams, test = parts.data.streams, parts.data.streams.test
    hydra = HydraConfig.get()
    write_npz(folder / "episodes.npz", **test.audit())
    adaptation_plot(evaluation.curve(), parts.metrics, folder / "adaptation.png")
    _write_samples(parts, evaluation, folder)
    write_json(
        folder / "metrics.json",
        {
            "task": OmegaConf.to_container(cfg.task, resolve=True),
            "split": streams.split,
            "episodes": {"count": len(evaluation), "seed": test.seed, "sha256": test.fingerprint()},
            "metrics": evaluation.summary(),
            "units": {name: metric.unit for name, metric in parts.metrics.items()},
            "better": {name: metric.better for name, metric in parts.metrics.items()},
            "main": next(iter(parts.metrics), None),
            "per_episode": evaluation.values[evaluation.steps],
            "per_episode_by_step": evaluation.values,
            "adaptation": evaluation.curve(),
            "likelihood": evaluation.likelihood.summary() if evaluation.likelihood else None,
            "judge": getattr(evaluation.judge, "accuracy", None),
            "batch_statistics": batch_statistics(parts.experiment.model),
            "training": training,
            "precision": {"trainer": cfg.trainer.precision, "low": parts.experiment.precision.describe()},
            "parameters": {
                "model": _count(parts.experiment.model),
                "learner": _count(parts.experiment.learner),
            },
            "data": {"train": _bank(parts.data.bank), "test": _bank(parts.data.test_bank)},
            "device": str(parts.experiment.device),
            "machine": machine(parts.experiment.device),
            "versions": versions(),
            "git": git_commit(),
            "seed": cfg.seed,
            "overrides": list(hydra.overrides.task),
            "choices": {
                group: choice for group, choice in hydra.runtime.choices.items() if "hydra" not in group
            },
        },
    )


def _write_samples(parts: Parts, evaluation: Evaluation, folder: Path) -> None:
    """Write support images beside generated (or classified) ones, as arrays and as a picture."""
    shown = evaluation.shown
    if shown is None:
        return
    names = parts.data.test_bank.names
    classes = [names[int(label)] for label in shown.labels]
    support = to_uint8(shown.support)
    if shown.samples is not None:
        samples = to_uint8(shown.samples)
        write_npz(folder / "samples.npz", support=support, samples=samples, classes=classes)
        samples_grid(support, samples, classes, folder / "samples.png")
    elif shown.logits is not None:
        query, predicted = _by_class(shown.query, shown.y, shown.logits.argmax(-1))
        support = support if len(support) == len(query) else query[:, :0]
        write_npz(folder / "samples.npz", support=support, query=query, predicted=predicted, classes=classes)
        predictions_grid(support, query, predicted, classes, folder / "samples.png")


def _by_class(images: Tensor, y: Tensor, predicted: Tensor) -> tuple[Any, Any]:
    """Group classified images by their class: (C, Q, H, W) uint8 and (C, Q), as many of each class."""
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
