"""timm's feature extractors as backbones. All but the last tests need the optional extra."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from rankdet.build import make
from rankdet.config import compose
from rankdet.errors import UserError
from rankdet.models.output import DetectorOutput
from rankdet.models.timm_backbone import TimmBackbone

SMALL = "test_resnet"  # half a million parameters, made for tests
# Architectures that timm takes apart in different ways: the parameters' names with dots or underscores, or prefixed.
KINDS = {
    "test_resnet": ("c2", "c3", "c4", "c5"),
    "convnext_atto": ("c3", "c4", "c5"),
    "mobilenetv3_small_050": ("c3", "c4", "c5"),
    "test_vit": ("c4",),
}
NAMES = [pytest.param(name, marks=[] if name.startswith("test_") else pytest.mark.full) for name in KINDS]


@pytest.fixture
def timm() -> ModuleType:
    return pytest.importorskip("timm", reason="timm is an optional extra: pip install -e '.[timm]'")


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_timm_s(name, timm):
    """Of the strides asked for and, where there are several of one, the last; with the channels told."""
    outputs = KINDS[name]
    model = TimmBackbone(name, outputs=outputs).eval()
    assert list(model.strides) == list(model.channels) == list(outputs)
    with torch.device("meta"):
        every = timm.create_model(name, features_only=True).feature_info
    levels = [max(i for i, s in enumerate(every.reduction()) if s == stride) for stride in model.strides.values()]
    assert list(model.channels.values()) == [every.channels()[level] for level in levels]
    theirs = timm.create_model(name, features_only=True, out_indices=levels).eval()
    theirs.load_state_dict(model.features.state_dict())
    x = torch.randn(2, 3, 64, 96)
    maps = model(x)
    assert list(maps) == list(outputs)
    for (key, value), expected in zip(maps.items(), theirs(x), strict=True):
        assert torch.equal(value, expected)
        assert value.shape == (2, model.channels[key], 64 // model.strides[key], 96 // model.strides[key])


@pytest.mark.full
def test_channels_come_second_where_timm_has_them_last(timm):
    model = TimmBackbone("swin_tiny_patch4_window7_224", options={"strict_img_size": False})
    shapes = [tuple(x.shape) for x in model(torch.randn(1, 3, 64, 96)).values()]
    assert shapes == [(1, 192, 8, 12), (1, 384, 4, 6), (1, 768, 2, 3)]


def made_up(timm: ModuleType, name: str) -> dict[str, torch.Tensor]:
    """A state dict of timm's full model, classifier included, each entry one number of its own."""
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    return {
        key: torch.full(value.shape, i, dtype=value.dtype, device="cpu") for i, (key, value) in enumerate(state.items())
    }


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("name", NAMES)
def test_every_layer_of_a_file_arrives(name, ending, timm, tmp_path):
    state = made_up(timm, name)
    path = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save({"state_dict": state}, path)
    else:
        pytest.importorskip("safetensors.torch").save_file(state, path)
    model = TimmBackbone(name, weights=str(path), outputs=KINDS[name])
    by_value = {float(value.flatten()[0]): key for key, value in state.items()}
    loaded = model.features.state_dict()
    assert len(loaded) > 20
    for key, value in loaded.items():
        assert torch.equal(value, state[by_value[float(value.flatten()[0])]])
        assert by_value[float(value.flatten()[0])].replace(".", "_") == key.removeprefix("model.").replace(".", "_")


def test_a_file_that_does_not_fit(timm, tmp_path):
    state = made_up(timm, SMALL)
    path = tmp_path / "weights.pth"
    torch.save({key: value for key, value in state.items() if key != "layer1.0.conv1.weight"}, path)
    with pytest.raises(UserError, match=r"weights\.pth does not fit .*: layer1\.0\.conv1\.weight missing$"):
        TimmBackbone(SMALL, weights=str(path))
    torch.save(state | {"layer3.1.conv1.weight": torch.zeros(1)}, path)  # as of a deeper network
    with pytest.raises(UserError, match=r": layer3\.1\.conv1\.weight not in the model$"):
        TimmBackbone(SMALL, weights=str(path))
    torch.save(state | {"layer1.0.bn1.bias": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=r": layer1\.0\.bn1\.bias is \[3\], not \[32\]$"):
        TimmBackbone(SMALL, weights=str(path))
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"weights\.pth: timm cannot read this file \(\w+\); is it whole\?$"):
        TimmBackbone(SMALL, weights=str(path))
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file; give a state-dict file, imagenet or null"):
        TimmBackbone(SMALL, weights=str(tmp_path / "nowhere.pth"))


def test_imagenet_asks_timm(timm, monkeypatch):
    asked = []

    def load_pretrained(model, pretrained_cfg, **_options):
        asked.append(pretrained_cfg["architecture"])
        nn.init.constant_(model.conv1[0].weight, 3.0)

    monkeypatch.setattr(sys.modules["timm.models._builder"], "load_pretrained", load_pretrained)
    model = TimmBackbone(SMALL, weights="imagenet")
    assert asked == [SMALL]
    assert (model.features.state_dict()["conv1.0.weight"] == 3.0).all()
    TimmBackbone(SMALL)
    assert asked == [SMALL]


def test_imagenet_without_a_network(timm, monkeypatch):
    def load_pretrained(*_args, **_options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(sys.modules["timm.models._builder"], "load_pretrained", load_pretrained)
    with pytest.raises(UserError, match=r"weights of test_resnet \(ConnectionError: no route to host\); give the path"):
        TimmBackbone(SMALL, weights="imagenet")


def test_frozen_batch_norm_is_constant(timm):
    """In train mode the maps are those of eval mode, and neither statistics nor affines change."""
    torch.manual_seed(0)
    model = TimmBackbone(SMALL, norm="frozen_bn")
    torch.manual_seed(0)
    plain = TimmBackbone(SMALL).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    maps = model.train()(x)
    for key, value in plain(x).items():
        torch.testing.assert_close(maps[key], value)
    maps["c5"].square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert len(changed) > 5
    assert all(before[key].dim() == 4 for key in changed)


def test_configured_detector(timm):
    """configs/model/retinanet_timm.yaml with the smallest name in the place of its own."""
    overrides = ["model=retinanet_timm", f"model.backbone.name={SMALL}", "model.backbone.weights=null"]
    model = build(compose(overrides))
    output = model(torch.randint(0, 256, (1, 3, 120, 160), dtype=torch.uint8))
    assert isinstance(output, DetectorOutput)
    assert output.level_sizes == tuple(6 * cells for cells in (15 * 20, 8 * 10, 4 * 5, 2 * 3, 1 * 2))
    (output.logits.sum() + output.deltas.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.full
def test_paper_sized_config(timm):
    """ConvNeXt-T's published 28 589 128 parameters less the classifier's and its norm's."""
    cfg = compose(["model=retinanet_timm", "model.backbone.weights=null"])
    with torch.device("meta"):
        backbone = build(cfg).backbone
    assert backbone.channels == {"c3": 192, "c4": 384, "c5": 768}
    assert sum(p.numel() for p in backbone.parameters()) == 28_589_128 - 769_000 - 2 * 768


def build(cfg) -> nn.Module:
    return make(cfg.model, num_channels=3, prior_bias=torch.full((3,), -4.6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet51"}, r"model\.backbone\.name='resnet51' is no model of timm; there are resnet.* and others"),
        ({"name": "???"}, r"name='\?\?\?' is no model of timm; there are resnet50, convnext_tiny and others"),
        ({"norm": "gn"}, r"model\.backbone\.norm='gn' is unknown; choose null or frozen_bn"),
        ({"name": "convnext_atto", "norm": "frozen_bn"}, r"norm=frozen_bn: convnext_atto has no batch norm; set"),
        ({"outputs": ["c5", "c3"]}, r"model\.backbone\.outputs=\['c5', 'c3'\] must be some of c2, c3, c4, c5 in this"),
        (
            {"name": "test_vit"},
            r"name=test_vit gives maps of stride 16, 16, 16; .*\['c3', 'c4', 'c5'\] needs 8, 16, 32",
        ),
        (
            {"options": {"depth": 7}},
            r"timm cannot make a feature extractor of test_resnet with options \{'depth': 7\} \(",
        ),
    ],
)
def test_bad_options(options, message, timm):
    with pytest.raises(UserError, match=message) as caught:
        TimmBackbone(**{"name": SMALL, **options})
    assert "\n" not in str(caught.value)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs timm, which is not installed: pip install -e '\.\[timm\]'"):
        TimmBackbone(SMALL)
