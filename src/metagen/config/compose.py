"""Composition: from overrides to a configuration, by Hydra. The one place that knows Hydra's global state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import hydra
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from metagen.config.overrides import key_of, quoted
from metagen.config.tree import conf_dir
from metagen.errors import MetagenError, UsageError
from metagen.files import expanded

Config = dict[str, Any]
"""A configuration of plain values."""


class Composed(NamedTuple):
    """What Hydra composed.

    config:  interpolations kept.
    whole:   the same with Hydra's own node ``hydra``.
    choices: group -> choice, Hydra's own groups left out.
    """

    config: Config
    whole: DictConfig
    choices: dict[str, str]

    @property
    def multirun(self) -> bool:
        """Whether the overrides ask for a sweep."""
        return "MULTIRUN" in str(self.whole.hydra.mode)

    def folder(self) -> Path:
        """Return the folder that a single run of it is to have, absolute; each call may name another one."""
        with _known(self.whole):
            return named_folder(self.whole, "run").absolute()


def named_folder(whole: DictConfig, kind: Literal["run", "sweep"]) -> Path:
    """Return the folder that Hydra's configuration names for a run or a sweep.

    Raises:
        UsageError: an empty name, as of a variable of the shell that is not set: it would be this folder.
    """
    name = whole.hydra[kind].dir
    if name is None or not str(name).strip():
        raise UsageError(
            f"hydra.{kind}.dir={'null' if name is None else ''} names no folder: name one, or leave it out"
        )
    return expanded(str(name))


def compose(
    overrides: Sequence[str] = (), config_dir: str | Path | None = None, config_name: str = "config"
) -> Composed:
    """Return what today's tree composes.

    Args:
        overrides: as on the command line.
        config_dir: a folder with configurations of the user's own, searched after ``conf``.
        config_name: of the primary configuration.

    Raises:
        MetagenError: ``config_dir`` is no folder.
        HydraException, OmegaConfBaseException: the overrides cannot be read or composed.
    """
    place = []
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise MetagenError(f"--config-dir {config_dir}: no such folder; name one with configurations")
        place = [f"hydra.searchpath=[{quoted('file://' + str(Path(config_dir).absolute()))}]"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        whole = hydra.compose(config_name, [*place, *overrides], return_hydra_config=True)
    check_choices(overrides, whole)
    config = OmegaConf.to_container(whole)
    assert isinstance(config, dict)
    hydra_node = config.pop("hydra")
    choices = {str(group): choice for group, choice in hydra_node["runtime"]["choices"].items()}
    chosen = {group: choice for group, choice in choices.items() if "hydra" not in group}
    return Composed({str(key): value for key, value in config.items()}, whole, chosen)


def check_choices(overrides: Sequence[str], whole: DictConfig) -> None:
    """Refuse a choice that there is not of a group that may do without one, which Hydra would drop.

    Raises:
        HydraException: there is one.
    """
    runtime = whole.hydra.runtime
    if any(source.schema == "pkg" and source.path != "hydra.conf" for source in runtime.config_sources):
        return  # a package of the user's may have the choice
    places = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    for key in map(key_of, overrides):
        name, group = runtime.choices.get(key), key.partition("@")[0]
        if not isinstance(name, str) or group.startswith("hydra/"):
            continue
        if not any((place / group / f"{name}{end}").exists() for place in places for end in (".yaml", "")):
            raise ConfigCompositionException(f"Could not find '{group}/{name}'")


def resolved(config: Mapping[str, Any], whole: DictConfig | None = None) -> Config:
    """Return a configuration with its interpolations replaced by what they stand for.

    Args:
        config: interpolations kept.
        whole: what ``${hydra:...}`` in it refers to.

    Raises:
        MetagenError: a value is missing.
        OmegaConfBaseException: an interpolation names what is not there.
    """
    with _known(whole):
        plain = OmegaConf.to_container(OmegaConf.create(dict(config)), resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def plain(config: Mapping[str, Any]) -> Config:
    """Return a configuration as plain resolved values, whether it is OmegaConf's or plain already."""
    if OmegaConf.is_config(config):
        return resolved({str(key): value for key, value in OmegaConf.to_container(config).items()})  # type: ignore[union-attr]
    return dict(config)


def select(whole: DictConfig, key: str) -> Any:
    """Return a value of Hydra's configuration, such as ``hydra.sweep.subdir``, resolved."""
    with _known(whole):
        return OmegaConf.select(whole, key)


def job_folder() -> Path:
    """Return the folder of the job that Hydra is running in this process."""
    return Path(HydraConfig.get().runtime.output_dir)


def with_output_dir(whole: DictConfig, folder: Path) -> DictConfig:
    """Return Hydra's configuration with the folder of the run in it, as its logging expects."""
    copy = whole.copy()
    with read_write(copy), open_dict(copy):
        copy.hydra.runtime.output_dir = str(folder)
    return copy


@contextmanager
def _known(whole: DictConfig | None) -> Iterator[None]:
    """Let ``${hydra:...}`` be resolved, for a while."""
    before = HydraConfig.instance().cfg
    try:
        if whole is not None:
            HydraConfig.instance().cfg = whole  # type: ignore[assignment]
        yield
    finally:
        HydraConfig.instance().cfg = before
