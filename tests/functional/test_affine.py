"""The places to which affine maps take pixels."""

import pytest
import torch

from metagen.functional.affine import affine_grid


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (1, 4), (5, 3)])
def test_it_is_that_of_torch(height, width, dtype):
    maps = torch.randn(6, 2, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.affine_grid(maps, [6, 1, height, width], align_corners=False)
    torch.testing.assert_close(affine_grid(maps, height, width), expected)


def test_the_identity_is_the_centres_of_the_pixels():
    grid = affine_grid(torch.eye(2, 3)[None], 2, 4)
    torch.testing.assert_close(grid[0, :, 0], torch.tensor([[-0.75, -0.5], [-0.75, 0.5]]))
    torch.testing.assert_close(
        grid[0, 0], torch.tensor([[-0.75, -0.5], [-0.25, -0.5], [0.25, -0.5], [0.75, -0.5]])
    )
