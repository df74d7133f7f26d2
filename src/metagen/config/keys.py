"""The keys of a configuration: which there are, which may change in a resumed run, and which tell runs apart.

Everything else that is known of a key follows from the signature of the ``_target_`` that takes it
(:mod:`metagen.config.schema`).
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from metagen.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, Seed, Text

VALUES: dict[str, Any] = {
    "seed": Seed,
    "samples": PositiveInt,
    "curves": Literal["last", "cheap", "all"],
    "importance_samples": PositiveInt,
    "vectorize": Literal["auto", "loop", "vmap"],
    "chunk": PositiveInt | None,
    "workers": Annotated[int, Ge(1), Le(1024)] | None,
    "autocast": Literal["auto", "none", "query", "all"],
    "checkpoint": Text | None,
    "checkpoint_every": NonNegativeFloat,
    "max_skips": NonNegativeInt,
}
"""Plain values at the top of a configuration, their types and ranges."""

NODES = (
    "data", "test_data", "task", "metrics", "model", "learner", "optimizer", "scheduler", "trainer", "judge",
    "likelihood", "logger", "callbacks",
)  # fmt: skip
"""Objects at the top of a configuration, each with a ``_target_``; ``metrics``, ``logger`` and ``callbacks``
hold one for each name."""

REQUIRED = ("data", "task", "model", "learner", "optimizer", "scheduler", "trainer", "judge")
"""Nodes that nothing works without."""

_FREE = ("trainer", "logger", "vectorize", "chunk", "workers", "checkpoint", "checkpoint_every", "max_skips")
_OF_THE_RECIPE = tuple(
    f"trainer.{name}"
    for name in (
        "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "limit_train_batches",
        "overfit_batches", "precision",
    )
)  # fmt: skip
"""Keys of the trainer that say what is computed: a resumed run keeps them, or its record would be wrong."""
_FREE_LEAVES = ("data.root", "data.cache", "test_data.root", "test_data.cache", "judge.cache")

HYPERPARAMETERS = ("model", "learner", "optimizer", "scheduler", "task")
"""Nodes all of whose plain values are hyperparameters."""

_RECIPE = ("seed", "samples", "data.split", "trainer.max_steps", "trainer.precision")

WITHOUT_EFFECT = frozenset({"seed", "vectorize", "chunk", "workers", "trainer.enable_progress_bar"})
"""Keys by which a comparison makes no groups: they change no result, and the seed is averaged over."""


def may_change(key: str) -> bool:
    """Return whether a resumed run may get another value: it says how or where to compute, not what."""
    if key in _OF_THE_RECIPE:
        return False
    return key.partition(".")[0] in _FREE or key in _FREE_LEAVES


def is_hyperparameter(key: str) -> bool:
    """Return whether runs are compared by it: it says what to compute, not how or where."""
    says_how = any(part.startswith("_") for part in key.split("."))
    return key in _RECIPE or (key.partition(".")[0] in HYPERPARAMETERS and not says_how)
