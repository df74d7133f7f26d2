"""The values that the inner steps move: parameters themselves, or low-rank adapters of the layers."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from torch import nn

from metagen.core.episode import Params
from metagen.core.learner import State
from metagen.core.objective import Objective
from metagen.errors import MetagenError


class Adapts(nn.Module):
    """Coordinates z of the parameters that move: phi = write(z, phi_0), by names.

    Attributes:
        names: of the coordinates.
        fixed: names of the parameters of theta that are read but do not move themselves.
    """

    names: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    direct: bool = True
    """Whether the coordinates are parameters of the model."""

    def bind(self, objective: Objective) -> Params:
        """Find what moves in this model and return it, with one row of each per-class table.

        Raises:
            MetagenError: there is nothing of the kind.
        """
        raise NotImplementedError

    def init(self, phi: Params) -> Params:
        """Return z_0, where the start is ``phi``."""
        return {n: phi[n] for n in self.names}

    def write(self, z: Params, phi: Params) -> Params:
        """Return the parameters that z stands for, where the start was ``phi``."""
        return z

    def keep(self, z: Params, phi: Params) -> dict[str, Params]:
        """Return what the state must remember of z and of the start beside its parameters: slots."""
        return {}

    def read(self, state: State) -> tuple[Params, Params]:
        """Return z, and the entries of the start ``phi`` that :meth:`write` needs."""
        return {n: state.params[n] for n in self.names}, {}


class Named(Adapts):
    """The parameters themselves, chosen by name: z = phi.

    Args:
        patterns: ``"all"``, ``"head"`` (the model says which), ``"tables"`` (those with one row per
            class), or glob patterns. What only the model's encoder reads never moves.
    """

    def __init__(self, patterns: str | Sequence[str] = "all") -> None:
        super().__init__()
        if isinstance(patterns, str) and patterns not in ("all", "head", "tables"):
            raise MetagenError(
                f"learner.adapts={patterns}: expected 'all', 'head', 'tables' or a list of patterns"
            )
        self.patterns = patterns if isinstance(patterns, str) else tuple(patterns)

    def bind(self, objective: Objective) -> Params:
        """Find the parameters with these names."""
        model, params = objective.model, objective.params()
        named = {"all": ("*",), "head": model.head, "tables": model.per_class}
        wanted = named[self.patterns] if isinstance(self.patterns, str) else self.patterns
        encoder = matching(params, model.encoder)
        self.names = tuple(n for n in matching(params, wanted) if n not in encoder)
        if not self.names:
            raise MetagenError(
                f"the learner adapts {list(wanted)} but {type(model).__name__} has no such parameters: "
                f"use learner.adapts=all, or a model that has them, such as model=vae"
            )
        self.fixed = tuple(n for n in params if n not in self.names and n not in encoder)
        # A per-class table has one row of rates, whatever the number of ways.
        return {n: params[n][:1] if n in model.per_class else params[n] for n in self.names}


def matching(params: Mapping[str, Any], patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the names in ``params`` that fit one of the glob patterns."""
    return tuple(n for n in params if any(fnmatch(n, pattern) for pattern in patterns))
