"""ResNet backbones: torchvision's networks exactly, at any width, with parts of them frozen."""

import math

import pytest
import torch
import torchvision
from torch import nn

from rankdet.errors import UserError
from rankdet.models.backbones import ARCHITECTURES, ResNetBackbone

IMAGE = (2, 3, 61, 95)  # odd on purpose


def small(**options) -> ResNetBackbone:
    return ResNetBackbone("resnet18", width=0.25, **options)


def trainable(model: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_are_named_and_shaped_as_in_torchvision(name):
    with torch.device("meta"):
        ours = ResNetBackbone(name, norm="bn")
        theirs = torchvision.models.get_model(name, weights=None)
    expected = {key: value.shape for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected
    assert ours.channels["c5"] == theirs.fc.in_features
    assert len(expected) > 100


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "resnext101_64x4d", pytest.param("resnext101_32x8d", marks=pytest.mark.full)]
)
def test_same_features_as_torchvision(name):
    """With the same weights and BN statistics, drawn at a scale that keeps the maps' magnitude."""
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None).eval()
        ours = ResNetBackbone(name, norm="bn", outputs=["c2", "c3", "c4", "c5"]).eval()
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in theirs.state_dict().items():
        scale = (3 / value[0].numel()) ** 0.5 if value.dim() == 4 else 0.5
        centre = 0.0 if value.dim() == 4 or key.endswith(("bias", "mean")) else 1.0
        state[key] = torch.empty(value.shape).uniform_(centre - scale, centre + scale, generator=generator)
    theirs.load_state_dict(state, assign=True)
    ours.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")}, assign=True)
    features = {}
    layers = {"c2": theirs.layer1, "c3": theirs.layer2, "c4": theirs.layer3, "c5": theirs.layer4}
    for key, layer in layers.items():
        layer.register_forward_hook(lambda _module, _args, out, key=key: features.__setitem__(key, out))
    x = torch.randn(1, 3, 61, 35, generator=generator)
    with torch.no_grad():
        theirs(x)
        out = ours(x)
    assert list(out) == ["c2", "c3", "c4", "c5"]
    for key, value in out.items():
        assert value.std() > 0.1
        torch.testing.assert_close(value, features[key])


@pytest.mark.parametrize(
    ("name", "width", "channels"),
    [
        ("resnet18", 0.25, [32, 64, 128]),
        ("resnet34", 0.5, [64, 128, 256]),
        ("resnet50", 0.25, [128, 256, 512]),
        ("resnext101_32x8d", 0.125, [64, 128, 256]),
        ("resnext101_64x4d", 0.25, [128, 256, 512]),
    ],
)
def test_width_strides_and_sizes(name, width, channels):
    model = ResNetBackbone(name, width=width, norm="bn").eval()
    out = model(torch.randn(IMAGE))
    assert model.strides == {"c3": 8, "c4": 16, "c5": 32}
    assert list(model.channels.values()) == channels
    for (key, value), count in zip(out.items(), channels, strict=True):
        stride = model.strides[key]
        assert value.shape == (2, count, math.ceil(61 / stride), math.ceil(95 / stride))


@pytest.mark.parametrize("outputs", [["c2", "c3", "c4", "c5"], ["c5"], ["c2", "c5"]])
def test_named_outputs(outputs):
    """The same maps as without the choice; strides and channels follow it."""
    model = small(norm="gn", outputs=outputs)
    every = {"c2": (4, 16), "c3": (8, 32), "c4": (16, 64), "c5": (32, 128)}
    assert {key: (model.strides[key], model.channels[key]) for key in model.channels} == {k: every[k] for k in outputs}
    assert list(model.strides) == list(model.channels) == outputs
    x = torch.randn(IMAGE)
    maps = model(x)
    assert list(maps) == outputs
    for key, value in maps.items():
        stride, channels = every[key]
        assert value.shape == (2, channels, math.ceil(61 / stride), math.ceil(95 / stride))
    plain = small(norm="gn")
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(x)["c5"], maps["c5"])


def test_quarter_width_stem_and_first_stage():
    """resnet18 at 0.25: 16 channels in the stem and layer1, so no projection shortcut there."""
    model = small()
    assert model.conv1.weight.shape == (16, 3, 7, 7)
    assert model.layer1[0].conv1.weight.shape == (16, 16, 3, 3)
    assert model.layer1[0].downsample is None
    assert model.layer2[0].downsample is not None


@pytest.mark.parametrize(
    ("stages", "left"),
    [
        (0, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}),
        (1, {"layer2", "layer3", "layer4"}),
        (2, {"layer3", "layer4"}),
        (4, set()),
    ],
)
def test_frozen_stages_take_no_gradient(stages, left):
    assert trainable(small(norm="bn", frozen_stages=stages)) == left


def test_frozen_stages_keep_their_statistics_in_train_mode():
    model = small(norm="bn", frozen_stages=1)
    model.eval()
    model.train()
    assert [name for name, module in model.named_children() if module.training] == [
        "relu",
        "maxpool",
        "layer2",
        "layer3",
        "layer4",
    ]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model(torch.randn(IMAGE))["c5"].mean().backward()
    optimizer.step()
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"layer2", "layer3", "layer4"}


def test_frozen_bn_is_constant_and_trained_bn_is_not():
    for norm, constant in (("frozen_bn", True), ("bn", False)):
        model = small(norm=norm).train()
        before = {key: value.clone() for key, value in model.state_dict().items() if "bn" in key}
        model(torch.randn(IMAGE))["c5"].square().mean().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        assert len(before) > 10
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items()) is constant


def test_group_norm_trains_with_one_image():
    model = small(norm="gn").train()
    one = model(torch.randn(1, 3, 32, 32))  # c5 is 1 x 1 here, where batch norm would refuse
    one["c5"].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet19"}, "model.backbone.name='resnet19' is unknown; choose one of resnet18"),
        ({"frozen_stages": 5}, r"model.backbone.frozen_stages=5 must lie in 0\.\.4"),
        ({"width": 0.0}, "model.backbone.width=0.0 must be positive"),
        ({"norm": "none"}, "norm='none' is unknown"),
        (
            {"name": "resnext101_64x4d", "width": 0.2},
            r"width=0\.2 leaves the groups of resnext101_64x4d no channel; take 0\.25",
        ),
        ({"outputs": []}, r"model\.backbone\.outputs=\[\] must be some of c2, c3, c4, c5 in this order, c5 last"),
        ({"outputs": ["c4", "c3", "c5"]}, r"outputs=\['c4', 'c3', 'c5'\] must be some of"),
        ({"outputs": ["c3", "c4"]}, r"outputs=\['c3', 'c4'\] must be some of .* c5 last"),
        ({"outputs": ["c5", "c6"]}, r"outputs=\['c5', 'c6'\] must be some of"),
        ({"outputs": ["c5", "c5"]}, r"outputs=\['c5', 'c5'\] must be some of"),
        ({"width": 0.5, "weights": "imagenet"}, "weights=imagenet needs model.backbone.width=1, not 0.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        ResNetBackbone(**{"name": "resnet18", **options})
