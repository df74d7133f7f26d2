"""The saved configuration of a run, read as if a stranger had sent it."""

from pathlib import Path
from typing import Any

from metagen.config.interpolations import check_interpolations
from metagen.config.overrides import own_overrides
from metagen.errors import MetagenError
from metagen.reading import NoYamlError, read_yaml


def saved_config(path: Path) -> dict[str, Any]:
    """Return a saved configuration as plain values, its interpolations unresolved.

    Raises:
        MetagenError: the file cannot be read, is no configuration, or asks for what it must not
            (:func:`metagen.config.interpolations.check_interpolations`).
    """
    config = _read(path)
    if not isinstance(config, dict):
        raise MetagenError(f"{path} is no configuration of keys and values: name another run")
    config = {str(key): value for key, value in config.items()}
    check_interpolations(config, path)
    return config


def saved_overrides(path: Path) -> list[str]:
    """Return saved overrides, but for those that reach beyond a run (:func:`own_overrides`).

    Raises:
        MetagenError: the file cannot be read, holds no list, or asks for what it must not.
    """
    saved = _read(path)
    if not isinstance(saved, list):
        raise MetagenError(f"{path} is no list of overrides: name another run")
    return own_overrides([str(item) for item in saved], path)


def saved_choices(path: Path) -> dict[str, str]:
    """Return the choices of groups that Hydra wrote down in ``hydra.yaml``; none where it cannot be read."""
    try:
        choices = read_yaml(path)["hydra"]["runtime"]["choices"]
        return {str(key): str(value) for key, value in choices.items() if value is not None}
    except (OSError, MetagenError, KeyError, TypeError, AttributeError):
        return {}


def _read(path: Path) -> Any:
    try:
        return read_yaml(path)
    except (NoYamlError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MetagenError(f"{path} cannot be read ({reason})") from error
