"""Overrides: which of two counts, and which of them act on a run's own configuration."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from metagen.config import renamed
from metagen.config.interpolations import check_interpolations
from metagen.config.tree import conf_dir
from metagen.console import printable
from metagen.errors import UsageError, nearest

log = logging.getLogger(__name__)


EXAMPLES = {"overrides": "['experiment=quickstart']", "by": "['learner']", "metrics": "['recognised']"}
"""What a list of texts may look like, by the name of an argument."""


def texts(name: str, given: Any) -> list[str]:
    """Return a list of texts that was given in Python, such as overrides; one text is no list.

    Args:
        name: of the argument.
        given: what came.

    Raises:
        UsageError: it is no list, or something in it is no text.
    """
    example = f", as in {EXAMPLES[name]}" if name in EXAMPLES else ""
    expected = f"{name}: expected a list of texts{example}, not"
    if isinstance(given, str):
        raise UsageError(f"{expected} the text '{printable(given)}': put brackets around it")
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise UsageError(f"{expected} {'None' if given is None else type(given).__name__}")
    items = list(given)
    for item in items:
        if not isinstance(item, str):
            raise UsageError(f"{expected} one that holds {item!r:.80}: write it as a text")
    return items


def key_of(override: str) -> str:
    """Return the key (or group, with its package) of an override, without ``+`` and ``~``."""
    return override.lstrip("+~").partition("=")[0]


def group_of(override: str) -> str:
    """Return the key of an override without its package: ``data`` for ``data@test_data=mnist``."""
    return key_of(override).partition("@")[0]


def by_key(overrides: Sequence[str]) -> dict[str, str]:
    """Return ``KEY=VALUE`` words by key, the last one of each."""
    return {key_of(str(text)): str(text).partition("=")[2] for text in overrides}


def of_hydra(override: str) -> bool:
    """Return whether an override sets something of Hydra itself."""
    return key_of(override).startswith(("hydra.", "hydra/"))


def check_of_hydra(overrides: Sequence[str]) -> None:
    """Refuse overrides of Hydra's own node that Hydra would keep and nobody would read.

    Raises:
        UsageError: a key is none of Hydra's.
    """
    for word in overrides:
        if not key_of(word).startswith("hydra."):
            continue
        node: Any = OmegaConf.structured(HydraConf)
        for part in key_of(word).split(".")[1:]:
            if not (OmegaConf.is_dict(node) and is_dataclass(OmegaConf.get_type(node))):
                break  # any key goes
            if part not in list(node.keys()):  # ``in`` does not find what has no value yet
                raise UsageError(f"{printable(word)}: {nearest_key(part, node)}")
            node = node._get_node(part)


def nearest_key(word: str, keys: Iterable[Any]) -> str:
    """Return that ``word`` is no key, and the one that may be meant."""
    names = [str(key) for key in keys]
    return f"Hydra has no key '{printable(word)}'{nearest(word, names)} (known: {', '.join(names)})"


def quoted(text: str) -> str:
    """Return ``text`` as a value in an override, whatever is in it."""
    return QuotedString(text, Quote.single).with_quotes()


def merged(saved: Sequence[str], new: Sequence[str]) -> list[str]:
    """Return the saved overrides and the new ones; of two for the same key the new one counts."""
    replaced = {key_of(override) for override in new}
    return [override for override in saved if key_of(override) not in replaced] + list(new)


def own_overrides(overrides: Sequence[str], source: object) -> list[str]:
    """Return those of a run's saved overrides that act on its own configuration, in today's names.

    Hydra saves no others: an option of the command line, an override of Hydra itself (which can name a
    function to call) or a choice outside of ``conf`` was written by hand, and is left out with a warning.

    Raises:
        MetagenError: one of the others asks for a variable of the environment, or makes a node of a text.
    """
    left_out = [text for text in overrides if foreign(text)]
    for text in left_out:
        log.warning("%s: '%s' is no override of a run and is left out", source, printable(text))
    kept = renamed.overrides([text for text in overrides if text not in left_out])
    check_interpolations(kept, source)
    return kept


def foreign(text: str) -> bool:
    """Return whether an override reaches beyond a run's own configuration, or is none."""
    try:
        one = OverridesParser.create().parse_override(text)
    except HydraException:
        return True
    places = (one.key_or_group, one.package or "")
    if any(place.startswith(("hydra", "_global_.hydra")) for place in places):
        return True
    if not (conf_dir() / one.key_or_group).is_dir():
        return False
    value = one.value()
    value = value.list if isinstance(value, ChoiceSweep) else value
    choices = [str(choice) for choice in (value if isinstance(value, list) else [value])]
    return any(choice.startswith(("/", "~")) or ".." in choice for choice in choices)
