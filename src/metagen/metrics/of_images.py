"""A metric of the samples that can be taken of other images, too, which its values are read beside."""

from typing import ClassVar

from metagen.core.metric import Metric
from metagen.errors import MetagenError


class OfImages(Metric):
    """What such metrics share: ``coverage`` of real images is called ``coverage_real``.

    Args:
        images: whose value is measured, one of ``sources``: ``samples``; ``real``, as many real images, what
            a perfect generator scores; ``support``, what to beat; ``relative``, the samples' over ``real``.

    Attributes:
        sources: what ``images`` may be.

    Raises:
        MetagenError: ``images`` is none of them.
    """

    sources: ClassVar[tuple[str, ...]] = ("samples", "real")

    def __init__(self, images: str = "samples") -> None:
        if images not in self.sources:
            expected = ", ".join(self.sources)
            raise MetagenError(f"metrics.{self.name}.images={images}: expected one of {expected}")
        self.images = images
        if images != "samples":
            self.name = f"{self.name}_{images}"
        if images == "relative":
            self.real = 1.0

    @property
    def about(self) -> str:
        """Return what the metric is, and of which images it is taken."""
        taken = {"samples": "", "real": "of real images: ", "support": "of the support: "}
        return taken.get(self.images, "relative to real images: ") + super().about
