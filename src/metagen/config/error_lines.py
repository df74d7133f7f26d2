"""Turn the errors of Hydra, OmegaConf and the system into one line that says what to do."""

import errno
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from metagen.errors import MetagenError, nearest


class Line(NamedTuple):
    """What to print and the exit code."""

    text: str
    code: int


def explain(error: BaseException, words: Sequence[str] | None = None) -> Line | None:
    """Return the line for ``error``, or None where it is a fault of ours and its trace is needed.

    Args:
        error: what was raised.
        words: the overrides that led to it; None takes those of the command line.
    """
    words = sys.argv[1:] if words is None else words
    for cause in _causes(error):
        if isinstance(cause, MetagenError):
            return Line(str(cause), cause.code)
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return Line("the disk is full: free some space and run again; finished files are intact", 1)
        if isinstance(cause, OSError) and cause.errno and cause.filename:
            return Line(f"{cause.filename}: {cause.strerror}; name another file or folder", 1)
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for cause in _causes(error):
        if isinstance(cause, YAMLError):
            return Line(_yaml_error(cause), 2)
        if isinstance(cause, ValueError) and "Config group override must be a string" in str(cause):
            return Line(_no_choice(words), 2)
    ours = [c for c in _causes(error) if isinstance(c, HydraException | OmegaConfBaseException)]
    return Line(_config_error(ours, words), 2) if ours else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _yaml_error(error: Any) -> str:
    """Say in which line of which file the YAML ends to be one."""
    mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
    place = f"{mark.name}, line {mark.line + 1}: " if mark else ""
    return f"{place}no YAML: {what}"


def _no_choice(words: Sequence[str]) -> str:
    """Name the overrides that give a group something else than the name of a choice."""
    from metagen.config.tree import conf_dir

    pairs = [word.partition("=") for word in words if "=" in word]
    wrong = [
        f"{group}={value}"
        for group, _, value in pairs
        if (conf_dir() / group.partition("@")[0]).is_dir()
        and not (conf_dir() / group.partition("@")[0] / f"{value}.yaml").is_file()
    ]
    return (
        f"{' '.join(wrong) or 'an override'}: expected the name of a choice (metagen train --help lists them)"
    )


def _config_error(errors: list[Any], words: Sequence[str]) -> str:
    for error in errors:
        if override := getattr(error, "override", None):
            return f"cannot read '{override}': expected key=value{_in_quotes(override)}"
    text = " ".join(str(error) for error in errors)
    if match := re.search(r"Ambiguous value for argument '(.+?)'(?:\s|$)", text):
        key, _, values = match[1].partition("=")
        return (
            f"{match[1]} names several values: metagen train -m makes a run of each; one list is written as "
            f"{key}=[{values}]"
        )
    if match := re.search(r"Could not (?:find|load) '([^']+)'", text):
        group, _, choice = match[1].rpartition("/")
        options = re.search(r"Available options in '[^']*':\s*(.*?)(?:\n\S|Config search path|$)", text, re.S)
        names = options[1].split() if options else _choices(group)  # none are listed for one of a list
        listed = f" (choices: {', '.join(names)})" if names else ""
        return f"{group or 'config'} has no choice '{choice}'{nearest(choice, names)}{listed}"
    if match := re.search(r"An item is already at '([^']+)'", text):
        return f"{match[1]} has a value already: leave the + before it out"
    if match := re.search(r"Multiple values for (\S+?)\. To override", text):
        return f"{match[1]} has a choice already: leave the + before it out"
    if match := re.search(r"Could not delete '([^']+)'", text):
        return (
            f"~{match[1]}: there is nothing of that name to leave out; a list is left out by {match[1]}=null"
        )
    if match := re.search(r"Interpolation key '([^']+)' not found", text):
        return f"{match[1]} is not found, and a value is made of it: correct its name, or leave no node out"
    if match := re.search(r"Error merging override (\S+)=(\S*)", text):
        return f"{match[1]}={match[2]}: Hydra takes no such value there; see metagen train --cfg hydra"
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match[1], words)
    if match := re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", text):
        return _unknown_key(match[2], words)
    if match := re.search(r"Missing mandatory value: (\S+)(?:\s+full_key: (\S+))?", text):
        key = match[2] or match[1]
        return f"{key} has no value: give it as {key}=VALUE"
    return str(errors[0]).strip().split("\n")[0]


def _in_quotes(override: str) -> str:
    """Say how the value of an override is quoted, for Hydra and for the shell."""
    from hydra.core.override_parser.types import Quote, QuotedString

    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[+~]{0,2}[\w./@]+", key):
        return ""
    double = QuotedString(value, Quote.double).with_quotes()
    return f"; quote a value with such characters: {shlex.quote(f'{key}={double}')}"


def _choices(group: str) -> list[str]:
    from metagen.config.tree import conf_dir

    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml")) if group else []


def _unknown_key(key: str, words: Sequence[str]) -> str:
    """Name the known key that is closest to an unknown one, or what its name is now."""
    from metagen.config.renamed import KEYS

    if key in KEYS:
        return f"no key '{key}': it is {KEYS[key]} now, see metagen train --help"
    if text := _lacking(key, words):
        return text
    default = _default_config(words, of_hydra=True)
    groups = [group for group in _groups(default) if group != key]
    if "@" in key or "/" in key:
        return f"no group '{key}'{nearest(key, groups) or '; see metagen train --help'}"
    if not key.startswith("hydra."):
        del default["hydra"]
    every = list(_keys(default))
    if text := _not_chosen(key, every):
        return text
    known = [k for k in every if k != key and not k.rpartition(".")[2].startswith("_")]
    known += [] if "." in key else [group for group in groups if re.fullmatch(r"\w+", group)]
    leaf = key.rpartition(".")[2]
    same_parent = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
    hint = nearest(key, same_parent) or nearest(key, known) or nearest(leaf, known)
    return f"no key '{key}'{hint or '; see metagen train --help'}"


def _not_chosen(key: str, known: Sequence[str]) -> str | None:
    """Name the callback or logger that must be chosen before its keys are set."""
    group, choice, *_ = [*key.split("."), ""]
    if group not in ("callbacks", "logger") or any(k.startswith(f"{group}.{choice}.") for k in known):
        return None
    choices = _choices(group)
    if choice in choices:
        return f"no key '{key}': choose {group}={choice} first, or a list with it, as in {group}=[{choice}]"
    return f"no key '{key}'{nearest(choice, choices) or f' ({group}: ' + ', '.join(choices) + ')'}"


def _groups(config: Mapping[str, Any]) -> list[str]:
    """Return the groups of choices, with their packages where they have one."""
    choices = config["hydra"]["runtime"]["choices"]
    return [str(group) for group in choices if "_global_" not in str(group) and "." not in str(group)]


def _lacking(key: str, words: Sequence[str]) -> str | None:
    """Name the choices of a sweep that do not have a key, where others of it do."""
    group = key.partition(".")[0]
    names = next((word.partition("=")[2] for word in words if re.fullmatch(rf"{group}=\w+(,\w+)+", word)), "")
    if not names:
        return None
    without = [
        name for name in names.split(",") if key not in _keys(_default_config([*words, f"{group}={name}"]))
    ]
    if len(without) == len(names.split(",")):
        return None
    return (
        f"no key '{key}' with {group}={','.join(without)}, which the others have: sweep "
        f"{group}={','.join(without)} by itself, without it"
    )


def _default_config(words: Sequence[str], of_hydra: bool = False) -> Any:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from metagen.config.tree import conf_dir

    # Choices of groups decide which keys there are, so those that the user made take part.
    chosen = [word for word in words if re.fullmatch(r"[\w/@]+=[\w/]+", word)]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        try:
            cfg = compose("config", chosen, return_hydra_config=of_hydra)
        except HydraException:
            cfg = compose("config", return_hydra_config=of_hydra)
    return OmegaConf.to_container(cfg, resolve=False)


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            path = f"{prefix}.{key}" if prefix else str(key)
            yield path
            yield from _keys(value, path)
