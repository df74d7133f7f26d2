"""The critic of drawings: how much likelier is a pair of images from two people than from a generator?"""

import torch
from torch import Tensor, nn

from metagen.models.layers import Conv2d, GroupNorm


class Critic(nn.Module):
    """Logits (B,) of pairs of images a, b (B, C, S, S): log p(b real | a) / p(b generated | a).

    Trained by cross-entropy on as many pairs of either kind it estimates this ratio (Goodfellow et al.:
    *Generative adversarial nets*, NeurIPS 2014).

    Args:
        colours: C.
        size: S, a multiple of 4.
        channels: width of the first layers.
        ink: compare ink only (pixels above 1/2), as fits strokes: shades of grey show how an image was
            resampled and not who has drawn it.
    """

    def __init__(self, colours: int, size: int, channels: int, ink: bool) -> None:
        super().__init__()
        wide, side = 2 * channels, size // 4
        self.ink = ink
        self.net = nn.Sequential(
            *_layer(2 * colours, channels),
            *_layer(channels, channels, 2),
            *_layer(channels, wide),
            *_layer(wide, wide, 2),
            *_layer(wide, wide),
            nn.Flatten(),
        )
        self.out = nn.Sequential(nn.Linear(wide * side**2, wide), nn.SiLU(), nn.Linear(wide, 1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Look at both images at once."""
        x = torch.cat([a, b], 1)
        logits: Tensor = self.out(self.net((x > 0.5).to(x) if self.ink else x))[:, 0]
        return logits


def _layer(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [Conv2d(inputs, outputs, 3, stride, 1), nn.SiLU(), GroupNorm(4)]
