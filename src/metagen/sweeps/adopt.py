"""The plan of a sweep to be finished, which a stranger may have sent: what of it may be run."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from metagen.config.foreign import is_setting
from metagen.config.overrides import own_overrides
from metagen.config.tree import conf_dir
from metagen.console import printable
from metagen.reading import check_writable
from metagen.sweeps.plan import Sweep

log = logging.getLogger(__name__)

HARMLESS = ("hydra.verbose", "hydra.mode", "hydra.sweep.dir", "hydra.sweep.subdir")
"""Of these, the sweep's folders are those of its jobs, whatever is said here."""


def adopted(root: Path) -> Sweep:
    """Return the plan in ``root`` without what could run a stranger's code, with a warning for each.

    Overrides count that a single run could have saved, of Hydra's own the choice of a launcher and of a
    sweeper with plain settings, of flags ``--config-dir``, and of studies the one in ``root``.

    Raises:
        MetagenError: there is no plan, it cannot be read, or ``root`` links to places outside of it.
    """
    plan, source = Sweep.load(root), root / "jobs.json"
    check_writable(root)
    jobs = [replace(job, overrides=own_overrides(job.overrides, source)) for job in plan.jobs]
    return replace(
        plan,
        arguments=own_overrides(plan.arguments, source),
        hydra=_harmless(plan.hydra, source),
        flags=_known_flags(plan.flags, source),
        jobs=jobs,
        study=plan.study and storage(root),
    )


def storage(root: Path) -> str:
    """Return the address of the study in a sweep's folder."""
    return f"sqlite:///{root.absolute() / 'study.db'}"


def _harmless(overrides: Sequence[str], source: Path) -> list[str]:
    kept = [text for text in overrides if _is_harmless(text)]
    for text in overrides:
        if text not in kept:
            log.warning(
                "%s: '%s' can run code and is left out; if it is yours, give it again",
                source,
                printable(text),
            )
    return kept


def _is_harmless(text: str) -> bool:
    try:
        one = OverridesParser.create().parse_override(text)
    except HydraException:
        return False
    key, value = one.key_or_group, one.value()
    if one.is_sweep_override() or one.package or "${" in text:
        return False
    if key in ("hydra/launcher", "hydra/sweeper"):
        return (conf_dir() / key / f"{value}.yaml").is_file() and str(value).isidentifier()
    if isinstance(value, dict):
        return False
    return key in HARMLESS or is_setting(key, value)


def _known_flags(flags: Sequence[str], source: Path) -> list[str]:
    if len(flags) == 2 and flags[0] == "--config-dir":
        return list(flags)
    if flags:
        log.warning("%s: the options %s are left out", source, printable(" ".join(flags)))
    return []
