"""Pixel normalisation and the norm layers by name."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from rankdet.errors import UserError
from rankdet.models.backbones import ResNetBackbone
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


def filled_frozen_norm():
    norm = norm_layer("frozen_bn")(4)
    for name, value in zip(("weight", "bias", "running_mean", "running_var"), torch.rand(4, 4) + 0.5, strict=True):
        getattr(norm, name).copy_(value)
    return norm


def test_frozen_norm_is_torchvision_s_in_single_precision():
    norm, twin, x = filled_frozen_norm(), FrozenBatchNorm2d(4), torch.randn(2, 4, 3, 3)
    twin.load_state_dict(norm.state_dict())
    assert torch.equal(norm(x), twin(x))


@pytest.mark.parametrize(("dtype", "roundoff"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_frozen_norm_keeps_half_precision(dtype, roundoff):
    """Rounded once, at its end; torchvision's would give float32. Its gradient is in the input's type, too."""
    norm, x = filled_frozen_norm(), torch.randn(2, 4, 3, 3).to(dtype).requires_grad_()
    out = norm(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), norm(x.float()), rtol=1.01 * roundoff, atol=1e-6)
    out.sum().backward()
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    torch.testing.assert_close(x.grad.float(), scale.view(1, 4, 1, 1).expand_as(x), rtol=2 * roundoff, atol=0.0)


def test_under_autocast_a_backbone_s_maps_are_in_half_precision():
    """As those of trained batch norm are."""
    backbone = ResNetBackbone("resnet18", width=0.25)
    with torch.autocast("cpu", torch.bfloat16):
        maps = backbone(torch.zeros(1, 3, 64, 64))
    assert {x.dtype for x in maps.values()} == {torch.bfloat16}


def test_group_norm_normalises_each_image_alone():
    x = torch.randn(3, 16, 5, 5)
    norm = norm_layer("gn")(16)
    torch.testing.assert_close(norm(x)[1:2], norm(x[1:2]))
    grouped = norm(x).reshape(3, 4, -1)
    torch.testing.assert_close(grouped.mean(dim=2), torch.zeros(3, 4), atol=1e-5, rtol=0)
