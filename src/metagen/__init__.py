"""metagen: experiments in meta-learning for image generation.

From Python (the guide's page "From Python")::

    import metagen

    result = metagen.train(["experiment=quickstart"])     # as `metagen train experiment=quickstart`
    trained = metagen.load(result.folder)                 # the model with its learner
    new = trained.generate(images, n=16)                  # images: (N, K, 1, H, W) or lists of PIL images

Names are imported when they are first used: ``import metagen`` takes milliseconds.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

__version__ = "0.1.0"

_PUBLIC = {
    "compose": "api", "build": "api", "train": "api", "resume": "api", "evaluate": "api", "compare": "api",
    "load": "api", "Compared": "api", "Result": "runs.result", "Run": "runs.run", "Setup": "jobs.build",
    "Trained": "jobs.trained", "EpisodeData": "data.datamodule", "Bank": "data.bank",
    "Experiment": "training.module", "Evaluation": "evaluation.evaluation", "Episode": "core.episode",
    "Shots": "core.episode", "Objective": "core.objective", "Model": "core.model",
    "Generator": "core.model", "Classifier": "core.model", "Learner": "core.learner", "Metric": "core.metric",
    "Outcome": "core.metric", "gradient": "functional.vectorize", "rng": "functional.rng",
    "MetagenError": "errors",
}  # fmt: skip
"""Public name -> the module that holds it."""

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> _Any:
    """Import a public name, or a package of metagen, when it is first used (PEP 562)."""
    if name in _PUBLIC:
        module = _import_module(f"metagen.{_PUBLIC[name]}")
        return module if _PUBLIC[name].rpartition(".")[2] == name else getattr(module, name)
    raise AttributeError(f"module 'metagen' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
