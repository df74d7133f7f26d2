"""Write what a run did and found: ``metrics.json``, ``episodes.npz``, samples and pictures."""

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from metagen.build import Parts
from metagen.data.bank import Bank
from metagen.evaluation import Evaluation
from metagen.report.files import write_json, write_npz
from metagen.report.pictures import adaptation_plot, predictions_grid, samples_grid

PACKAGES = ("metagen", "torch", "torchvision", "lightning", "hydra-core", "torchmetrics")


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


def to_uint8(x: Tensor) -> Any:
    """Turn grey images in [0, 1], (..., 1, H, W), into a uint8 array (..., H, W)."""
    return (x.detach().clamp(0, 1) * 255).round().to(torch.uint8).squeeze(-3).cpu().numpy()


def batch_statistics(model: Any) -> str | None:
    """Return how query images are normalised, ``"transductive"`` or ``"inductive"``; None if not at all."""
    if not model.batch_statistics:
        return None
    return "transductive" if model.transductive else "inductive"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on which results depend."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _bank(bank: Bank) -> dict[str, Any]:
    return {"name": bank.name, "sha256": bank.sha256, "images": len(bank.images)}


def machine(device: torch.device) -> dict[str, Any]:
    """Return what rounding depends on beside the versions: the kind of processor and the threads."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"processor": card or processor(), "threads": torch.get_num_threads()}


def processor() -> str:
    """Return the name of the processor, or its family where the system does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def git_commit() -> str | None:
    """Return the commit of the code, with ``+`` where files differ from it, or None outside of git."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


SWEPT = ("model", "learner", "optimizer", "scheduler", "task")
"""Groups all of whose plain values are hyperparameters."""
RECIPE = ("seed", "samples", "data.split", "trainer.max_steps", "trainer.precision")
"""The other hyperparameters: how and where a run is computed is none."""


def hyperparameters(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return what runs are compared by, flat: what was chosen for each group, and the values of a recipe.

    A choice stands under its group's name (``learner``: ``maml``), so that a table of a sweep can be
    sorted and filtered by it.
    """
    chosen = {group: choices[group] for group in ("data", "experiment", *SWEPT) if choices.get(group)}
    values = {
        key: value
        for key, value in flatten(config).items()
        if key in RECIPE or (key.partition(".")[0] in SWEPT and "_target_" not in key)
    }
    return {key: str(choice) for key, choice in chosen.items()} | {
        key: value for key, value in values.items() if key not in chosen
    }


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested configuration as flat plain values by dotted key, as TensorBoard takes them."""
    if not isinstance(node, Mapping):
        return {prefix: node if isinstance(node, int | float | bool | str) else str(node)}
    out: dict[str, Any] = {}
    for key, value in node.items():
        out.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return out
