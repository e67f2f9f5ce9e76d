"""Backbones' options on the real path: composed, trained, tested, loaded again."""

import json
from pathlib import Path

import pytest
import tiny
import torch

from rankdet import train
from rankdet.config import compose, run_directory
from rankdet.models.deformable import DeformableConv2d
from rankdet.trained import load_trained

pytestmark = pytest.mark.full


def trained(folder: Path, *more: str) -> Path:
    """The directory of a finished tiny run."""
    arguments = tiny.overrides(folder, "splits.monitor=null", *more)
    done = tiny.call(train.main, arguments)
    assert done.code == 0, done.err
    return run_directory(compose(arguments))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "weights.pt")["model"]


def test_a_run_that_computes_activations_again_is_the_same_run(tmp_path):
    """Its directory's name, its weights and batch statistics, its metrics."""
    plain, again = (trained(tmp_path / v, f"model.backbone.checkpoint={v}") for v in ("false", "true"))
    assert plain.relative_to(tmp_path / "false") == again.relative_to(tmp_path / "true")
    ours, theirs = weights(again), weights(plain)
    assert len(ours) > 50
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    metrics = [json.loads((run / "record.json").read_text())["metrics"] for run in (plain, again)]
    assert metrics[0] == metrics[1]


def test_a_deformable_backbone_learns_where_to_look(tmp_path):
    """The mini detector on a bottleneck architecture; no other paper config has one that trains in seconds."""
    run = trained(tmp_path, "model.backbone.name=resnet50", "model.backbone.deformable=[4,5]")
    offsets = {key: value for key, value in weights(run).items() if ".offset." in key}
    assert len(offsets) == 2 * (6 + 3)
    assert all(value.any() and value.isfinite().all() for value in offsets.values())
    detector = load_trained(run, torch.device("cpu"), []).detector
    assert sum(isinstance(module, DeformableConv2d) for module in detector.model.modules()) == 6 + 3


def test_four_maps_and_faster_r_cnn_s_p6(tmp_path):
    run = trained(tmp_path, "model.backbone.outputs=[c2,c3,c4,c5]", "model.fpn.extra_levels=1")
    assert load_trained(run, torch.device("cpu"), []).detector.model.fpn.strides == (4, 8, 16, 32, 64)


def test_a_backbone_of_timm(tmp_path):
    pytest.importorskip("timm", reason="timm is an optional extra: pip install -e '.[timm]'")
    small = ["model.backbone.name=test_resnet", "model.backbone.weights=null", "model.heads.num_convs=1"]
    run = trained(tmp_path, "model=retinanet_timm", *small)
    assert "retinanet_test_resnet-" in run.parent.name
    model = load_trained(run, torch.device("cpu"), []).detector.model
    assert model.backbone.channels == {"c3": 48, "c4": 192, "c5": 96}
