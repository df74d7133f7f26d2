"""Composition in a fourth of the time: Hydra reads and merges each set of choices of ``conf`` once.

The suite composes thousands of configurations, most of which differ in values alone. Files elsewhere, such as
a user's, are read anew each time, and the processes that tests start have Hydra as it is.
``config/test_quick_composition.py`` compares the two.
"""

import copy
from contextlib import contextmanager

import pytest
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType

from metagen.config.tree import conf_dir

_KEPT = (str(conf_dir()), "hydra.conf")
_MOST = 100
"""Merged configurations that are kept, of half a megabyte each."""
_AS_IT_IS = ConfigRepository.load_config, ConfigLoaderImpl._embed_result_config
_MAP_AS_IT_IS = defaults_list._create_interpolation_map
_LIST_AS_IT_IS = config_loader_impl.create_defaults_list
_MERGED_AS_IT_IS = ConfigLoaderImpl._compose_config_from_defaults_list
_read, _lists, _merged = {}, {}, {}


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


def _defaults_list(repo, config_name, overrides_list, prepend_hydra, skip_missing):
    """The files to merge: values on the command line do not change which they are."""
    if not _only_kept(repo):
        return _LIST_AS_IT_IS(repo, config_name, overrides_list, prepend_hydra, skip_missing)
    given = [one for one in overrides_list if not one.is_sweep_override()]
    chosen = [repo.group_exists(one.key_or_group) and not isinstance(one.value(), dict) for one in given]
    choices = [one for one, is_choice in zip(given, chosen, strict=True) if is_choice]
    key = config_name, prepend_hydra, skip_missing, *(one.input_line for one in choices)
    if key not in _lists:
        _lists[key] = _LIST_AS_IT_IS(repo, config_name, choices, prepend_hydra, skip_missing)
    found = copy.copy(_lists[key])
    found.config_overrides = [one for one, is_choice in zip(given, chosen, strict=True) if not is_choice]
    return found


def _merged_from(loader, defaults, repo):
    if not _only_kept(repo):
        return _MERGED_AS_IT_IS(loader, defaults, repo)
    key = tuple((one.config_path, one.package, one.is_self, one.primary) for one in defaults)
    if key not in _merged:
        while len(_merged) >= _MOST:
            del _merged[next(iter(_merged))]
        _merged[key] = _MERGED_AS_IT_IS(loader, defaults, repo)
    return copy.deepcopy(_merged[key])


def _only_kept(repo):
    return all(source.path in _KEPT or source.scheme() == "structured" for source in repo.get_sources())


def install():
    _put(_load_config, staticmethod(_embedded), _interpolation_map, _defaults_list, _merged_from)


def _put(load, embed, interpolation_map, listed, merged, put=setattr):
    put(ConfigRepository, "load_config", load)
    put(ConfigLoaderImpl, "_embed_result_config", embed)
    put(defaults_list, "_create_interpolation_map", interpolation_map)
    put(config_loader_impl, "create_defaults_list", listed)
    put(ConfigLoaderImpl, "_compose_config_from_defaults_list", merged)


@contextmanager
def hydra_as_it_is():
    """Compose as Hydra does by itself."""
    with pytest.MonkeyPatch.context() as patch:
        _put(
            _AS_IT_IS[0], staticmethod(_AS_IT_IS[1]), _MAP_AS_IT_IS, _LIST_AS_IT_IS, _MERGED_AS_IT_IS,
            put=patch.setattr,
        )  # fmt: skip
        yield
