"""The check of configurations from a folder of their own, which a stranger may have made.

Such a configuration says what a run does. It does not say how Hydra works: which callbacks are called, to
which files is logged, which variables of the environment are set.
"""

import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metagen.config.flat import flatten
from metagen.config.interpolations import check_interpolations
from metagen.config.overrides import check_of_hydra, foreign, key_of
from metagen.config.tree import conf_dir
from metagen.console import printable
from metagen.errors import MetagenError, UsageError
from metagen.reading import NoYamlError, checked_yaml

FILES = 5_000
"""YAML files in a folder of configurations."""
OWN_CLASSES = re.compile(r"hydra_plugins\.metagen_sweeps\.\w+")
OPTUNA = re.compile(r"hydra\.sweeper\.(sampler|pruner)\._target_$")
"""What names a class of Optuna, which is checked again where it is made."""
SAID_BY_HYDRA = re.compile(
    r"hydra\.(runtime|overrides)\.|hydra\.(job\.(config_name|override_dirname|num|id)|mode|searchpath)$"
)
"""What Hydra itself writes down while it composes."""
PLAIN_LAUNCHER = re.compile(r"hydra\.(launcher|sweeper)\.")
COMMANDS = re.compile(r"\.(setup|additional_parameters|submitit_folder|srun_args|python|runtime_env)(\.|$)")
"""Keys of launchers that become commands or files."""
SPACE = "hydra.sweeper.params."
"""Of a search space: what follows and its value is an override."""
WORD = re.compile(r"[\w .,:@%+/\[\]'-]*")


def check_command_line(argv: Sequence[str]) -> None:
    """Compose what ``argv`` names and check it, before Hydra composes it and acts on it.

    Nothing is done where all configurations are metagen's own.

    Raises:
        UsageError: an option that would run what a file says, or a key of Hydra that there is not.
        MetagenError: a configuration from elsewhere asks for what it must not.
    """
    given = _parsed(argv)
    if given.rerun is not None:
        raise UsageError("--experimental-rerun runs whatever its file says: use metagen reproduce RUN")
    if given.path is not None:
        raise UsageError(
            "--config-path would replace metagen's configurations: add yours by --config-dir DIR"
        )
    check_of_hydra(given.overrides)
    for folder in _folders(given):
        if not folder.is_dir():
            raise MetagenError(f"no folder {folder}: name one with configurations")
        check_folder(folder)
    if given.dir is None and "searchpath" not in " ".join(argv):
        return
    composed = _compose(given, given.overrides)
    check_hydra(composed, _own(given), given.overrides)
    del composed["hydra"]
    check_interpolations(composed, "the configuration", argv)


def check_hydra(composed: Mapping[str, Any], own: Mapping[str, Any], words: Sequence[str]) -> None:
    """Refuse a foreign configuration that has changed more of Hydra's node than a few settings.

    Args:
        composed: what was composed, plain and unresolved.
        own: Hydra's node without foreign configurations.
        words: overrides of the command line.

    Raises:
        MetagenError: it names a callback, a file, a variable, a command, or overrides of its own.
    """
    node = composed["hydra"]
    for kind, listed in (node.get("overrides") or {}).items():
        for word in listed or ():
            if word not in words and not str(word).startswith("hydra.mode="):
                raise _beyond(f"hydra.overrides.{kind}", word)
    said = {key_of(word) for word in words}
    before = flatten(own, "hydra")
    for key, value in flatten(node, "hydra").items():
        if value == before.get(key) or SAID_BY_HYDRA.match(key):
            continue
        if not (is_setting(key, value, said) or (key == "hydra.run.dir" and _is_near(value, composed))):
            raise _beyond(key, value)


def check_job(config: Any, base: Any) -> None:
    """Refuse a sweep's job that changes Hydra's node of the sweep as a whole, but for its own folder.

    Args:
        config: of the job, composed.
        base: of the sweep, composed and checked.

    Raises:
        MetagenError: see :func:`check_hydra`.
    """
    plain, own = (OmegaConf.to_container(one, enum_to_str=True) for one in (config, base))
    assert isinstance(plain, dict)
    assert isinstance(own, dict)
    words = [word for listed in plain["hydra"]["overrides"].values() for word in listed or ()]
    check_hydra(
        {str(k): v for k, v in plain.items()}, own["hydra"] | {"sweep": plain["hydra"]["sweep"]}, words
    )


def check_folder(folder: Path) -> None:
    """Refuse a folder of configurations whose files cannot be read in a moment.

    Raises:
        MetagenError: one is a pipe, a device, too large, or grows when its aliases are written out.
    """
    count = 0
    for place, _, files in os.walk(folder):
        for name in files:
            if name.endswith((".yaml", ".yml")):
                count += 1
                _check_file(Path(place, name))
        if count > FILES:
            raise MetagenError(
                f"{folder} holds more than {FILES:,} YAML files: name a folder of configurations"
            )


def _check_file(path: Path) -> None:
    try:
        checked_yaml(path)
    except NoYamlError:
        return  # whoever chooses it is told then
    except OSError as error:
        raise MetagenError(f"{path} cannot be read ({error.strerror})") from error


def _parsed(argv: Sequence[str]) -> Namespace:
    parser = ArgumentParser(add_help=False, allow_abbrev=True)
    parser.add_argument("-cd", "--config-dir", dest="dir")
    parser.add_argument("-cn", "--config-name", dest="name")
    parser.add_argument("-cp", "--config-path", dest="path")
    parser.add_argument("--experimental-rerun", dest="rerun")
    parser.add_argument("-m", "--multirun", dest="many", action="store_true")
    parser.add_argument("-c", "--cfg")
    parser.add_argument("-p", "--package")
    parser.add_argument("overrides", nargs="*")
    return parser.parse_known_intermixed_args(list(argv))[0]


def _folders(given: Namespace) -> list[Path]:
    """Return the folders on this machine that are searched beside metagen's own."""
    named = [word for word in given.overrides if "searchpath" in word]
    places = [place for word in named for place in re.findall(r"file://([^\]'\",]+)", word)]
    return [Path(place) for place in ([given.dir] if given.dir else []) + places]


def _compose(given: Namespace, overrides: Sequence[str]) -> dict[str, Any]:
    """Compose as Hydra is about to do, and return the whole, plain and unresolved."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery

    path = create_config_search_path(str(conf_dir()))
    if given.dir is not None:
        place = SearchPathQuery(provider="schema")
        path.prepend("command-line", f"file://{os.path.abspath(given.dir)}", place)
    mode = RunMode.MULTIRUN if given.many else RunMode.RUN
    loader = ConfigLoaderImpl(config_search_path=path)
    config = loader.load_configuration(given.name or "config", list(overrides), run_mode=mode)
    plain = OmegaConf.to_container(config, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _own(given: Namespace) -> dict[str, Any]:
    """Return Hydra's node as this command line has it without foreign configurations."""
    words = [word for word in given.overrides if _of_hydra(word) and "searchpath" not in word]
    alone = Namespace(dir=None, name=None, many=given.many)
    try:
        return dict(_compose(alone, words)["hydra"])
    except (HydraException, OmegaConfBaseException):
        pass  # some are about what only the foreign configurations have
    node: dict[str, Any] = _compose(alone, [])["hydra"]
    kept: list[str] = []
    for word in words:
        try:
            node = _compose(alone, [*kept, word])["hydra"]
            kept.append(word)
        except (HydraException, OmegaConfBaseException):
            continue
    return node


def _of_hydra(word: str) -> bool:
    return word.lstrip("+~").startswith(("hydra.", "hydra/"))


def is_setting(key: str, value: Any, said: Collection[str] = ()) -> bool:
    """Return whether a key of a launcher or a sweeper has a value that is no command, file or override."""
    if not PLAIN_LAUNCHER.match(key):
        return False
    if any(key == one or key.startswith(f"{one}.") for one in said):
        return True
    if OPTUNA.match(key):
        return re.fullmatch(r"optuna\.(samplers|pruners)\.[A-Z]\w+", str(value)) is not None
    if key.endswith("._target_"):
        return OWN_CLASSES.fullmatch(str(value)) is not None
    if key.startswith(SPACE):
        return "${" not in str(value) and not foreign(f"{key.removeprefix(SPACE)}={value}")
    if COMMANDS.search(key):
        return value in ("None", "[]", "")
    return WORD.fullmatch(str(value)) is not None


def _is_near(value: Any, composed: Mapping[str, Any]) -> bool:
    """Return whether a run's folder lies below ``outputs``, whatever the values are that are put into it."""
    text = re.sub(r"\$\{(\w+)\}", lambda found: str(composed.get(found[1])), str(value))
    return text.startswith("outputs/") and ".." not in text and WORD.fullmatch(text) is not None


def _beyond(key: str, value: Any) -> MetagenError:
    return MetagenError(
        f"a configuration sets {printable(key)} to {printable(str(value))[:80]}: how Hydra works is for the "
        "command line to say; take it out of the file"
    )
