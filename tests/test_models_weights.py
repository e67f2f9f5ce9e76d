"""Initial backbone weights: by torchvision's name, from a file, and what does not fit."""

import urllib.error

import pytest
import torch
import torchvision
from torchvision.models import ResNet50_Weights, WeightsEnum

from rankdet.errors import UserError
from rankdet.models.backbones import ARCHITECTURES, ResNetBackbone


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A made-up state dict with the keys of torchvision's resnet18, classifier and BN counters included."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize("norm", ["bn", "frozen_bn"])
def test_every_key_of_a_file_arrives(norm, state, tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(state, path)
    model = ResNetBackbone("resnet18", norm=norm, weights=str(path))
    loaded = model.state_dict()
    kept = {k for k in state if not k.startswith("fc.") and not (norm == "frozen_bn" and "num_batches" in k)}
    assert set(loaded) == kept
    assert all(torch.equal(loaded[key], state[key]) for key in kept)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layer_of_torchvision_s_imagenet_weights_arrives(name, monkeypatch):
    """A made-up state dict of torchvision's keys and shapes, each entry one number of its own, under the right name."""
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None).state_dict()
    state = {key: torch.tensor(float(i)).expand(value.shape) for i, (key, value) in enumerate(theirs.items())}
    asked = []

    def answer(self, *args, **kwargs):
        asked.append(str(self))
        return state

    monkeypatch.setattr(WeightsEnum, "get_state_dict", answer)
    for function in ("kaiming_normal_", "kaiming_uniform_"):  # whatever was there before is overwritten
        monkeypatch.setattr(torch.nn.init, function, lambda tensor, *_args, **_options: tensor)
    model = ResNetBackbone(name, norm="frozen_bn", weights="imagenet")
    assert [answered.rpartition(".")[2] for answered in asked] == ["IMAGENET1K_V1"]
    assert asked[0].lower().startswith(name)
    loaded = model.state_dict()
    assert loaded.keys() == {key for key in state if not key.startswith("fc.") and "num_batches" not in key}
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


@pytest.mark.parametrize("name", ["resnet50", "resnext101_64x4d"])
def test_imagenet_weights_in_a_deformable_backbone(name, monkeypatch):
    """Every layer arrives, the 3x3 convolutions' included; only what torchvision lacks starts at zero."""
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None).state_dict()
    state = {key: torch.tensor(float(i)).expand(value.shape) for i, (key, value) in enumerate(theirs.items())}
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_args, **_options: state)
    for function in ("kaiming_normal_", "kaiming_uniform_"):
        monkeypatch.setattr(torch.nn.init, function, lambda tensor, *_args, **_options: tensor)
    model = ResNetBackbone(name, weights="imagenet", deformable=[3, 4, 5])
    new = {key: value for key, value in model.state_dict().items() if key not in state}
    assert new.keys() == {
        f"layer{stage}.{block}.conv2.offset.{part}"
        for stage, count in zip((2, 3, 4), ARCHITECTURES[name].depths[1:], strict=True)
        for block in range(count)
        for part in ("weight", "bias")
    }
    assert not any(value.any() for value in new.values())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items() if key not in new)


def test_a_trained_deformable_backbone_as_a_file(tmp_path):
    """Its offsets are read, too; a file that holds some of them only is refused."""
    options = {"name": "resnet50", "width": 0.125, "norm": "bn", "deformable": [5]}
    trained = ResNetBackbone(**options)
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter)
    path = tmp_path / "trained.pth"
    torch.save(trained.state_dict(), path)
    loaded = ResNetBackbone(**options, weights=str(path)).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in trained.state_dict().items())
    state = trained.state_dict()
    del state["layer4.1.conv2.offset.bias"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"norm: layer4\.1\.conv2\.offset\.bias missing$"):
        ResNetBackbone(**options, weights=str(path))
    with pytest.raises(UserError, match=r"layer4\.0\.conv2\.offset\.weight not in the model"):
        ResNetBackbone(**options | {"deformable": []}, weights=str(path))


def test_a_file_without_batch_counters_serves_trained_bn(state, tmp_path):
    path = tmp_path / "old.pth"
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, path)
    model = ResNetBackbone("resnet18", norm="bn", weights=str(path))
    assert torch.equal(model.bn1.running_var, state["bn1.running_var"])


def test_imagenet_asks_torchvision_for_its_first_weights(monkeypatch, state):
    asked = []

    def answer(self, *args, **kwargs):
        asked.append((self, kwargs))
        return torchvision.models.resnet50(weights=None).state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", answer)
    ResNetBackbone("resnet50", norm="frozen_bn", weights="imagenet")
    assert asked == [(ResNet50_Weights.IMAGENET1K_V1, {"progress": False, "check_hash": True})]


def test_imagenet_without_a_network(monkeypatch):
    def refuse(self, *args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", refuse)
    with pytest.raises(UserError, match=r"weights of resnet18 \(.*no route to host.*\); give the path of a downloaded"):
        ResNetBackbone("resnet18", weights="imagenet")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pth: no such file; give a state-dict file, imagenet or null"):
        ResNetBackbone("resnet18", weights=str(tmp_path / "nowhere.pth"))


def test_unreadable_files(state, tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save(state, whole)
    contents = {
        "empty": b"",
        "text": b"not a checkpoint\n",
        "cut": whole.read_bytes()[:20_000],
        "zeros": bytes(1000),
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.pth: torch.load cannot read this file"):
            ResNetBackbone("resnet18", weights=str(path))
    torch.save({"epoch": 3, "model": state}, tmp_path / "nested.pth")
    with pytest.raises(UserError, match=r"nested\.pth: holds no state dict"):
        ResNetBackbone("resnet18", weights=str(tmp_path / "nested.pth"))


def test_keys_and_shapes_that_do_not_fit_are_named(state, tmp_path):
    """Two keys gone, one foreign key, one wrong shape: four problems, three of them spelt out."""
    bad = dict(state)
    del bad["conv1.weight"], bad["bn1.weight"]
    bad["stem.weight"] = torch.zeros(1)
    bad["layer4.1.bn2.bias"] = torch.zeros(7)
    path = tmp_path / "bad.pth"
    torch.save(bad, path)
    with pytest.raises(UserError) as error:
        ResNetBackbone("resnet18", norm="bn", weights=str(path))
    assert str(error.value).endswith(
        "bad.pth does not fit the backbone's name, width and norm: conv1.weight missing; bn1.weight missing; "
        "stem.weight not in the model and 1 more"
    )
    path = tmp_path / "shape.pth"
    torch.save({**state, "layer4.1.bn2.bias": torch.zeros(7)}, path)
    with pytest.raises(UserError, match=r"norm: layer4\.1\.bn2\.bias is \[7\], not \[512\]$"):
        ResNetBackbone("resnet18", norm="bn", weights=str(path))


def test_batch_norm_weights_do_not_fit_group_norm(state, tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(state, path)
    with pytest.raises(UserError, match=r"norm: bn1\.running_mean not in the model"):
        ResNetBackbone("resnet18", norm="gn", weights=str(path))
