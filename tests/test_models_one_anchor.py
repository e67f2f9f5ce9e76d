"""The detectors with one anchor per cell, as their configs build them: ATSS's RetinaNet and FoveaBox."""

from functools import lru_cache

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from rankdet.build import Detector, build_detector, make
from rankdet.config import CONFIG_DIR, compose, run_directory
from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.models.padding import in_padding

MINI = {
    "atss": ("model=retinanet_quarter_atss", "matching=atss"),
    "foveabox": ("model=foveabox_quarter", "matching=foveabox"),
}
PAPER = {
    "atss": ("model=retinanet_r50_atss", "matching=atss"),
    "foveabox": ("model=foveabox_r50", "matching=foveabox"),
}
LOSSES = sorted(path.stem for path in (CONFIG_DIR / "loss").glob("*.yaml"))


@lru_cache
def composed(*overrides: str) -> DictConfig:
    return compose(list(overrides))


def mini(kind: str, loss: str = "ap") -> Detector:
    """Seeded, three classes. box_loss=none for a loss that trains the boxes too."""
    cfg = composed(*MINI[kind]).copy()
    cfg.loss = OmegaConf.load(CONFIG_DIR / "loss" / f"{loss}.yaml")
    if getattr(make(cfg.loss), "has_box_loss", False):
        cfg.box_loss = {}
    torch.manual_seed(0)
    detector = build_detector(cfg, 3)
    detector.last.criterion.set_epoch_length(10)
    return detector


def target(*objects: tuple[float, float, float, float]) -> Target:
    boxes = torch.tensor(objects, dtype=torch.float32).reshape(-1, 4)
    return Target(boxes, torch.arange(len(boxes)) % 3, torch.zeros(len(boxes), dtype=torch.bool), 0, (64, 96))


@pytest.mark.parametrize(("kind", "side"), [("atss", 8), ("foveabox", 4)])
def test_paper_configs(kind, side):
    """Ours: RetinaNet's count with 1 instead of 6 outputs per cell; 512 x 512: 64^2 + 32^2 + 16^2 + 8^2 + 4^2 cells.

    Laterals c * 256 + 256, five 3x3 convs of the pyramid, two towers of four, 20 + 4 outputs.
    """
    cfg = composed(*PAPER[kind], "model.backbone.weights=null")
    with torch.device("meta"):
        detector = build_detector(cfg, 20)
    model = detector.model
    backbone = 25_557_032 - 2_049_000 - 53_120  # torchvision's ResNet-50, its classifier, its batch norms
    conv = 256 * 256 * 9 + 256
    fpn = (512 + 1024 + 2048) * 256 + 3 * 256 + 4 * conv + (2048 * 256 * 9 + 256)
    heads = 8 * conv + (256 * 9 + 1) * (20 + 4)
    assert sum(p.numel() for p in model.parameters()) == backbone + fpn + heads
    output = model(torch.empty(2, 3, 512, 512, dtype=torch.uint8, device="meta"))
    assert output.logits.shape == (2, 5_456, 20)
    assert output.deltas.shape == (2, 5_456, 4)
    assert output.level_sizes == (4_096, 1_024, 256, 64, 16)
    anchors = model.anchors([(64, 64), (32, 32), (16, 16), (8, 8), (4, 4)], torch.device("cpu"))
    sides = anchors[:, 2:] - anchors[:, :2]
    assert torch.equal(sides[:, 0], sides[:, 1])
    assert sides[:, 0].unique().tolist() == [side * stride for stride in (8, 16, 32, 64, 128)]


@pytest.mark.parametrize("kind", MINI)
def test_mini_configs(kind):
    """160 x 120: cells 15 x 20, 8 x 10, 4 x 5."""
    output = mini(kind).model(torch.randint(0, 256, (2, 3, 120, 160), dtype=torch.uint8))
    assert output.logits.shape == (2, 400, 3)
    assert output.deltas.shape == (2, 400, 4)
    assert output.level_sizes == (300, 80, 20)


def test_run_directories_tell_them_apart():
    names = {kind: run_directory(composed(*overrides)).parent.name for kind, overrides in MINI.items()}
    assert names["atss"].startswith("retinanet_resnet18-ap-")
    assert names["foveabox"].startswith("foveabox_resnet18-ap-")


def test_foveabox_refuses_more_anchors():
    with pytest.raises(UserError, match=r"one box per cell, not 3; set octave_scales=\[1.0\] and ratios=\[1.0\]"):
        build_detector(compose([*MINI["foveabox"], "model.anchors.ratios=[0.5,1.0,2.0]"]), 3)


def test_there_are_losses_to_test():
    assert {"alrp", "ap", "focal", "parameterized_ap", "rank_sort"} < set(LOSSES)


@pytest.mark.parametrize("kind", MINI)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_with_each_loss(kind, loss):
    """Two objects in one image, none in the other: all gradients are finite, and both outputs have one."""
    detector = mini(kind, loss)
    output = detector.model(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    inputs = detector.assign(output, [target((10, 10, 42, 42), (40, 8, 90, 60)), target()])
    assert (inputs.labels[0] == 1).any(dim=0).tolist() == [True, True, False]
    assert not inputs.labels[1].any()
    assert (inputs.labels >= 0).all()  # nothing is ignored
    total = detector.last.criterion(inputs).total
    total.backward()
    assert total.isfinite()
    assert all(p.grad.isfinite().all() for p in detector.model.parameters())
    assert detector.model.heads.class_output.weight.grad.any()
    assert detector.model.heads.box_output.weight.grad.any()


@pytest.mark.parametrize("kind", MINI)
@pytest.mark.parametrize("loss", ["ap", "alrp"])
def test_a_step_without_any_object(kind, loss):
    detector = mini(kind, loss)
    output = detector.model(torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8))
    inputs = detector.assign(output, [target()])
    assert not inputs.labels.any()
    total = detector.last.criterion(inputs).total
    total.backward()
    assert total == 0


@pytest.mark.parametrize(("kind", "num_positives"), [("atss", 0), ("foveabox", 1)])
def test_an_image_smaller_than_the_largest_stride(kind, num_positives):
    """16 x 16 pixels, cells 2 x 2, 1 and 1, so that each level has fewer than nine anchors; object (0, 0, 12, 12).

    ATSS: IoUs with the squares of 32, 64 and 128 are four times 0.14, 0.035 and 0.009, mean 0.10, deviation 0.06: no
    IoU reaches that. FoveaBox: 2.4 pixels about (6, 6) hold the first cell of level one, centred at (4, 4).
    """
    detector = mini(kind)
    output = detector.model.eval()(torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8))
    assert output.level_sizes == (4, 1, 1)
    inputs = detector.assign(output, [target((0, 0, 12, 12))])
    assert len(inputs.positives) == num_positives
    assert detector.last.criterion(inputs).total.isfinite()


@pytest.mark.parametrize("kind", MINI)
@pytest.mark.parametrize("shown", [(96, 160), (71, 129), (33, 100), (1, 160)])
def test_the_cells_that_padding_leaves(kind, shown):
    """Those of the image alone, in the same places; a padded one is no example to learn from."""
    detector = mini(kind)
    model = detector.model.eval()
    with torch.no_grad():
        alone = model(torch.zeros(1, 3, *shown, dtype=torch.uint8))
        padded = model(torch.zeros(1, 3, 96, 160, dtype=torch.uint8))
    kept = ~in_padding(padded.anchors, padded.level_sizes, shown)
    assert torch.equal(padded.anchors[kept], alone.anchors)
    inputs = detector.assign(padded, [target()._replace(shown=shown)])
    assert torch.equal(inputs.labels[0, :, 0] == -1, ~kept)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", MINI)
def test_the_gpu_matches_as_the_cpu_does(kind):
    """Objects of whole pixels, whose distances and overlaps tie."""
    detector = mini(kind)
    output = detector.model.eval()(torch.zeros(1, 3, 120, 160, dtype=torch.uint8))
    corners = torch.randint(0, 60, (50, 2), generator=torch.Generator().manual_seed(0))
    objects = torch.cat([corners, corners + 8 + corners.flip(0)], dim=1).float()

    def matched(anchors: Tensor, boxes: Tensor) -> list[int]:
        return detector.last.matcher(anchors, boxes, output.level_sizes).tolist()

    assert matched(output.anchors.cuda(), objects.cuda()) == matched(output.anchors, objects)
