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
_OWNERS = {
    "load_config": ConfigRepository,
    "_embed_result_config": ConfigLoaderImpl,
    "_create_interpolation_map": defaults_list,
    "create_defaults_list": config_loader_impl,
    "_compose_config_from_defaults_list": ConfigLoaderImpl,
}
"""What is replaced of Hydra, by name."""
_AS_IT_IS = {name: vars(owner)[name] for name, owner in _OWNERS.items()}
_read, _lists, _merged = {}, {}, {}


def _load_config(repository, config_path):
    source = repository._find_object_source(config_path, ObjectType.CONFIG)
    if source is None or source.path not in _KEPT:
        return _AS_IT_IS["load_config"](repository, config_path)
    key = source.path, config_path
    if key not in _read:
        _read[key] = _AS_IT_IS["load_config"](repository, config_path)
    return copy.copy(_read[key])


def _embedded(found, package):
    """Leave what was read as it is: what has no package becomes part of the configuration, uncopied."""
    if not (found.header["package"] if package is None else package):
        found = copy.copy(found)
        found.config = copy.deepcopy(found.config)
    return _AS_IT_IS["_embed_result_config"](found, package)


def _interpolation_map(overrides, defaults, self_added):
    """What interpolations among the defaults may refer to, for lists in which there are some."""
    if any(not one.is_self() and one.is_interpolation() for one in defaults):
        return _AS_IT_IS["_create_interpolation_map"](overrides, defaults, self_added)
    return None


def _defaults_list(repo, config_name, overrides_list, prepend_hydra, skip_missing):
    """The files to merge: values on the command line do not change which they are."""
    as_it_is = _AS_IT_IS["create_defaults_list"]
    if not _only_kept(repo):
        return as_it_is(repo, config_name, overrides_list, prepend_hydra, skip_missing)
    given = [one for one in overrides_list if not one.is_sweep_override()]
    chosen = [repo.group_exists(one.key_or_group) and not isinstance(one.value(), dict) for one in given]
    choices = [one for one, is_choice in zip(given, chosen, strict=True) if is_choice]
    key = config_name, prepend_hydra, skip_missing, *(one.input_line for one in choices)
    if key not in _lists:
        _lists[key] = as_it_is(repo, config_name, choices, prepend_hydra, skip_missing)
    found = copy.copy(_lists[key])
    found.config_overrides = [one for one, is_choice in zip(given, chosen, strict=True) if not is_choice]
    return found


def _merged_from(loader, defaults, repo):
    """The configuration that these files make, of which each caller gets a copy."""
    if not _only_kept(repo):
        return _AS_IT_IS["_compose_config_from_defaults_list"](loader, defaults, repo)
    key = tuple((one.config_path, one.package, one.is_self, one.primary) for one in defaults)
    if key not in _merged:
        while len(_merged) >= _MOST:
            del _merged[next(iter(_merged))]
        _merged[key] = _AS_IT_IS["_compose_config_from_defaults_list"](loader, defaults, repo)
    return copy.deepcopy(_merged[key])


def _only_kept(repo):
    return all(source.path in _KEPT or source.scheme() == "structured" for source in repo.get_sources())


_QUICK = {
    "load_config": _load_config,
    "_embed_result_config": staticmethod(_embedded),
    "_create_interpolation_map": _interpolation_map,
    "create_defaults_list": _defaults_list,
    "_compose_config_from_defaults_list": _merged_from,
}


def install():
    for name, quick in _QUICK.items():
        setattr(_OWNERS[name], name, quick)


@contextmanager
def hydra_as_it_is():
    """Compose as Hydra does by itself."""
    with pytest.MonkeyPatch.context() as patch:
        for name, own in _AS_IT_IS.items():
            patch.setattr(_OWNERS[name], name, own)
        yield
