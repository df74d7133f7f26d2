"""Names that a configuration once had, and today's: old runs and their records are still opened."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from metagen.config.renamed_learners import key_of_today, learner_of_today

_METRICS = "metagen.metrics"


class Renamed(NamedTuple):
    """What a class is today.

    target:    its dotted path.
    arguments: those that it needs to do the same.
    """

    target: str
    arguments: Mapping[str, Any] = {}


CLASSES = {
    "metagen.data.augment.Warp": Renamed("metagen.data.augment.RandomAffine"),
    "metagen.judge.Judge": Renamed("metagen.evaluation.judge.Judge"),
    "metagen.judge_protonet.ProtoNetJudge": Renamed("metagen.evaluation.judge_protonet.ProtoNetJudge"),
    "metagen.likelihood.Likelihood": Renamed("metagen.evaluation.likelihood.Likelihood"),
    "metagen.learners.modulations.Film": Renamed("metagen.learners.modulations.FilmModulation"),
    "metagen.learners.modulations.LowRank": Renamed("metagen.learners.modulations.LowRankModulation"),
    "metagen.ranks.TaskParallel": Renamed("metagen.training.parallel.TaskParallel"),
} | {
    f"{_METRICS}.{module}.{old}": Renamed(f"{_METRICS}.{module}.{new}", {"images": images})
    for module, old, new, images in (
        ("prdc", "PrecisionReal", "Precision", "real"),
        ("prdc", "RecallReal", "Recall", "real"),
        ("prdc", "DensityReal", "Density", "real"),
        ("prdc", "CoverageReal", "Coverage", "real"),
        ("prdc", "CoverageRelative", "Coverage", "relative"),
        ("fid", "FidReal", "Fid", "real"),
        ("kid", "KidReal", "Kid", "real"),
        ("recognizability", "RecognizabilityReal", "Recognizability", "real"),
        ("classification_accuracy_score", "SupportScore", "ClassificationAccuracyScore", "support"),
        ("classification_accuracy_score", "RealScore", "ClassificationAccuracyScore", "real"),
        ("one_against_rest", "SupportAgainstRest", "OneAgainstRest", "support"),
        ("one_against_rest", "RealAgainstRest", "OneAgainstRest", "real"),
    )
}
ARGUMENTS = {f"{_METRICS}.classification_accuracy_score.AugmentedScore": {"images": "count"}}
"""Class -> old argument -> new one."""
KEYS = {
    "metric@task.metric": "metric",
    "metrics.cas_augmented.images": "metrics.cas_augmented.count",
}
CHOICES = {("learner", "gradient_descent"): "maml"}
GONE = frozenset({"tuned", "size_of", "size_of_model"})
"""Groups whose choices followed from others: an experiment's own folder has taken their place."""


def overrides(saved: Sequence[str]) -> list[str]:
    """Return overrides in today's names."""
    return [text for text in map(_override, saved) if text is not None]


def config(saved: Any) -> Any:
    """Return a composed configuration, plain data, in today's names."""
    if isinstance(saved, list):
        return [config(item) for item in saved]
    if not isinstance(saved, Mapping):
        return saved
    saved = learner_of_today(saved)
    new = CLASSES.get(str(saved.get("_target_")), Renamed(str(saved.get("_target_"))))
    names = ARGUMENTS.get(new.target, {})
    node = {names.get(str(key), key): config(value) for key, value in saved.items()}
    return node | {"_target_": new.target} | dict(new.arguments) if "_target_" in saved else node


def choices(saved: Mapping[str, str]) -> dict[str, str]:
    """Return group -> choice in today's names."""
    return {group: CHOICES.get((group, name), name) for group, name in saved.items() if group not in GONE}


def _override(text: str) -> str | None:
    sign = text[: len(text) - len(text.lstrip("+~"))]
    key, equals, value = text[len(sign) :].partition("=")
    if key.partition("@")[0] in GONE:
        return None
    new = CLASSES[value].target if value in CLASSES else CHOICES.get((key, value), value)
    return f"{sign}{key_of_today(KEYS.get(key, key))}{equals}{new}"
