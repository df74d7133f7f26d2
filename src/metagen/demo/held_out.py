"""Classes that the runs have not seen in training, with real images of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from metagen.data.bank import Bank
from metagen.data.sampler import EpisodeSampler, Images
from metagen.data.task import FewShot
from metagen.demo.engine import MAX_SHOTS, Runner
from metagen.errors import MetagenError
from metagen.jobs.build import load_data
from metagen.report.pictures import to_uint8


class _Class(NamedTuple):
    """A test class of a run: the bank and the class in it, and what the run's task does to its images."""

    bank: Bank
    name: str
    binarize: str | None


class HeldOut:
    """The test classes of the runs' data.

    Args:
        runners: the runs, whose data are loaded (and downloaded, if they are missing, as in training).

    Attributes:
        classes: by their name on the page, such as ``mnist: 7``.
        missing: why some data could not be had, a line for each run, for the page to say.
    """

    def __init__(self, runners: Sequence[Runner]) -> None:
        self.classes: dict[str, _Class] = {}
        self.missing: list[str] = []
        for runner in runners:
            try:
                found = _test_classes(runner)
            except MetagenError as error:
                self.missing.append(f"{runner.label}: {error}")
                continue
            self.classes = {**found, **self.classes}

    def draw(self, name: str, shots: int, index: int) -> np.ndarray:
        """Return distinct images of a class as the test shows them, uint8 (K, H, W), or (K, H, W, 3).

        Args:
            name: of the class on the page.
            shots: K; fewer where the class has fewer images.
            index: number of the draw; equal numbers give equal images.

        Raises:
            MetagenError: no such class.
        """
        if name not in self.classes:
            raise MetagenError("choose a class from the list first")
        bank, label, binarize = self.classes[name]
        images: Images = "held" if bank.held.any() else "all"
        usable = bank.labels == bank.names.index(label)
        most = int((usable & bank.held if images == "held" else usable).sum())
        count = max(1, min(shots, MAX_SHOTS, most))
        sampler = EpisodeSampler(bank, [label], 1, count, 0, 0, "test", images=images, binarize=binarize)
        return to_uint8(sampler.episodes(torch.tensor([index])).support.x[0, 0])


def _test_classes(runner: Runner) -> dict[str, _Class]:
    data = load_data(runner.trained.config)
    assert isinstance(data.task, FewShot)
    bank, binarize = data.test_bank, data.task.binarize
    return {f"{bank.name}: {name}": _Class(bank, name, binarize) for name in data.streams.split["test"]}
