"""A classifier of all classes of a data set, trained once, that judges generated images."""

import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from tqdm import tqdm

from metagen.data.bank import Bank
from metagen.data.cache import folder
from metagen.errors import MetagenError
from metagen.files import write_bytes
from metagen.functional.device import in_words
from metagen.locked import locked
from metagen.ranges import NonNegativeInt, PositiveFloat, PositiveInt, Seed, checked
from metagen.reading import opened

log = logging.getLogger(__name__)
AGAIN = 256
"""Test images on which a cached judge is tested again."""
SLACK = 2.0
"""Percentage points that another machine's rounding may cost."""


class Judge:
    """argmax_c f(x)_c of a classifier f trained by cross-entropy on randomly shifted images.

    It trains on the images that are not held out and is tested on those that are; where the bank
    holds none out, every fourth image of each class is its test set. Weights are kept in
    ``cache/judge-HASH.pt``, where HASH covers the images, the settings and the network, with a checksum;
    a file that is damaged, or not as good on some test images as it says, is trained anew. Training runs on
    ``device``, is deterministic on the CPU, and leaves the global random state as it was; what a GPU has
    trained is kept under a name of its own, and used only where the CPU's is not there.

    Args:
        model: ``model(ways=C)`` makes a module with ``logits(x)``: (B, C, H, W) to (B, classes), and, for
            metrics of features, with ``features(x)``: (B, C, H, W) to (B, F), what the logits are linear in.
        epochs: passes over the images, but ``min_steps`` steps at least.
        lr: peak of a one-cycle schedule (Smith, Topin: *Super-Convergence*, 2018) of Adam.
        shift: images move by up to so many pixels each way, so that place says nothing of the class.
        cache: folder of the weights; by default ``$METAGEN_CACHE``, else ``~/.cache/metagen``.

    Attributes:
        accuracy: share of the test images that are recognised, in %; NaN before :meth:`fit`.
        classes: names of the classes, in the order of the logits.
        say: takes the line that says that a judge is being trained.
        device: where it is trained, the CPU until somebody says another one.
    """

    has_classes = True
    """Whether it gives logits of the classes of the data."""

    @checked
    def __init__(
        self,
        model: Callable[..., nn.Module],
        epochs: PositiveInt = 3,
        min_steps: NonNegativeInt = 400,
        lr: PositiveFloat = 2e-3,
        batch_size: PositiveInt = 64,
        shift: Annotated[int, Ge(0), Le(128)] = 2,
        seed: Seed = 0,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        self._make, self.seed, self.epochs, self.min_steps = model, seed, epochs, min_steps
        self.lr, self.batch_size, self.shift = lr, batch_size, shift
        self.cache = folder(None if cache is None else str(cache))
        self.say: Callable[[str], Any] = log.info
        self.device = torch.device("cpu")
        self.accuracy, self.classes = float("nan"), ()  # type: tuple[float, tuple[str, ...]]

    def check(self, bank: Bank, tested: Collection[str] = ()) -> None:
        """Refuse data from which :meth:`fit` could not learn: the network is built for them, untrained.

        Raises:
            MetagenError: the network does not take such images, or the images do not suffice.
        """
        with torch.random.fork_rng(devices=[]):
            check_network(self._make, len(bank.names), torch.as_tensor(bank.images[:2]).float() / 255)

    def fit(self, bank: Bank, tested: Collection[str] = ()) -> "Judge":
        """Train on all classes of ``bank``, also the tested, or load what was trained; return self."""
        self.classes = tuple(bank.names)
        labels, held = torch.as_tensor(bank.labels), torch.as_tensor(bank.held)
        held = held if held.any() else _every_fourth(labels)
        x = torch.as_tensor(bank.images)
        # the global state is put back: to judge an experiment must not change it
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.model: Any = self._make(ways=len(self.classes)).to(self.device)
            file = self._file(self._hash(bank))
            rows = held.nonzero()[:, 0]
            few = rows[torch.linspace(0, len(rows) - 1, min(AGAIN, len(rows))).round().long()]
            with self._alone(file, bank.name):
                if not self._load(file, lambda: (self._test(x[few], labels[few]), len(few))):
                    self._anew(ways=len(self.classes))
                    self._say_training(bank.name, len(self.classes))
                    self._train(x[~held], labels[~held], bank.name)
                    self._check_finite(bank.name)
                    self.accuracy = self._test(x[held], labels[held])
                    self._save(file)
        self.model.eval().requires_grad_(False)
        log.info("judge of %s: %.2f %% of its test images recognised", bank.name, self.accuracy)
        return self

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [0, 1] to logits (B, classes), on the images' device."""
        return self._apply("logits", x)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [0, 1] to penultimate features (B, F), on the images' device.

        Raises:
            MetagenError: the judge was not trained, or its network has no ``features``.
        """
        return self._apply("features", x)

    def _apply(self, method: str, x: Tensor) -> Tensor:
        if not self.classes:
            raise MetagenError("the judge was not trained: call fit(bank) first")
        if not hasattr(self.model, method):
            raise MetagenError(f"the judge's network has no {method}(x): use one that has, as judge=basenet")
        self.model.to(x.device)
        return torch.cat([getattr(self.model, method)(part.float()) for part in x.split(1024)])

    def _file(self, name: str) -> Path:
        """Return the file of the weights: the CPU's where it is there, else that of the kind of device."""
        of_cpu = self.cache / f"judge-{name}.pt"
        if self.device.type == "cpu" or of_cpu.exists():
            return of_cpu
        return self.cache / f"judge-{name}-{self.device.type}.pt"

    def _alone(self, file: Path, name: str) -> AbstractContextManager[None]:
        """Keep other processes from training the same judge; none is kept from reading it."""
        if file.exists():
            return nullcontext()
        return locked(file, lambda: self.say(f"waits for the judge of {name}, which another process trains"))

    def _say_training(self, name: str, classes: int) -> None:
        """Say what is going to take a while, since it happens after the training proper."""
        where = "" if self.device.type == "cpu" else f" on {in_words(self.device)}"
        self.say(f"trains a judge of {name} ({classes} classes){where}, once: it is kept in {self.cache}")

    def _train(self, x: Tensor, y: Tensor, name: str) -> None:
        steps = max(self.epochs * -(-len(x) // self.batch_size), self.min_steps)
        generator = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps + 1)
        order = torch.empty(0, dtype=torch.int64)
        self.model.train()
        for _ in tqdm(range(steps), desc=f"judge of {name}", unit="step", disable=None, leave=False):
            if len(order) < self.batch_size:
                order = torch.cat([order, torch.randperm(len(x), generator=generator)])
            batch, order = order[: self.batch_size], order[self.batch_size :]
            shifted = _shifted(x[batch], self.shift, generator).to(self.device).float() / 255
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(self.model.logits(shifted), y[batch].to(self.device)).backward()
            optimizer.step()
            schedule.step()

    def _test(self, x: Tensor, y: Tensor) -> float:
        self.model.eval()
        right = [
            (self(a.to(self.device).float() / 255).argmax(-1).cpu() == b)
            for a, b in zip(x.split(1024), y.split(1024), strict=True)
        ]
        return 100 * float(torch.cat(right).double().mean())

    def _hash(self, bank: Bank) -> str:
        settings = [self.epochs, self.min_steps, self.lr, self.batch_size, self.shift, self.seed]
        text = json.dumps([bank.sha256, settings, repr(self.model), len(self.classes)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _anew(self, **arguments: Any) -> None:
        """Make the network as it is before training: what a file put into it is gone."""
        torch.manual_seed(self.seed)
        self.model = self._make(**arguments).to(self.device)

    def _check_finite(self, name: str) -> None:
        if not _finite(self.model.state_dict()):
            raise MetagenError(f"the judge of {name} has become NaN or infinite in training: lower judge.lr")

    def _load(self, file: Path, test: Callable[[], tuple[float, int]]) -> bool:
        """Take the weights in ``file`` if they are whole and, by ``test`` (%, images), as good as it says."""
        if not file.exists():
            return False
        try:
            with opened(file) as content:
                kept = torch.load(content, weights_only=True, map_location="cpu")
            if kept.get("sha256") != checksum(kept["weights"], kept["accuracy"]):
                raise ValueError("its checksum does not match its content")
            if not _finite(kept["weights"]):
                raise ValueError("it holds NaN or infinite weights")
            self.model.load_state_dict(kept["weights"])
            self.accuracy = _reached(float(kept["accuracy"]), *test())
        except Exception as error:  # whatever a damaged file raises, the cure is the same
            reason = str(error) if isinstance(error, ValueError | MetagenError) else type(error).__name__
            log.warning("the cached judge %s is damaged (%s): training anew", file, reason)
            return False
        return True

    def _save(self, file: Path) -> None:
        kept = {"weights": self.model.state_dict(), "accuracy": self.accuracy}
        kept["sha256"] = checksum(kept["weights"], kept["accuracy"])
        try:
            # torch.save to a file hides a full disk in a RuntimeError; writing bytes names it.
            buffer = io.BytesIO()
            torch.save(kept, buffer)
            write_bytes(file, buffer.getbuffer())
        except MetagenError as error:
            log.warning("the judge is not cached: %s", error)


def checksum(weights: Mapping[str, Tensor], accuracy: float) -> str:
    """Return the SHA-256 of weights with their names, types and shapes, and of an accuracy."""
    digest = hashlib.sha256(repr(float(accuracy)).encode())
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _finite(weights: Mapping[str, Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in weights.values())


def _reached(claimed: float, found: float, images: int) -> float:
    """Return the accuracy that a file claims, in %.

    Raises:
        ValueError: ``found``, on ``images`` images, is lower than chance explains (5 standard deviations).
    """
    share = min(max(claimed / 100, 0.0), 1.0)
    margin = SLACK + 500 * math.sqrt(share * (1 - share) / images)
    if not found >= claimed - margin:
        raise ValueError(f"it recognises {found:.1f} %, not the {claimed:.1f} % that it claims")
    return claimed


def _every_fourth(labels: Tensor) -> Tensor:
    """Mark the 4th, 8th, ... image of each class."""
    rank = np.empty(len(labels), dtype=np.int64)
    for c in labels.unique():
        index = torch.nonzero(labels == c)[:, 0].numpy()
        rank[index] = np.arange(len(index))
    return torch.from_numpy(rank % 4 == 3)


def _shifted(x: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Move every image of (B, C, H, W) by its own offset; the gap is blank, in colour the border repeated."""
    wide = pad(x, [shift] * 4) if x.shape[1] == 1 else pad(x.float(), [shift] * 4, mode="replicate")
    windows = wide.unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)
    offset = torch.randint(0, 2 * shift + 1, (2, len(x)), generator=generator)
    return windows[torch.arange(len(x)), :, offset[0], offset[1]]


def check_network(make: Callable[..., nn.Module], ways: int, images: Tensor) -> None:
    """Refuse a network that does not map images (B, C, H, W) to something.

    Raises:
        MetagenError: it cannot be built, or it takes images of another size.
    """
    try:
        made: Any = make(ways=ways).eval()
        method = made.logits if hasattr(made, "logits") else made.features
        with torch.no_grad():
            method(images)
    except MetagenError:
        raise
    except Exception as error:
        shape, reason = " x ".join(map(str, images.shape[1:])), " ".join(str(error).split())[:200]
        raise MetagenError(
            f"judge.model cannot judge images of {shape} ({reason}): set judge.model.size and "
            f"judge.model.channels to those of the data"
        ) from error
