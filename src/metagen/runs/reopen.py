"""The configuration of a finished run, whatever has become of the tree that it was composed from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metagen.config.flat import flatten
from metagen.config.overrides import merged
from metagen.config.saved import saved_config
from metagen.config.saved import saved_overrides as overrides_in
from metagen.config.tree import conf_dir
from metagen.errors import MetagenError

Config = dict[str, Any]
DATA = "${oc.env:METAGEN_DATA,data}"
"""Where the data are looked for if the folder that a run names is not there."""


class Recomposed(NamedTuple):
    """A saved configuration, ready to run.

    config:    what runs, interpolations unresolved.
    overrides: the saved ones and the new ones; of two for the same key the new one.
    known:     those of them that today's tree takes.
    lost:      saved ones that it no longer takes; their effect is in ``config`` all the same.
    changed:   key -> (saved, what today's tree composes), where these differ.
    moved:     key -> (saved, now) of the paths that do not exist on this machine.
    """

    config: Config
    overrides: list[str]
    known: list[str]
    lost: list[str]
    changed: dict[str, tuple[Any, Any]]
    moved: dict[str, tuple[Any, Any]]


def recompose(run: Path, new: Sequence[str] = ()) -> Recomposed:
    """Return the saved configuration of ``run`` under the overrides ``new``.

    Every node that was saved counts as it was saved; only nodes of which a run knew nothing yet are
    today's. A new choice of a group replaces that group's node; a new choice of an experiment changes
    what it changes today.

    Raises:
        MetagenError: no run's folder, or a checkpoint that is not there.
        HydraException, OmegaConfBaseException: ``new`` cannot be read or composed.
    """
    saved, given = _saved(run), OverridesParser.create().parse_overrides(list(new))
    overrides = run_overrides(run)
    before, known = _fitting(overrides)
    lost = [text for text in overrides if text not in known]
    only_saved = [text for text, one in zip(new, given, strict=True) if _only_in(one, saved, before)]
    today = [text for text in new if text not in only_saved]
    after, kept = _fitting(merged(known, today), today) if today else (before, known)
    config = _three_ways({**before, **saved}, before, after)
    config = _put(config, [one for one in given if not one.key_or_group.startswith("hydra")], after)
    moved = _settle(config)
    differing = differences(saved, {key: before[key] for key in saved if key in before})
    return Recomposed(config, merged(overrides, new), kept, lost, differing, moved)


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Return key -> (old, new) for every dotted key whose values differ; ``"-"`` where it is missing."""
    a, b = flatten(old), flatten(new)
    return {
        key: (a.get(key, "-"), b.get(key, "-"))
        for key in dict.fromkeys([*a, *b])
        if a.get(key, "-") != b.get(key, "-")
    }


def _saved(run: Path) -> Config:
    path = run / ".hydra" / "config.yaml"
    if not path.is_file():
        raise MetagenError(f"{run} holds no configuration (.hydra/config.yaml): name the folder of a run")
    return saved_config(path)


def _compose(overrides: Sequence[str]) -> Config:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", list(overrides)))
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _fitting(overrides: Sequence[str], needed: Sequence[str] = ()) -> tuple[Config, list[str]]:
    """Compose today's tree with as many of ``overrides`` as it takes, and say which; all of ``needed``."""

    def add(config: Config, kept: list[str], rest: list[str]) -> tuple[Config, list[str]]:
        try:
            return _compose([*kept, *rest]), kept + rest
        except (HydraException, OmegaConfBaseException):
            if len(rest) > 1:
                half = len(rest) // 2
                return add(*add(config, kept, rest[:half]), rest[half:])
            if not set(rest).isdisjoint(needed):
                raise
            return config, kept

    # Groups first: they decide which keys there are.
    groups_first = sorted(overrides, key=lambda text: not _is_group(text.partition("=")[0]))
    config, kept = add({}, [], groups_first)
    return config or _compose([]), [text for text in overrides if text in kept]


def _is_group(key: str) -> bool:
    return (conf_dir() / key.lstrip("+~").partition("@")[0]).is_dir()


def _only_in(one: Override, saved: Config, today: Config) -> bool:
    """Return whether an override sets a key that the saved configuration has and today's has not."""
    key = one.key_or_group
    return not _is_group(key) and key in _paths(saved) and key not in _paths(today)


def _paths(node: Any, prefix: str = "") -> set[str]:
    if not isinstance(node, Mapping):
        return set()
    keys = {f"{prefix}{key}": value for key, value in node.items()}
    return set(keys).union(*(_paths(value, f"{key}.") for key, value in keys.items()))


def _three_ways(saved: Any, before: Any, after: Any) -> Any:
    """Return ``saved`` with that changed which changes from ``before`` to ``after``."""
    nodes = (saved, before, after)
    if not all(isinstance(node, dict) for node in nodes) or before.get("_target_") != after.get("_target_"):
        return after
    out = dict(saved)
    for key in {**before, **after}:
        if key in before and key in after and before[key] == after[key]:
            continue
        if key not in after:
            out.pop(key, None)
        elif key in before and key in saved:
            out[key] = _three_ways(saved[key], before[key], after[key])
        else:
            out[key] = after[key]
    return out


def _put(config: Config, given: Sequence[Override], after: Config) -> Config:
    """Return ``config`` with what was given expressly, even where today's tree has it by default."""
    out = OmegaConf.create(config)
    groups = [one for one in given if _is_group(one.key_or_group)]
    for one in groups:
        node = one.package or one.key_or_group.replace("/", ".")
        if node in _paths(after):
            value = OmegaConf.select(OmegaConf.create(after), node)
            OmegaConf.update(out, node, value, merge=False, force_add=True)
    for one in (one for one in given if one not in groups):
        if one.is_delete():
            parent, _, leaf = one.key_or_group.rpartition(".")
            (OmegaConf.select(out, parent) if parent else out).pop(leaf, None)
        else:
            OmegaConf.update(out, one.key_or_group, one.value(), merge=True, force_add=True)
    plain = OmegaConf.to_container(out)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _settle(config: Config) -> dict[str, tuple[Any, Any]]:
    """Put this machine's paths in the place of those that are not here, and return key -> (saved, now)."""
    moved: dict[str, tuple[Any, Any]] = {}
    for name in ("data", "test_data", "judge"):
        node = config.get(name)
        for key, here in (("root", DATA), ("cache", None)):
            path = node.get(key) if isinstance(node, dict) else None
            if isinstance(path, str) and "${" not in path and not Path(path).expanduser().exists():
                assert isinstance(node, dict)
                node[key] = here
                moved[f"{name}.{key}"] = (path, here or "the default")
    path = OmegaConf.select(OmegaConf.create(config), "checkpoint")
    if isinstance(path, str) and not Path(path).is_file():
        raise MetagenError(f"checkpoint={path} is not on this machine: say where it is, as checkpoint=FILE")
    return moved


def saved_overrides(run: str | Path, which: str = "best") -> tuple[list[str], Path]:
    """Return the overrides by which a run was made and its checkpoint.

    Raises:
        MetagenError: the folder is no run, or has no checkpoint.
    """
    saved, checkpoint = run_overrides(run), Path(run) / "checkpoints" / f"{which}.ckpt"
    if not checkpoint.is_file():
        raise MetagenError(f"{run} has no checkpoint ({checkpoint.name}): train it to the end first")
    return saved, checkpoint


def run_overrides(run: str | Path) -> list[str]:
    """Return the overrides by which a run was made.

    Raises:
        MetagenError: the folder is no run's.
    """
    folder = Path(run)
    overrides = folder / ".hydra" / "overrides.yaml"
    if not folder.is_dir():
        raise MetagenError(f"no folder {folder}: name a run's folder, such as outputs/DATE/TIME")
    if not overrides.is_file():
        raise MetagenError(f"{folder} is no run's folder: it has no .hydra/overrides.yaml")
    return overrides_in(overrides)
