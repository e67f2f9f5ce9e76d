"""The reduced VGG-16: its maps, torchvision's features exactly, and where the elements of fc6 and fc7 go."""

import math

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, WeightsEnum

from rankdet.errors import UserError
from rankdet.models.vgg import VGGBackbone

FEATURES = 14_714_688  # parameters of torchvision's vgg16.features


def made_up() -> dict[str, Tensor]:
    """A state dict with the keys and shapes of torchvision's vgg16, classifier included.

    The two dense layers' numbers are few, read again and again: element (o, i) of fc6 is the (7 o + 3 i)th, of fc7 the
    (5 o + 3 i)th. So half a gigabyte fits in one.
    """
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in torchvision.models.vgg16(weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    small = {key: shape for key, shape in shapes.items() if shape.numel() < 3_000_000}
    state = {key: 0.05 * torch.randn(shape, generator=generator) for key, shape in small.items()}
    for key, step in (("classifier.0.weight", 7), ("classifier.3.weight", 5), ("classifier.6.weight", 1)):
        outputs, inputs = shapes[key]
        few = torch.rand(step * (outputs - 1) + 3 * (inputs - 1) + 1, generator=generator)
        state[key] = few.as_strided((outputs, inputs), (step, 3))
    assert state.keys() == shapes.keys()
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return made_up()


@pytest.fixture(scope="module")
def loaded(state, tmp_path_factory) -> VGGBackbone:
    """A backbone with the made-up weights, read from a file."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(state, path)
    return VGGBackbone("vgg16", weights=str(path))


def test_maps_of_any_size():
    """61 x 95 pixels: ceil(61 / 8) x ceil(95 / 8) cells in conv4_3, half of these, rounded up, in conv7."""
    model = VGGBackbone("vgg16", width=0.125, norm="bn").eval()
    out = model(torch.randn(2, 3, 61, 95))
    assert model.strides == {"conv4_3": 8, "conv7": 16}
    assert model.channels == {"conv4_3": 64, "conv7": 128}
    assert list(out) == ["conv4_3", "conv7"]
    for key, value in out.items():
        stride = model.strides[key]
        assert value.shape == (2, model.channels[key], math.ceil(61 / stride), math.ceil(95 / stride))
        assert value.min() == 0.0  # after a ReLU


def test_parameters_are_those_of_the_reduced_vgg16():
    """vgg16.features, 512 * 9 + 1 of each of conv6's 1024 channels, 1024 + 1 of conv7's."""
    with torch.device("meta"):
        model = VGGBackbone("vgg16")
        features = torchvision.models.vgg16(weights=None).features
    assert sum(p.numel() for p in model.parameters()) == FEATURES + 1024 * (512 * 9 + 1) + 1024 * (1024 + 1)
    assert sum(p.numel() for p in features.parameters()) == FEATURES
    assert model.channels == {"conv4_3": 512, "conv7": 1024}
    assert len([m for m in model.modules() if isinstance(m, nn.Conv2d)]) == 15
    assert model.conv6[0].dilation == (6, 6)


@pytest.mark.parametrize(("norm", "layer"), [("bn", nn.BatchNorm2d), ("gn", nn.GroupNorm)])
def test_a_norm_after_every_convolution(norm, layer):
    model = VGGBackbone("vgg16", width=0.125, norm=norm)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == len([m for m in model.modules() if isinstance(m, layer)]) == 15
    assert all(conv.bias is None for conv in convs)


class TestImageNetWeights:
    """torchvision's state dict of vgg16 in the reduced form."""

    def test_every_convolution_arrives(self, loaded, state):
        convs = [m for m in loaded.modules() if isinstance(m, nn.Conv2d)][:13]
        keys = [key.removesuffix(".weight") for key in state if key.startswith("features") and key.endswith(".weight")]
        assert keys == [f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]
        for conv, key in zip(convs, keys, strict=True):
            assert torch.equal(conv.weight, state[f"{key}.weight"])
            assert torch.equal(conv.bias, state[f"{key}.bias"])

    def test_where_fc6_goes(self, loaded, state):
        """Output o, input i, row y, column x of conv6: of fc6 output 4 o, of its 512 x 7 x 7 inputs (i, 3 y, 3 x)."""
        fc6, conv6 = state["classifier.0.weight"], loaded.conv6[0]
        assert conv6.weight.shape == (1024, 512, 3, 3)
        for o, i, y, x in ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1023, 511, 2, 2)):
            assert conv6.weight[o, i, y, x] == fc6[4 * o, 49 * i + 21 * y + 3 * x]
        inputs = (49 * torch.arange(512)[:, None, None] + 21 * torch.arange(3)[:, None] + 3 * torch.arange(3)).flatten()
        assert torch.equal(conv6.weight.flatten(1), fc6[::4][:, inputs])
        assert torch.equal(conv6.bias, state["classifier.0.bias"][::4])

    def test_where_fc7_goes(self, loaded, state):
        """The inputs that stay are fc6's outputs that stay."""
        fc7, conv7 = state["classifier.3.weight"], loaded.conv7[0]
        assert conv7.weight.shape == (1024, 1024, 1, 1)
        for o, i in ((0, 0), (1, 0), (0, 1), (1023, 1023)):
            assert conv7.weight[o, i, 0, 0] == fc7[4 * o, 4 * i]
        assert torch.equal(conv7.weight[..., 0, 0], fc7[::4, ::4])
        assert torch.equal(conv7.bias, state["classifier.3.bias"][::4])

    def test_same_features_as_torchvision(self, loaded, state):
        """conv4_3 with its ReLU is the first 23 layers of theirs. After conv5_3, layer 29, their pool halves and ours
        does not; conv6 with dilation 6 reads cells six apart."""
        with torch.device("meta"):
            features = torchvision.models.vgg16(weights=None).features
        ours = {k.removeprefix("features."): v for k, v in state.items() if "features" in k}
        features.load_state_dict(ours, assign=True)
        x = torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            out = loaded(x)
            torch.testing.assert_close(out["conv4_3"], features[:23](x))
            pooled = nn.functional.max_pool2d(features[:30](x), 3, stride=1, padding=1)
            padded = nn.functional.pad(pooled, (6, 6, 6, 6))
            conv6 = loaded.conv6[0].bias.view(-1, 1, 1).expand(1, 1024, 4, 6).clone()
            for y in range(3):
                for x in range(3):
                    shifted = padded[:, :, 6 * y : 6 * y + 4, 6 * x : 6 * x + 6]
                    conv6 += torch.einsum("oi,bihw->bohw", loaded.conv6[0].weight[:, :, y, x], shifted)
            conv7 = torch.einsum("oi,bihw->bohw", loaded.conv7[0].weight[:, :, 0, 0], conv6.relu())
            conv7 += loaded.conv7[0].bias.view(-1, 1, 1)
        torch.testing.assert_close(out["conv7"], conv7.relu(), rtol=1e-4, atol=1e-4 * conv7.abs().max().item())

    def test_imagenet_asks_torchvision_for_its_first_weights(self, monkeypatch, state):
        asked = []

        def answer(self, *args, **kwargs):
            asked.append((self, kwargs))
            return state

        monkeypatch.setattr(WeightsEnum, "get_state_dict", answer)
        model = VGGBackbone("vgg16", weights="imagenet")
        assert asked == [(VGG16_Weights.IMAGENET1K_V1, {"progress": False, "check_hash": True})]
        assert torch.equal(model.conv7[0].bias, state["classifier.3.bias"][::4])

    def test_what_does_not_fit_is_named(self, state, tmp_path):
        """A file without the dense layers, and one of another network; torchvision's 1000 scores may be missing."""
        path = tmp_path / "features.pth"
        torch.save({key: value for key, value in state.items() if "features" in key}, path)
        with pytest.raises(UserError) as error:
            VGGBackbone("vgg16", weights=str(path))
        assert str(error.value).endswith(
            "features.pth does not fit the backbone's name, width and norm: classifier.0.weight missing; "
            "classifier.0.bias missing; classifier.3.weight missing and 1 more"
        )
        torch.save({**state, "classifier.3.bias": torch.zeros(7)}, path)
        with pytest.raises(UserError, match=r"norm: classifier\.3\.bias is \[7\], not \[4096\]$"):
            VGGBackbone("vgg16", weights=str(path))
        with pytest.raises(UserError, match=r"nowhere\.pth: no such file"):
            VGGBackbone("vgg16", weights=str(tmp_path / "nowhere.pth"))

    @pytest.mark.parametrize("options", [{"width": 0.5}, {"norm": "bn"}])
    def test_they_want_the_plain_network(self, options):
        with pytest.raises(UserError, match=r"weights=imagenet needs model\.backbone\.width=1 and norm=null, not "):
            VGGBackbone("vgg16", weights="imagenet", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vgg19"}, r"model\.backbone\.name='vgg19' is unknown; choose one of vgg16"),
        ({"width": 0.0}, r"model\.backbone\.width=0\.0 must be positive"),
        ({"norm": "none"}, "norm='none' is unknown"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        VGGBackbone(**{"name": "vgg16", **options})
