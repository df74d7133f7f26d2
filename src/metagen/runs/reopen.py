"""Reopening a run: its saved configuration, whatever has become of the tree that it was composed from."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metagen.config import renamed
from metagen.config.around_a_run import check_around
from metagen.config.compose import Composed, Config, compose, resolved
from metagen.config.flat import flatten
from metagen.config.overrides import group_of, merged, of_hydra, quoted
from metagen.config.saved import saved_config
from metagen.config.saved import saved_overrides as overrides_in
from metagen.config.tree import conf_dir
from metagen.errors import MetagenError
from metagen.files import expanded
from metagen.reading import read_yaml
from metagen.runs.places import located
from metagen.runs.records import WEIGHTS
from metagen.runs.run import Kind, Run

DATA = "${oc.env:METAGEN_DATA,data}"
"""Where the data are looked for if the folder that a run names is not there."""


class Reopened(NamedTuple):
    """The saved configuration of a run, under new overrides.

    config:    what runs, interpolations unresolved.
    overrides: the saved ones and the new ones; of two for the same key the new one, and none of a key that a
        new choice does not have.
    known:     those of them that today's tree takes.
    lost:      saved ones that it no longer takes; their effect is in ``config`` all the same.
    changed:   key -> (saved, what today's tree composes), where these differ.
    moved:     key -> (saved, now) of the paths that do not exist on this machine.
    choices:   group -> choice, as they were saved, and of groups that are chosen anew.
    """

    config: Config
    overrides: list[str]
    known: list[str]
    lost: list[str]
    changed: dict[str, tuple[Any, Any]]
    moved: dict[str, tuple[Any, Any]]
    choices: dict[str, str]

    def run(
        self,
        hydra: Sequence[str] = (),
        kind: Kind = "new",
        folder: Path | None = None,
        force: bool = False,
    ) -> Run:
        """Return the run of this configuration.

        Args:
            hydra: overrides of Hydra itself.
            kind: of the run.
            folder: where it writes; None leaves it to ``hydra``.
            force: whether a run that is there is replaced.

        Raises:
            MetagenError: the folder holds a run already.
        """
        composed = compose([*self.known, *hydra])
        check_around(composed.whole)
        place = composed.folder() if folder is None else folder.absolute()
        config = resolved(self.config, composed.whole)
        run = Run(place, config, self.config, self.overrides, self.choices, kind, force, composed.whole)
        run.check_folder()
        return run


def reopen(run: Path, new: Sequence[str] = (), start: bool = True) -> Reopened:
    """Return the saved configuration of ``run`` under the overrides ``new``.

    Every node that was saved counts as it was saved; only nodes of which a run knew nothing yet are
    today's. A new choice of a group replaces that group's node; a new choice of an experiment changes
    what it changes today.

    Args:
        run: its folder, in which nothing is changed.
        new: overrides, none of them of Hydra itself.
        start: whether the checkpoint that its training started from must be there.

    Raises:
        MetagenError: no run's folder, or a checkpoint that is not there.
        HydraException, OmegaConfBaseException: ``new`` cannot be read or composed.
    """
    run = located(run)
    saved, given = _saved(run), OverridesParser.create().parse_overrides(list(new))
    overrides = run_overrides(run)
    before, known = _fitting(overrides)
    lost = [text for text in overrides if text not in known]
    only_saved = [text for text, one in zip(new, given, strict=True) if _only_in(one, saved, before.config)]
    today = [text for text in new if text not in only_saved]
    after, kept = _fitting(merged(known, today), today) if today else (before, known)
    config = _three_ways({**before.config, **saved}, before.config, after.config)
    config = _put(config, given, after.config)
    moved = _settle(config, start)
    differing = changed_keys(saved, {key: before.config[key] for key in saved if key in before.config})
    chosen = {group: name for group, name in after.choices.items() if before.choices.get(group) != name}
    given_groups = {group: after.choices[group] for group in map(group_of, new) if group in after.choices}
    choices = {**before.choices, **_saved_choices(run), **chosen, **given_groups}
    gone = set(known).difference(kept)  # a new choice has no such keys
    overrides = merged([text for text in overrides if text not in gone], new)
    return Reopened(config, overrides, kept, lost, differing, moved, choices)


def evaluation_of(run: Path, new: Sequence[str] = (), force: bool = False) -> Run:
    """Return the evaluation of a run's best checkpoint.

    Args:
        run: its folder.
        new: overrides on top of the run's own, those of Hydra itself among them.
        force: whether a run in the evaluation's folder is replaced.

    Raises:
        MetagenError: no run, or no checkpoint.
    """
    checkpoint = best_checkpoint(run)
    own, hydra = split_hydra(new)
    opened = reopen(run, [f"checkpoint={quoted(str(checkpoint))}", *own])
    return opened.run(hydra, "evaluation", force=force)


def split_hydra(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of a run, and those of Hydra itself."""
    own = [text for text in overrides if not of_hydra(text)]
    return own, [text for text in overrides if of_hydra(text)]


def best_checkpoint(run: str | Path) -> Path:
    """Return the checkpoint with the lowest validation loss of a run, or the weights of an exported one.

    Raises:
        MetagenError: the folder is no run, or has no checkpoint.
    """
    run_overrides(run)
    folder = located(run)
    checkpoint, exported = folder / "checkpoints" / "best.ckpt", folder / WEIGHTS
    if not checkpoint.is_file() and exported.is_file():
        return exported
    if not checkpoint.is_file():
        raise MetagenError(f"{run} has no checkpoint ({checkpoint.name}): train it, or fetch its {WEIGHTS}")
    return checkpoint


def checkpoint_file(path: str | Path) -> Path:
    """Return the file that ``checkpoint=PATH`` names: itself, or the best of a run (:func:`located`).

    Raises:
        MetagenError: the folder is no run, or has no checkpoint, or is not to be had.
    """
    folder = located(path)
    return best_checkpoint(folder) if folder.is_dir() else Path(path)


def _saved_choices(run: Path) -> dict[str, str]:
    """Return group -> choice as Hydra saved them; a run of which they cannot be read has none."""
    with suppress(Exception):
        choices = read_yaml(run / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["choices"]
        return renamed.choices(
            {str(g): str(name) for g, name in choices.items() if name and "hydra" not in g}
        )
    return {}


def changed_keys(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
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
    return {str(key): value for key, value in renamed.config(saved_config(path)).items()}


def _fitting(overrides: Sequence[str], needed: Sequence[str] = ()) -> tuple[Composed, list[str]]:
    """Compose today's tree with as many of ``overrides`` as it takes, and say which; all of ``needed``."""

    def add(config: Composed | None, kept: list[str], rest: list[str]) -> tuple[Composed | None, list[str]]:
        try:
            return compose([*kept, *rest]), kept + rest
        except (HydraException, OmegaConfBaseException):
            if len(rest) > 1:
                half = len(rest) // 2
                return add(*add(config, kept, rest[:half]), rest[half:])
            if not set(rest).isdisjoint(needed):
                raise
            return config, kept

    # Groups first: they decide which keys there are.
    groups_first = sorted(overrides, key=lambda text: not _is_group(text.partition("=")[0]))
    config, kept = add(None, [], groups_first)
    return config or compose(), [text for text in overrides if text in kept]


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


def _settle(config: Config, start: bool) -> dict[str, tuple[Any, Any]]:
    """Put this machine's paths in the place of those that are not here, and return key -> (saved, now)."""
    moved: dict[str, tuple[Any, Any]] = {}
    for name in ("data", "test_data", "judge"):
        node = config.get(name)
        for key, here in (("root", DATA), ("cache", None)):
            path = node.get(key) if isinstance(node, dict) else None
            if isinstance(path, str) and "${" not in path and not expanded(path).exists():
                assert isinstance(node, dict)
                node[key] = here
                moved[f"{name}.{key}"] = (path, here or "the default")
    path = OmegaConf.select(OmegaConf.create(config), "checkpoint")
    if start and isinstance(path, str) and not located(path).exists():
        raise MetagenError(
            f"checkpoint={path} is not on this machine: say where it is, as checkpoint=RUN or FILE"
        )
    return moved


def run_overrides(run: str | Path) -> list[str]:
    """Return the overrides by which a run was made.

    Raises:
        MetagenError: the folder is no run's.
    """
    folder = located(run)
    overrides = folder / ".hydra" / "overrides.yaml"
    if not folder.is_dir():
        raise MetagenError(f"no folder {folder}: name a run's folder, such as outputs/DATE/TIME")
    if not overrides.is_file():
        raise MetagenError(f"{folder} is no run's folder: it has no .hydra/overrides.yaml")
    return overrides_in(overrides)
