"""The contract of a model: what it offers to the learners and to the evaluation."""

from typing import Any, ClassVar, cast

from torch import Tensor, nn

from metagen.core.episode import Params, Shots
from metagen.errors import MetagenError
from metagen.functional.autocast import Lowered


class Model(nn.Module):
    """A network with a loss.

    A model never reads randomness from a global generator inside :meth:`loss`: it draws its noise
    from ``shots.key``, so that the loss is a pure function of (parameters, shots).

    Attributes:
        kind: the tasks it serves, ``"classify"`` or ``"generate"``.
        per_class: names of the parameters with one row per class of the episode.
        head: glob patterns of the parameters that are specific to a task (what ANIL adapts).
        encoder: glob patterns of the parameters that only :meth:`encode` reads.
        later: glob patterns of the parameters that a checkpoint to start from may lack, to be learned next.
        training_only: glob patterns of the parameters that only :meth:`loss` reads: an exported model is
            without them.
        loss_unit: ``"nats"`` where the loss is -log p or a bound of it, else in words what it is, which no
            other model's loss is to be compared with.
        surrogate: whether the loss has a gradient that is not that of its value.
        batch_statistics: whether it normalises images by the statistics of the batch they are in.
        transductive: where it does, whether query images are normalised with each other (as in MAML),
            or by the statistics of the support images, so that each is classified by itself.
        needs_memory: whether it says something only given support images in its buffer ``memory``
            (N, K, C, H, W), which a learner has to write.
        colours: channels of the images it takes, 1 or 3; None: any.
        one_by_one: whether tasks are better not computed together: its kernels have no rule for vmap.
        pixelwise: whether ``sample`` takes a pass for every pixel, which is not rehearsed before a run.
        lowers: what mixed precision may lower, see
            :mod:`metagen.functional.autocast`; the learner decides, too.
    """

    kind: ClassVar[str]
    per_class: ClassVar[tuple[str, ...]] = ()
    head: ClassVar[tuple[str, ...]] = ()
    encoder: ClassVar[tuple[str, ...]] = ()
    later: tuple[str, ...] = ()
    training_only: tuple[str, ...] = ()
    loss_unit: str = "nats"
    surrogate: ClassVar[bool] = False
    batch_statistics: ClassVar[bool] = False
    transductive: bool = True
    needs_memory: ClassVar[bool] = False
    lowers: ClassVar[Lowered] = "all"
    colours: int | None = 1
    one_by_one: bool = False
    pixelwise: bool = False

    def settle(self, transformed: bool) -> None:
        """Choose what the settings left open, told whether gradient steps or ``vmap`` transform the loss."""

    def loss(self, shots: Shots) -> Tensor:
        """Return the mean loss over all images of ``shots``, a scalar in ``loss_unit``."""
        raise NotImplementedError


class Classifier(Model):
    """A model of p(y | x): features f(x), and a linear ``readout`` with one row for each class.

    Its loss is the cross-entropy. ``support``, where it is given, holds the images (S, C, H, W) by
    whose batch statistics all others are normalised; a model without batch statistics ignores it.
    """

    kind = "classify"
    per_class: ClassVar[tuple[str, ...]] = ("readout.weight", "readout.bias")
    head: ClassVar[tuple[str, ...]] = ("readout.*",)
    readout: nn.Linear

    def features(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) to features (B, F)."""
        raise NotImplementedError

    def logits(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) to logits (B, N)."""
        return self.readout(self.features(x, support))

    def loss(self, shots: Shots, support: Shots | None = None) -> Tensor:
        """Return -1/B sum_b log softmax(logits(x_b))[y_b], in nats."""
        given = None if support is None else support.x.flatten(0, 1)
        logits = self.logits(shots.x.flatten(0, 1), given)
        return nn.functional.cross_entropy(logits, shots.y.flatten())


class Generator(Model):
    """A model of p(x | class), where a class is a row of the table ``context`` (N, D).

    The table is a parameter: gradient learners move it, amortised learners write it. The model's
    own table has one row, the start of every class, so that any number of ways fits.
    """

    kind = "generate"
    per_class: ClassVar[tuple[str, ...]] = ("context",)
    head: ClassVar[tuple[str, ...]] = ("context",)
    likelihood: ClassVar[str | None] = None
    """What :meth:`log_likelihood` returns, in nats: ``"exact"``, ``"bound"``, or None where there is none."""
    pixels: Any = None
    """What a likelihood is one of, by its ``name``: see :mod:`metagen.models.pixel_likelihood`."""
    context: nn.Parameter

    def sample(self, y: Tensor, key: Tensor) -> Tensor:
        """Draw one image for each class index of ``y`` (B,): (B, C, H, W), pixels in [0, 1]."""
        raise NotImplementedError

    def log_likelihood(self, shots: Shots, importance_samples: int) -> Tensor:
        """Return log p(x | class) or a lower bound of it, per image, (N, K), in nats."""
        raise NotImplementedError

    def encode(self, support: Shots) -> Params:
        """Read the support set: ``{"context": (N, D)}`` (optional; only amortised learners need it)."""
        raise NotImplementedError


def completed(model: nn.Module) -> Model:
    """Return a module with a ``loss`` as a model: what it does not say of itself holds as by default.

    A module that is no :class:`Model` serves every task that it has the methods for: one with a ``sample``
    generates, one with ``logits`` classifies; any other is trained and validated by its loss alone.

    Raises:
        MetagenError: it has no method ``loss``.
    """
    if isinstance(model, Model):
        return model
    if not callable(getattr(model, "loss", None)):
        raise MetagenError(
            f"{type(model).__name__} is no model: it needs a method loss(shots) that returns a scalar"
        )
    known = next((kind for name, kind in KINDS.items() if callable(getattr(model, name, None))), "loss")
    for name, usual in {"kind": known, **DEFAULTS}.items():
        if not hasattr(model, name):
            setattr(model, name, usual)
    return cast(Model, model)


KINDS = {"sample": "generate", "logits": "classify"}
"""Method -> the kind of task that a module with it serves."""
DEFAULTS = {
    name: getattr(Model, name)
    for name in ("per_class", "head", "encoder", "later", "training_only", "loss_unit", "surrogate",
                 "batch_statistics", "transductive", "lowers", "colours", "one_by_one", "pixelwise")
} | {"settle": lambda transformed: None}  # fmt: skip
"""What holds for a module that does not say it."""
