"""Deformable convolution: what it starts as, where its taps look, and which numbers it works with."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rankdet.errors import UserError
from rankdet.models.backbones import ResNetBackbone
from rankdet.models.deformable import DeformableConv2d


def conv(groups: int = 1, stride: int = 1, dilation: int = 1, channels: int = 8) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, channels, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False)


def learnt(layer: DeformableConv2d, size: float = 0.3) -> DeformableConv2d:
    """With offsets of some cells and modulations that differ."""
    torch.manual_seed(1)
    nn.init.normal_(layer.offset.weight, std=size)
    nn.init.normal_(layer.offset.bias, std=size)
    return layer


@pytest.mark.parametrize(("groups", "stride", "dilation"), [(1, 1, 1), (1, 2, 1), (4, 1, 1), (8, 2, 1), (2, 1, 2)])
def test_starts_as_half_of_the_plain_convolution(groups, stride, dilation):
    """Offsets 0 and modulation sigmoid(0) = 1/2 (DCNv2, Sec. 3.2), at the borders too; 2 x 9 offsets and 9 scalars."""
    plain = conv(groups, stride, dilation)
    layer = DeformableConv2d(plain)
    assert layer.weight is plain.weight
    assert layer.offset.weight.shape == (27, 8, 3, 3)
    assert dict(layer.named_parameters()).keys() == {"weight", "offset.weight", "offset.bias"}
    x = torch.randn(2, 8, 7, 10)
    torch.testing.assert_close(layer(x), plain(x) / 2)


def test_offsets_move_the_taps():
    """A centre tap of 1 moved by (+1, -2) cells with modulation sigmoid(ln 3) = 3/4: out[y, x] = 3/4 in[y + 1, x - 2].

    Half a cell to the right it is the mean of two neighbours; beyond the border there are zeros.
    """
    plain = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        plain.weight.zero_()
        plain.weight[0, 0, 1, 1] = 1.0
        layer = DeformableConv2d(plain)
        layer.offset.bias[18 + 4] = torch.tensor(3.0).log()
        layer.offset.bias[2 * 4 : 2 * 4 + 2] = torch.tensor([1.0, -2.0])
        x = torch.arange(20.0).reshape(1, 1, 4, 5) + 1
        expected = F.pad(x[:, :, 1:, :-2], (2, 0, 0, 1)) * 0.75
        torch.testing.assert_close(layer(x), expected)
        layer.offset.bias[2 * 4 : 2 * 4 + 2] = torch.tensor([0.0, 0.5])
        torch.testing.assert_close(layer(x), (x + F.pad(x[..., 1:], (0, 1))) / 2 * 0.75)


def test_gradients_are_the_derivatives():
    layer = learnt(DeformableConv2d(conv(groups=2, channels=2))).double()
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    for parameter in layer.parameters():
        assert torch.autograd.gradcheck(lambda _, layer=layer, x=x: layer(x), parameter)


def test_offsets_learn_from_the_first_step():
    layer = DeformableConv2d(conv())
    layer(torch.randn(2, 8, 6, 6)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_under_autocast(dtype):
    """The layer works in float32 and gives what it was given, forwards and backwards."""
    layer = learnt(DeformableConv2d(conv(groups=4)))
    x = torch.randn(2, 8, 6, 6)
    with torch.autocast("cpu", dtype=dtype):
        same = layer(x)
        half = layer(x.to(dtype))
        half.float().sum().backward()
    assert torch.equal(same, layer(x))
    assert half.dtype == dtype
    assert torch.equal(half, layer(x.to(dtype).float()).to(dtype))
    assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_half_precision(dtype):
    layer = learnt(DeformableConv2d(conv()), size=0.1)
    x = torch.randn(1, 8, 6, 6)
    half = copy.deepcopy(layer).to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), layer(x), atol=0.05, rtol=0.05)


def test_channels_last_changes_nothing():
    layer = learnt(DeformableConv2d(conv(groups=2)))
    x = torch.randn(2, 8, 6, 5)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        other = copy.deepcopy(layer).to(memory_format=memory_format)
        image = x.to(memory_format=memory_format, copy=True).requires_grad_()
        out = other(image)
        out.square().sum().backward()
        results.append([out, image.grad, *(p.grad for p in other.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("name", "width", "blocks"), [("resnet50", 0.25, {3: 4, 4: 6, 5: 3}), ("resnext101_64x4d", 0.25, {5: 3})]
)
def test_stages_of_a_backbone(name, width, blocks):
    """DCNv2: every 3x3 convolution of stages 3 to 5, in ResNet-50 the 4 + 6 + 3 of layer2 to layer4, and no other."""
    model = ResNetBackbone(name, width, norm="gn", deformable=list(blocks))
    found = [key for key, module in model.named_modules() if isinstance(module, DeformableConv2d)]
    assert found == [f"layer{stage - 1}.{block}.conv2" for stage, count in blocks.items() for block in range(count)]
    assert len(found) > 0
    torch.manual_seed(0)
    plain = ResNetBackbone(name, width, norm="gn")
    torch.manual_seed(0)
    assert torch.equal(
        ResNetBackbone(name, width, norm="gn", deformable=[5]).layer4[2].conv2.weight, plain.layer4[2].conv2.weight
    )
    out = model(torch.randn(1, 3, 40, 70))
    assert [tuple(x.shape[-2:]) for x in out.values()] == [(5, 9), (3, 5), (2, 3)]
    out["c5"].square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_backbone_under_autocast():
    model = ResNetBackbone("resnet50", 0.125, norm="frozen_bn", deformable=[3, 4, 5]).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(x)
    for key, value in model(x).items():
        assert (half[key].float() - value).norm() < 0.05 * value.norm()


def test_one_graph_for_the_compiler():
    torch._dynamo.reset()
    layer = learnt(DeformableConv2d(conv(groups=2)))
    x = torch.randn(1, 8, 6, 6)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), layer(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(compiled(x), layer(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deformable": [6]}, r"model\.backbone\.deformable=\[6\] must be some of the stages 2, 3, 4, 5, each once"),
        ({"deformable": [3, 3]}, r"deformable=\[3, 3\] must be some of the stages 2, 3, 4, 5, each once"),
        ({"deformable": ["c5"]}, r"deformable=\['c5'\] must be some of the stages"),
        (
            {"deformable": [5], "name": "resnet18"},
            r"deformable=\[5\] needs a bottleneck's 3x3 convs; resnet18 has none",
        ),
        (
            {"deformable": [3, 4, 5], "frozen_stages": 2},
            r"deformable=\[3, 4, 5\] would never learn where to look in the stages that model.*frozen_stages=2 freezes",
        ),
    ],
)
def test_bad_options(options, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        ResNetBackbone(**{"name": "resnet50", **options})
