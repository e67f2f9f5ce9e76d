"""The feature pyramid: levels, strides, odd sizes and the values of its sums."""

import pytest
import torch

from rankdet.errors import UserError
from rankdet.models.backbones import ResNetBackbone
from rankdet.models.fpn import FPN

CHANNELS = {"c3": 4, "c4": 6, "c5": 8}
STRIDES = {"c3": 8, "c4": 16, "c5": 32}


def maps(height: int, width: int) -> dict[str, torch.Tensor]:
    """Random maps of sizes ceil(side / stride)."""
    return {k: torch.randn(2, CHANNELS[k], -(-height // s), -(-width // s)) for k, s in STRIDES.items()}


def identity(fpn: FPN) -> FPN:
    """Makes every lateral and output conv pass channel 0 of its input on to channel 0, and nothing else."""
    with torch.no_grad():
        for name, parameter in fpn.named_parameters():
            parameter.zero_()
            if name.endswith("weight"):
                middle = parameter.shape[-1] // 2
                parameter[0, 0, middle, middle] = 1.0
    return fpn


def test_mini_levels():
    fpn = FPN(CHANNELS, STRIDES, channels=16, extra_levels=0)
    assert fpn.strides == (8, 16, 32)
    assert [tuple(x.shape) for x in fpn(maps(120, 160))] == [(2, 16, 15, 20), (2, 16, 8, 10), (2, 16, 4, 5)]


def test_paper_levels_with_odd_sizes():
    """100 x 132 at strides 8 .. 128: ceil gives 13 x 17, 7 x 9, 4 x 5, then stride-2 convs 2 x 3 and 1 x 2."""
    fpn = FPN(CHANNELS, STRIDES, channels=16, extra_levels=2)
    assert fpn.strides == (8, 16, 32, 64, 128)
    sizes = [tuple(x.shape[-2:]) for x in fpn(maps(100, 132))]
    assert sizes == [(13, 17), (7, 9), (4, 5), (2, 3), (1, 2)]


@pytest.mark.parametrize(("height", "width"), [(120, 160), (97, 333), (61, 95), (8, 8)])
def test_top_down_sum(height, width):
    """With identity convs a cell of P3 is C3 there + C4 at i // 2 + C5 at i // 4, whatever the parity of the sizes."""
    fpn = identity(FPN(CHANNELS, STRIDES, channels=16, extra_levels=0))
    c = maps(height, width)
    p3, p4, p5 = fpn(c)
    y, x = torch.arange(p3.shape[2])[:, None], torch.arange(p3.shape[3])
    torch.testing.assert_close(p3[:, 0], c["c3"][:, 0] + c["c4"][:, 0, y // 2, x // 2] + c["c5"][:, 0, y // 4, x // 4])
    torch.testing.assert_close(p5[:, 0], c["c5"][:, 0])
    assert p4.shape[-2:] == c["c4"].shape[-2:]


def test_p6_comes_from_c5_also_where_the_channels_agree():
    """Identity convs: P6 = every second cell of C5, P7 = every second of ReLU(P6). 8 channels in C5 and the pyramid."""
    fpn = identity(FPN(CHANNELS, STRIDES, channels=8, extra_levels=2))
    with torch.no_grad():
        fpn.pyramid.layer_blocks[2][0].weight.zero_()  # P5 is zero, so that P6 cannot have come from it
    c = maps(256, 256)
    *_, p5, p6, p7 = fpn(c)
    assert not p5.any()
    torch.testing.assert_close(p6[:, 0], c["c5"][:, 0, ::2, ::2])
    torch.testing.assert_close(p7[:, 0], p6[:, 0].relu()[:, ::2, ::2])


def test_p6_of_faster_r_cnn_is_every_second_cell_of_p5():
    fpn = FPN(CHANNELS, STRIDES, channels=16, extra_levels=1)
    assert fpn.strides == (8, 16, 32, 64)
    assert len(list(fpn.parameters())) == len(list(FPN(CHANNELS, STRIDES, channels=16, extra_levels=0).parameters()))
    *_, p5, p6 = fpn(maps(97, 333))  # C5 of 4 x 11
    assert p6.shape == (2, 16, 2, 6)
    assert torch.equal(p6, p5[..., ::2, ::2])


def test_p2_to_p6_over_four_maps():
    """100 x 132 at strides 4 .. 64: ceil gives 25 x 33, 13 x 17, 7 x 9, 4 x 5, then every second of those."""
    backbone = ResNetBackbone("resnet18", width=0.25, norm="gn", outputs=["c2", "c3", "c4", "c5"])
    fpn = FPN(backbone.channels, backbone.strides, channels=16, extra_levels=1)
    assert fpn.strides == (4, 8, 16, 32, 64)
    sizes = [tuple(x.shape[-2:]) for x in fpn(backbone(torch.randn(1, 3, 100, 132)))]
    assert sizes == [(25, 33), (13, 17), (7, 9), (4, 5), (2, 3)]


@pytest.mark.parametrize("extra_levels", [-1, 3, "max_pool"])
def test_bad_extra_levels(extra_levels):
    with pytest.raises(UserError, match=rf"model\.fpn\.extra_levels={extra_levels} must be 0 \(up to P5\), 1 \("):
        FPN(CHANNELS, STRIDES, extra_levels=extra_levels)
