"""Composition in half the time: Hydra reads each file of ``conf`` and of its own once for all compositions.

The suite composes thousands of configurations. Files elsewhere, such as a user's, are read anew each time,
and the processes that tests start have Hydra as it is. ``config/test_quick_composition.py`` compares the two.
"""

import copy
from contextlib import contextmanager

import pytest
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType

from metagen.config.tree import conf_dir

_KEPT = (str(conf_dir()), "hydra.conf")
_AS_IT_IS = ConfigRepository.load_config, ConfigLoaderImpl._embed_result_config
_MAP_AS_IT_IS = defaults_list._create_interpolation_map
_read = {}


def _load_config(repository, config_path):
    source = repository._find_object_source(config_path, ObjectType.CONFIG)
    if source is None or source.path not in _KEPT:
        return _AS_IT_IS[0](repository, config_path)
    key = source.path, config_path
    if key not in _read:
        _read[key] = _AS_IT_IS[0](repository, config_path)
    return copy.copy(_read[key])


def _embedded(found, package):
    """Leave what was read as it is: what has no package becomes part of the configuration, uncopied."""
    if not (found.header["package"] if package is None else package):
        found = copy.copy(found)
        found.config = copy.deepcopy(found.config)
    return _AS_IT_IS[1](found, package)


def _interpolation_map(overrides, defaults, self_added):
    """What interpolations among the defaults may refer to, for lists in which there are some."""
    if any(not one.is_self() and one.is_interpolation() for one in defaults):
        return _MAP_AS_IT_IS(overrides, defaults, self_added)
    return None


def install():
    ConfigRepository.load_config = _load_config
    ConfigLoaderImpl._embed_result_config = staticmethod(_embedded)
    defaults_list._create_interpolation_map = _interpolation_map


@contextmanager
def hydra_as_it_is():
    """Compose as Hydra does by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigRepository, "load_config", _AS_IT_IS[0])
        patch.setattr(ConfigLoaderImpl, "_embed_result_config", staticmethod(_AS_IT_IS[1]))
        patch.setattr(defaults_list, "_create_interpolation_map", _MAP_AS_IT_IS)
        yield
