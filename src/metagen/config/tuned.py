"""The values that an experiment sets for the chosen learner, model and size, beside its own file.

They come along with ``learner=NAME``, so the user is told of them: :func:`line`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metagen.config.flat import flatten
from metagen.config.overrides import key_of
from metagen.config.tree import conf_dir
from metagen.reading import read_yaml


class Source(NamedTuple):
    """A line of ``conf/config.yaml`` whose file is chosen by other choices.

    line:    its key among the choices; its file lies below the group that the key begins with.
    group:   whose choice the file is for.
    package: where the file's keys go; empty: at the top.
    """

    line: str
    group: str
    package: str = ""


SOURCES = (
    Source("family@_global_", "learner"),
    Source("experiment@_global_", "learner"),
    Source("experiment/.@_global_", "size"),
    Source("family@model", "model", "model"),
    Source("experiment@model", "model", "model"),
)
"""In the order in which they count: the last one wins."""


def tuned(
    choices: Mapping[str, Any],
    config: Mapping[str, Any],
    overrides: Sequence[str],
    places: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Return key -> value of all that was tuned for these choices and not overridden.

    Args:
        choices: of every group and line, as Hydra keeps them.
        config: what was composed, as plain data: the values are those that hold.
        overrides: of the user. A choice such as ``optimizer=adam`` overrides no value of the optimizer.
        places: folders of the user's own beside ``conf``, searched after it.

    Returns:
        Flat; a class that takes another's place has its node's key, ``optimizer`` for
        ``optimizer._target_``.
    """
    given = [key for key in map(key_of, overrides) if not (conf_dir() / key).is_dir()]
    held = flatten(config)
    keys = dict.fromkeys(key for source in SOURCES for key in _keys(source, choices, places))
    return {
        key.removesuffix("._target_"): held[key]
        for key in keys
        if key in held and not any(f"{key}.".startswith(f"{one}.") for one in given)
    }


def line(
    choices: Mapping[str, Any],
    config: Mapping[str, Any],
    overrides: Sequence[str],
    places: Sequence[str | Path] = (),
) -> str | None:
    """Return what :func:`tuned` does in a line for the user; None where it is nothing."""
    values = tuned(choices, config, overrides, places)
    if not values:
        return None
    groups = dict.fromkeys(one.group for one in SOURCES if _keys(one, choices, places))
    names = [f"size={choices[group]}" if group == "size" else str(choices[group]) for group in groups]
    said = ", ".join(f"{key}={_spelled(value)}" for key, value in values.items())
    return f"tuned for {', '.join(names)} in {choices['experiment']}: {said}"


def layers(choices: Mapping[str, Any], places: Sequence[str | Path] = ()) -> list[dict[str, Any]]:
    """Return what the files for these choices set, one after the other, as configurations."""
    return [layer for source in SOURCES if (layer := _layer(source, choices, places))]


def _layer(source: Source, choices: Mapping[str, Any], places: Sequence[str | Path]) -> dict[str, Any]:
    name = Path(source.line.partition("@")[0], f"{choices.get(source.line)}.yaml")
    if ".." in name.parts or name.is_absolute():
        return {}  # a saved choice may name any place
    path = next((Path(place, name) for place in (conf_dir(), *places) if Path(place, name).is_file()), None)
    if path is None:
        return {}
    plain = {str(key): value for key, value in (read_yaml(path) or {}).items()}
    return {source.package: plain} if source.package else plain


def _keys(source: Source, choices: Mapping[str, Any], places: Sequence[str | Path]) -> list[str]:
    """Return the keys that a file sets; a model's file also names the class whose size it is."""
    keys = flatten(_layer(source, choices, places))
    return [key for key in keys if not (source.group == "model" and key.endswith("_target_"))]


def _spelled(value: Any) -> str:
    """Return a value as the command line spells it."""
    if isinstance(value, bool):
        return json.dumps(value)
    return str(value).replace("None", "null").replace("'", "")
