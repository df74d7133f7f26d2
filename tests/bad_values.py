"""Bad values of every key of every group of ``conf``, made from what the constructors declare."""

import copy
import math
import typing
from typing import Any, NamedTuple

from metagen.config.compose import compose, resolved
from metagen.config.keys import VALUES
from metagen.config.schema import declarations
from metagen.config.tree import conf_dir
from metagen.config.trusted import resolve
from metagen.ranges import bounds, parts

ODD = (
    0, -1, 1.5, math.nan, math.inf, -math.inf, 2**64, -(2**64), 10**12, 1e300, "nope", "", None, True, [],
    [None], {}, {"nope": 1}, [math.nan],
)  # fmt: skip
"""What is tried for every key, whatever it declares."""
GROUPS = (
    "callbacks", "data", "judge", "learner", "likelihood", "logger", "metric", "model", "optimizer",
    "scheduler", "task", "trainer",
)  # fmt: skip
"""Groups whose choices are objects; their subgroups come with them."""
CLASSIFIES, SUPERVISED = ("task=classify", "model=conv4"), ("task=supervised", "model=basenet")
BESIDE = {
    "learner=proto_maml": CLASSIFIES,
    "learner=protonet": CLASSIFIES,
    "learner=supervised": SUPERVISED,
    "learner=in_context": ("model=pixel_transformer",),
    "model=pixel_transformer": ("learner=in_context",),
    "model=deformation": ("learner=in_context", "metric=[recognised]"),
    "model=warp": ("learner=in_context", "metric=[recognised]"),
    "model=gan": ("learner=maml", "metric=[recognised]"),
    "model=conv4": ("task=classify", "learner=maml"),
    "model=basenet": ("task=supervised", "learner=supervised"),
    "task=classify": ("model=conv4", "learner=maml"),
    "task=supervised": ("model=basenet", "learner=supervised"),
    "likelihood=context": ("task.shots=20",),
}
"""What goes together with a choice, so that the values in range are built."""


class Case(NamedTuple):
    """A value of a key of what some overrides compose, such as ``("learner=maml",), "learner.steps", -1``."""

    overrides: tuple[str, ...]
    key: str
    value: Any


def choices() -> list[tuple[str, ...]]:
    """Return the overrides of every choice of every group, and of the metrics all at once."""
    found: list[tuple[str, ...]] = [()]
    for group in GROUPS:
        names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
        words = (
            [f"metric=[{name}]" for name in names] if group == "metric" else [f"{group}={n}" for n in names]
        )
        found += [(word, *BESIDE.get(word, ())) for word in words]
    for group in ("learner", "model"):
        for path in sorted((conf_dir() / group).glob("*/*.yaml")):
            of_learner = ("learner=maml",) if group == "learner" else ()
            found.append((*of_learner, f"{path.parent.relative_to(conf_dir())}={path.stem}"))
    return found


def composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return the plain configuration of some overrides, every argument that is left out among its keys."""
    return resolved(compose(list(overrides)).config)


def nodes(config: Any, path: str = "") -> typing.Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path and the node of everything with a ``_target_``."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield path, config
        for key, value in config.items():
            yield from nodes(value, f"{path}.{key}".lstrip("."))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from nodes(value, f"{path}.{index}")


def bad_values(hint: Any) -> list[Any]:
    """Return what to try for an annotation: around its bounds, and what is odd anywhere."""
    found = list(ODD)
    for one in [hint, *typing.get_args(hint)]:
        inner, constraints = parts(one)
        if inner in (int, float):
            within = bounds(constraints)
            step = 1 if inner is int else 1e-6 * max(1.0, abs(within.high or 1.0))
            found += [within.low - step, within.low] if within.low is not None else []
            found += [within.high + step, within.high] if within.high is not None else []
    return found


def cases(overrides: tuple[str, ...], config: dict[str, Any], seen: set[tuple[str, str, str]]) -> list[Case]:
    """Return the cases of a configuration, but for those of a class and key that were seen before."""
    found = []
    if not overrides:
        found = [Case(overrides, key, value) for key, hint in VALUES.items() for value in bad_values(hint)]
    for path, node in nodes(config):
        hints = declarations(resolve(node["_target_"], path))
        for key in dict.fromkeys([*(k for k in node if not k.startswith("_")), *hints]):
            known = (path.partition(".")[0], str(node["_target_"]), key)
            if key != "return" and known not in seen:
                seen.add(known)
                found += [Case(overrides, f"{path}.{key}", value) for value in bad_values(hints.get(key))]
    return found


def with_value(config: dict[str, Any], case: Case) -> dict[str, Any]:
    """Return a configuration in which the key of a case has its value."""
    changed = copy.deepcopy(config)
    *path, last = case.key.split(".")
    place: Any = changed
    for word in path:
        place = place[int(word)] if isinstance(place, list) else place[word]
    place[last] = case.value
    return changed
