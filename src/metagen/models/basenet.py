"""The classic small network for MNIST."""

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor, nn

from metagen.core.model import Classifier
from metagen.models.layers import Conv2d, MaxPool2d
from metagen.models.sizes import poolings
from metagen.ranges import Colours, Width, checked


class BaseNet(Classifier):
    """Two 3x3 convolutions (32, 64), each with ReLU and 2x2 pooling, then 512 hidden units.

    Larger images have further convolutions (64), until their maps are 8 x 8 at most.

    Args:
        ways: number of classes.
        size: height and width of the images, 4 or more (28 gives 7x7 features).
        channels: channels of the images.
        hidden: units of the fully connected layer.
    """

    @checked
    def __init__(
        self,
        ways: Width = 10,
        size: Annotated[int, Ge(4), Le(1024)] = 28,
        channels: Colours = 1,
        hidden: Width = 512,
    ) -> None:
        super().__init__()
        times, self.colours = poolings(size), channels
        deeper = [(Conv2d(64, 64, 3, padding=1), nn.ReLU(), MaxPool2d(2)) for _ in range(times - 2)]
        self.body = nn.Sequential(
            Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            MaxPool2d(2),
            Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            MaxPool2d(2),
            *(layer for part in deeper for layer in part),
            nn.Flatten(),
            nn.Linear(64 * (size >> times) ** 2, hidden),
            nn.ReLU(),
        )
        self.readout = nn.Linear(hidden, ways)

    def features(self, x: Tensor, support: Tensor | None = None) -> Tensor:
        """Map images (B, C, H, W) to features (B, F); every image by itself."""
        return self.body(x)
