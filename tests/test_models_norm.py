"""Pixel normalisation and the norm layers by name."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from rankdet.errors import UserError
from rankdet.models.norm import PixelNorm, group_norm, norm_layer


def test_pixels_by_hand():
    """Mean 100, 50, 0 and std 50, 25, 10: pixel (200, 100, 20) -> (100/50, 50/25, 20/10) = (2, 2, 2)."""
    norm = PixelNorm([100.0, 50.0, 0.0], [50.0, 25.0, 10.0])
    pixel = torch.tensor([200, 100, 20], dtype=torch.uint8).view(1, 3, 1, 1)
    for image in (pixel, pixel.float()):
        out = norm(image)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out.flatten(), torch.full((3,), 2.0))
    assert not norm.state_dict()


@pytest.mark.parametrize(
    ("channels", "groups"), [(256, 32), (64, 16), (32, 8), (16, 4), (2048, 32), (6, 1), (12, 3), (3, 1), (1, 1)]
)
def test_group_counts(channels, groups):
    """The largest divisor of channels up to min(32, channels / 4): 6 -> 1, as 6 / 4 leaves room for one group only."""
    assert group_norm(channels).num_groups == groups


def test_names():
    assert isinstance(norm_layer("bn")(8), nn.BatchNorm2d)
    assert isinstance(norm_layer("frozen_bn")(8), FrozenBatchNorm2d)
    assert isinstance(norm_layer("gn")(8), nn.GroupNorm)
    with pytest.raises(UserError, match=r"norm='layer' is unknown; choose one of bn, frozen_bn, gn"):
        norm_layer("layer")


def test_group_norm_normalises_each_image_alone():
    x = torch.randn(3, 16, 5, 5)
    norm = norm_layer("gn")(16)
    torch.testing.assert_close(norm(x)[1:2], norm(x[1:2]))
    grouped = norm(x).reshape(3, 4, -1)
    torch.testing.assert_close(grouped.mean(dim=2), torch.zeros(3, 4), atol=1e-5, rtol=0)
