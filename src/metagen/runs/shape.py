"""The shape of a run's record: which keys it has, and of which type they are."""

from collections.abc import Iterator
from typing import Any, NamedTuple

MISSING = object()


class Optional(NamedTuple):
    """What may be missing or null, else has a shape."""

    shape: Any


class Absent(NamedTuple):
    """What may be missing, but not null."""

    shape: Any


class Each(NamedTuple):
    """A dict with any keys or a list, whose values have a shape."""

    kind: type
    shape: Any


NUMBER = (int, float)
MAYBE = (int, float, type(None))
"""A number, or null where it is undefined."""
SUMMARY = {"mean": MAYBE, "ci95": Optional(NUMBER)}
VALUES = Each(dict, Each(list, MAYBE))
POINT = {"step": int, "seconds": NUMBER, "flops": Optional(NUMBER), "metrics": Each(dict, SUMMARY)}
SHAPE = {
    "metrics": Each(dict, SUMMARY),
    "episodes": {"sha256": str, "count": Optional(int)},
    "overrides": Each(list, str),
    "seed": int,
    "task": dict,
    "training": {
        "steps": Optional(NUMBER),
        "planned": Optional(NUMBER),
        "ended": Optional(str),
        "seconds": Optional(NUMBER),
        "checkpoint": Optional(str),
    },
    "choices": Optional(dict),
    "split": Optional(Each(dict, Each(list, str))),
    "data": Optional(Each(dict, {"name": Optional(str), "sha256": Optional(str)})),
    "main": Optional(str),
    "beside": Optional(str),
    "units": Optional(Each(dict, str)),
    "about": Optional(Each(dict, str)),
    "better": Optional(Each(dict, Optional(str))),
    "per_episode": Absent(VALUES),
    "per_episode_by_step": Absent(Each(dict, VALUES)),
    "adaptation": Absent(Each(list, POINT)),
    "likelihood": Optional(
        {"contexts": Optional(Each(list, {"images": int, "per_episode": Each(list, MAYBE)}))}
    ),
}
"""What is read of a record; a type, a tuple of types, or a dict of the keys that are needed."""


def misfit(value: Any, shape: Any, name: str = "") -> str | None:
    """Return the dotted name of the first part that is missing or of another type, or None."""
    if isinstance(shape, Absent | Optional):
        missing = value is MISSING or (value is None and isinstance(shape, Optional))
        return None if missing else misfit(value, shape.shape, name)
    kind: Any = dict if isinstance(shape, dict) else shape.kind if isinstance(shape, Each) else shape
    if not isinstance(value, kind) or isinstance(value, bool):
        return name
    found = (misfit(part, one, f"{name}.{key}".lstrip(".")) for key, part, one in _parts(value, shape))
    return next((wrong for wrong in found if wrong is not None), None)


def _parts(value: Any, shape: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield name, value and shape of what is in a value."""
    if isinstance(shape, dict):
        yield from ((key, value.get(key, MISSING), one) for key, one in shape.items())
    elif isinstance(shape, Each):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        yield from ((key, part, shape.shape) for key, part in items)
