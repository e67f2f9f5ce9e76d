"""From images to detections by a real network: alone or in company, padded, mirrored, at several scales, by rules."""

from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pytest
import torch
from drawn_sets import record
from PIL import Image
from torch import nn
from torchvision.ops import box_iou

from rankdet.build import build_detector
from rankdet.config import compose
from rankdet.data.image import read_image
from rankdet.data.loader import evaluation_loader
from rankdet.data.records import DetectionSet
from rankdet.data.view_dataset import ViewDataset, image_batches
from rankdet.data.views import KeepAspect, Stretch
from rankdet.evaluation.inference import candidates, detect_all, detect_by_rules, detect_image
from rankdet.evaluation.postprocess import PostProcess
from rankdet.matching.boxes import BoxCoder
from rankdet.models.output import DetectorOutput

CPU = torch.device("cpu")
CATEGORIES = (1, 2, 3)
SIZES = [(40, 60), (60, 40), (45, 60), (40, 64), (30, 90), (41, 60), (64, 64), (40, 60), (43, 61)]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Nine pictures of noise, of seven shapes, with one object each."""
    folder = tmp_path_factory.mktemp("images")
    records = []
    for i, (height, width) in enumerate(SIZES):
        item = record(folder / f"{i}.png", 10 + i, height, width, [[3, 4, 25, 30]], [i % 3])
        noise = np.random.default_rng(i).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        pixels = noise.repeat(4, 0).repeat(4, 1)[:height, :width]
        Image.fromarray(pixels).save(item.path)
        records.append(item)
    return DetectionSet("noise", "test", ("a", "b", "c"), CATEGORIES, tuple(records))


@pytest.fixture(scope="module", params=["bn", "gn"])
def detector(request):
    """The mini protocol's network with random weights, whose scores spread widely; group norm sees the whole input."""
    torch.manual_seed(0)
    rule = ["prior=0.5", "evaluation.score_threshold=0.1", "evaluation.pre_nms_top=60"]
    cfg = compose([f"model.backbone.norm={request.param}", *rule])
    made = build_detector(cfg, 3)
    for output, size in ((made.model.heads.class_output, 1.0), (made.model.heads.box_output, 0.3)):
        nn.init.normal_(output.weight, std=size)
    made.model.eval()
    return made


def keep(scales=(1.0,), flip=False, stride=32):
    """A shorter side of 48 and the padding of configs/test_input."""
    return KeepAspect(48, 1.66, scales, flip, stride, [123.675, 116.28, 103.53])


def by_image(results):
    found = {}
    for result in results:
        found.setdefault(result["image_id"], []).append(result)
    return found


def assert_same_detections(ours, theirs):
    """To float tolerance: another batch size may sum in another order."""
    assert [r["image_id"] for r in ours] == [r["image_id"] for r in theirs]
    assert [r["category_id"] for r in ours] == [r["category_id"] for r in theirs]
    np.testing.assert_allclose([r["score"] for r in ours], [r["score"] for r in theirs], atol=1e-5)
    np.testing.assert_allclose([r["bbox"] for r in ours], [r["bbox"] for r in theirs], atol=1e-2)


@pytest.mark.parametrize("stride", [32, 64])
def test_an_image_is_the_same_alone_and_in_company(detector, images, stride):
    """Without padding and alone; padded in batches of four; in shares of two and three processes."""
    alone = detect_all(detector, evaluation_loader(ViewDataset(images, keep(stride=1)), 1), CATEGORIES, CPU)
    dataset = ViewDataset(images, keep(stride=stride))
    assert max(len(batch.targets) for batch in evaluation_loader(dataset, 4)) == 4
    assert by_image(alone).keys() == {10 + i for i in range(len(SIZES))}
    assert [r["image_id"] for r in alone] == sorted(r["image_id"] for r in alone)
    assert_same_detections(detect_all(detector, evaluation_loader(dataset, 4), CATEGORIES, CPU), alone)
    for world_size in (2, 3):
        shares = [
            detect_all(detector, evaluation_loader(dataset, 4, rank, world_size), CATEGORIES, CPU)
            for rank in range(world_size)
        ]
        together = sorted(chain(*shares), key=lambda result: result["image_id"])
        assert_same_detections(together, alone)


def test_boxes_stay_in_their_images(detector, images):
    """Random deltas send many boxes over the border; none comes back outside, and some lie at the edge."""
    dataset = ViewDataset(images, keep(stride=64, flip=True))
    at_edge = 0
    for result in detect_all(detector, evaluation_loader(dataset, 4), CATEGORIES, CPU):
        height, width = SIZES[result["image_id"] - 10]
        x, y, w, h = result["bbox"]
        assert x >= 0 and y >= 0 and w > 0 and h > 0
        assert x + w <= width + 1e-4 and y + h <= height + 1e-4
        at_edge += x + w > width - 1e-4
    assert at_edge > 10


def test_views_of_one_image_and_of_a_data_set_give_the_same(detector, images):
    """What predictions do and what evaluation does, with three scales and their mirror images."""
    views = keep([0.5, 1.0], flip=True)
    found = by_image(detect_all(detector, evaluation_loader(ViewDataset(images, views), 4), CATEGORIES, CPU))
    for item in images.records:
        one = detect_image(detector, image_batches(read_image(item.path), views), CPU)
        theirs = found[item.image_id]
        assert [CATEGORIES[label] for label in one.labels] == [r["category_id"] for r in theirs]
        np.testing.assert_allclose(one.scores, [r["score"] for r in theirs], atol=1e-5)


def test_detect_is_one_view_s_detections(detector, images):
    """Of a stretch, the only one; their order is that of the batch."""
    (batch,) = evaluation_loader(ViewDataset(images, Stretch((64, 96))), 16)
    found = [detector.postprocess.select(each) for each in candidates(detector, batch, CPU)]
    results = by_image(detect_all(detector, [batch], CATEGORIES, CPU))
    assert len(found) == len(SIZES)
    for target, detections in zip(batch.targets, found, strict=True):
        assert detections.scores.tolist() == [r["score"] for r in results[target.image_id]]
    assert not detector.model.training


def test_rules_by_one_pass_equal_each_alone(detector, images, monkeypatch):
    """Five rules: the same results as five passes, and the network runs once a batch."""
    rules = [
        PostProcess(0.0, 60),
        PostProcess(0.5, 60, nms_iou=0.2),
        PostProcess(0.1, 60, nms_iou=0.7, detections=5),
        PostProcess(0.1, 7),
        PostProcess(0.7, 60),
    ]
    dataset = ViewDataset(images, keep([0.5, 1.0]))
    passes = []
    forward = detector.model.forward
    monkeypatch.setattr(detector.model, "forward", lambda x: passes.append(len(x)) or forward(x))
    together = detect_by_rules(detector, evaluation_loader(dataset, 4), CATEGORIES, CPU, rules)
    assert sum(passes) == 2 * len(SIZES)
    counts = []
    for rule, results in zip(rules, together, strict=True):
        alone = detect_all(replace(detector, postprocess=rule), evaluation_loader(dataset, 4), CATEGORIES, CPU)
        assert results == alone
        counts.append(len(results))
    assert 0 < counts[2] <= 5 * len(SIZES) < counts[0]
    assert len(set(counts)) >= 4


class Bright(nn.Module):
    """Finds the bright square by hand: one anchor a pixel block of 4, its score the block's brightness."""

    coder = BoxCoder()

    def forward(self, images):
        """Anchors of 16 x 16 around each block of 4 x 4."""
        grey = images.float().mean(1, keepdim=True) / 255
        blocks = nn.functional.avg_pool2d(nn.functional.avg_pool2d(grey, 4), 5, 1, padding=2, count_include_pad=False)
        rows, columns = blocks.shape[2:]
        y, x = torch.meshgrid(4 * torch.arange(rows) + 2.0, 4 * torch.arange(columns) + 2.0, indexing="ij")
        anchors = torch.stack([x - 8, y - 8, x + 8, y + 8], -1).reshape(-1, 4)
        logits = blocks.flatten(1)[:, :, None]
        return DetectorOutput(logits, torch.zeros(len(images), len(anchors), 4), anchors, (len(anchors),))


@dataclass
class BrightDetector:
    model: nn.Module
    postprocess: PostProcess

    def detections_output(self, images, targets):
        """Its only output."""
        return self.model(images)

    def probabilities(self, logits):
        """The logits are scores already."""
        return logits


@pytest.mark.parametrize(
    ("scales", "flip", "side"), [([1.0], False, 16), ([1.0], True, 16), ([2.0], False, 8), ([0.5, 1.0, 2.0], True, 8)]
)
def test_a_square_is_found_where_it_is_by_every_view(tmp_path, scales, flip, side):
    """White squares on black in images of three shapes, whose padding is grey: found at the squares' places.

    The network looks for 16 x 16 pixels, so that of an 8 x 8 square's views only that of scale 2 fits; the pooled
    candidates' NMS keeps it, as its score is the highest.
    """
    squares = {(80, 120): (88, 24), (120, 72): (16, 88), (64, 64): (40, 8)}  # left, top; multiples of 8
    records = []
    for i, ((height, width), (left, top)) in enumerate(squares.items()):
        item = record(tmp_path / f"{i}.png", i, height, width, [[left, top, left + side, top + side]], [0])
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[top : top + side, left : left + side] = 255
        Image.fromarray(pixels).save(item.path)
        records.append(item)
    detection_set = DetectionSet("squares", "test", ("white",), (1,), tuple(records))
    detector = BrightDetector(Bright(), PostProcess(score_threshold=0.2, detections=1))
    for i, shape in enumerate(squares):
        one = replace(detection_set, records=(records[i],))
        views = KeepAspect(min(shape), 3.0, scales, flip, 32, [120, 120, 120])
        (found,) = detect_all(detector, evaluation_loader(ViewDataset(one, views), 2), (1,), CPU)
        x, y, w, h = found["bbox"]
        iou = box_iou(torch.tensor([[x, y, x + w, y + h]]), torch.from_numpy(records[i].boxes))
        assert iou.item() > 0.6, (shape, found)
