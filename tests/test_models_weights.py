"""Initial backbone weights: by torchvision's name, from a file, and what does not fit."""

import urllib.error

import pytest
import torch
import torchvision
from torchvision.models import ResNet50_Weights, WeightsEnum

from rankdet.errors import UserError
from rankdet.models.backbones import ResNetBackbone


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
