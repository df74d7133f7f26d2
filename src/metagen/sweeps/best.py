"""Overrides as an experiment file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from metagen.files import write_text


def write_experiment(path: Path, overrides: Sequence[str], loader: ConfigLoader, comment: str) -> None:
    """Write ``overrides`` as an experiment file: choices of groups become its defaults, values its keys."""
    defaults: list[Any] = []
    values = OmegaConf.create()
    for one in OverridesParser.create().parse_overrides(list(overrides)):
        key = one.key_or_group
        if one.is_hydra_override():
            continue
        if key == "experiment":
            defaults.insert(0, f"/experiment/{one.value()}")
        elif loader.get_group_options(key, ObjectType.GROUP) or loader.get_group_options(key):
            defaults.append({f"override /{key}{'@' + one.package if one.package else ''}": one.value()})
        else:
            OmegaConf.update(values, key, one.value(), force_add=True)
    head = OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults})) if defaults else ""
    text = head + ("\n" + OmegaConf.to_yaml(values) if values else "")
    write_text(path, f"# @package _global_\n# {comment}\n{text}")
