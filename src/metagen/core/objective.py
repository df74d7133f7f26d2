"""A model as a pure function of its parameters."""

from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from metagen.core.episode import Episode, Params, Shots
from metagen.core.model import completed
from metagen.errors import MetagenError
from metagen.functional.autocast import FULL, LowPrecision, widened
from metagen.functional.vectorize import tree_map


class _Method(nn.Module):
    """Lets ``functional_call`` reach every method of a model, not only ``forward``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, method: str, *args: Any) -> Any:
        return getattr(self.model, method)(*args)


class Objective:
    """L(params; shots): the loss of ``model`` where it is a function of its parameters.

    ``params`` may hold any part of the model's parameters and buffers; the rest is the model's
    own. Tables with one row per class (``model.per_class``) may have any number of rows.

    Args:
        model: gives the loss; any module with a ``loss(shots)``, see :func:`metagen.core.model.completed`.
        precision: in which the model runs; its results are float32 in any case.
    """

    def __init__(self, model: nn.Module, precision: LowPrecision = FULL) -> None:
        self.precision = precision
        self.model = completed(model)
        self._method = _Method(model)

    def params(self) -> Params:
        """Return the model's own parameters by name (no copies)."""
        return dict(self.model.named_parameters())

    def call(self, method: str, params: Params, *args: Any) -> Any:
        """Return ``model.method(*args)`` with ``params`` in place of the model's own."""
        with self.precision.adaptation():
            return self._run(method, params, *args)

    def _run(self, method: str, params: Params, *args: Any) -> Any:
        swapped = {f"model.{name}": value for name, value in params.items()}
        out = functional_call(self._method, swapped, (method, *args))
        return out if self.precision.dtype is None else tree_map(widened, out)

    def loss(self, params: Params, shots: Shots) -> Tensor:
        """Return the mean loss over the images of ``shots``, a scalar."""
        return self.call("loss", params, shots)

    def query_loss(self, params: Params, episode: Episode) -> Tensor:
        """Return the mean loss over the query images, normalised as the model's ``transductive`` says."""
        with self.precision.query():
            if self.model.batch_statistics and not self.model.transductive:
                return self._run("loss", params, episode.query, episode.support)
            return self._run("loss", params, episode.query)

    def for_ways(self, params: Params, ways: int) -> Params:
        """Return ``params`` with one row per class in every per-class table.

        A table of one row is the start of every class and is repeated; one of ``ways`` rows stays.

        Raises:
            MetagenError: a table has another number of rows.
        """
        out = dict(params)
        for name in self.model.per_class:
            rows = params[name].shape[0]
            if rows not in (1, ways):
                raise MetagenError(
                    f"{type(self.model).__name__} has {rows} outputs but the episode has {ways} classes: "
                    f"set model.ways={ways} or task.ways={rows}"
                )
            out[name] = params[name].expand(ways, *params[name].shape[1:])
        return out
