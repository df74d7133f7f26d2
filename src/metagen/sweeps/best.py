"""Overrides as an experiment file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metagen.config.tuned import layers
from metagen.files import write_text


def write_experiment(path: Path, overrides: Sequence[str], loader: ConfigLoader, comment: str) -> None:
    """Write ``overrides`` as an experiment file: choices of groups become its defaults, values its keys.

    What the experiment that it builds on sets for the learner, the model and the size is written down, too:
    by another name it would not be found. A size is given beside the experiment, which cannot choose it.
    """
    defaults: list[Any] = []
    values = _beside(overrides, loader)
    for one in OverridesParser.create().parse_overrides(list(overrides)):
        key = one.key_or_group
        if one.is_hydra_override():
            continue
        if key == "experiment":
            defaults = [f"/experiment/{one.value()}", *defaults, {"override /family": None}]
        elif key == "size":
            comment = f"{comment}; to be run with size={one.value()}"
        elif loader.get_group_options(key, ObjectType.GROUP) or loader.get_group_options(key):
            defaults.append({f"override /{key}{'@' + one.package if one.package else ''}": one.value()})
        else:
            OmegaConf.update(values, key, one.value(), force_add=True)
    head = OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults})) if defaults else ""
    text = head + ("\n" + OmegaConf.to_yaml(values) if values else "")
    write_text(path, f"# @package _global_\n# {comment}\n{text}")


def _beside(overrides: Sequence[str], loader: ConfigLoader) -> DictConfig:
    """Return what stands beside the experiment for the learner, the model and the size of ``overrides``."""
    node = loader.load_configuration("config", list(overrides), RunMode.RUN).hydra.runtime
    places = [source.path for source in node.config_sources if source.schema == "file"]
    merged = OmegaConf.merge(*layers(node.choices, places)) if node.choices.experiment else OmegaConf.create()
    assert isinstance(merged, DictConfig)
    return merged
