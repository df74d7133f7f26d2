"""miniImageNet from a folder: it has no free download."""

from metagen.data.dataset import ImageChannels, ImageSide
from metagen.data.folder import Folder
from metagen.data.photographs import Fit
from metagen.ranges import checked


class MiniImageNet(Folder):
    """100 classes of 600 photographs (Vinyals et al. 2016), split as by Ravi and Larochelle (2017): 64/16/20.

    ``root/nXXXXXXXX/*.jpg``, or ``root/{train,val,test}/nXXXXXXXX/*.jpg``: the classes are named by WordNet.
    """

    @checked
    def __init__(
        self,
        root: str = "data/mini_imagenet",
        size: ImageSide = 64,
        split: str = "mini_imagenet",
        cache: str | None = None,
        channels: ImageChannels | None = None,
        fit: Fit = "crop",
        skip_bad: bool = False,
    ) -> None:
        super().__init__(root, size, split, cache, channels, fit, False, skip_bad)
