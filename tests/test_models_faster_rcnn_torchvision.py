"""The paper's Faster R-CNN against torchvision's: parameters, shapes, and the same numbers from the same weights."""

from functools import lru_cache
from typing import NamedTuple

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from rankdet.build import Detector, build_detector
from rankdet.config import compose
from rankdet.data.records import Batch, Target
from rankdet.evaluation.inference import candidates
from rankdet.models.output import DetectorOutput

CLASSES = 3
SIZE = (160, 192)
NAMES = {  # of layers, theirs and ours
    "backbone.body.": "backbone.",
    "backbone.fpn.": "fpn.pyramid.",
    "rpn.head.conv.0.0.": "rpn.conv.",
    "rpn.head.cls_logits.": "rpn.score_output.",
    "rpn.head.bbox_pred.": "rpn.box_output.",
    "roi_heads.box_head.fc6.": "roi_head.hidden.0.",
    "roi_heads.box_head.fc7.": "roi_head.hidden.2.",
    "roi_heads.box_predictor.cls_score.": "roi_head.score_output.",
    "roi_heads.box_predictor.bbox_pred.": "roi_head.box_output.",
}


@lru_cache
def config() -> DictConfig:
    """The paper's, but for torchvision's RoIAlign, which is neither aligned nor adaptive."""
    groups = ["model=faster_rcnn_r50", "rpn=ce", "matching=roi", "loss=cross_entropy", "evaluation=faster_rcnn"]
    align = ["model.roi_head.align.sampling_ratio=2", "model.roi_head.align.aligned=false"]
    return compose([*groups, "model.backbone.weights=null", *align])


def targets(*objects: list[float]) -> list[Target]:
    """The same objects in each of two images."""
    none = torch.zeros(len(objects), dtype=torch.bool)
    boxes = torch.tensor(objects).view(-1, 4)
    return [Target(boxes, none.long(), none, image, SIZE) for image in range(2)]


class OurAnchors(AnchorGenerator):
    """Theirs are rounded, and centred at the cells' corners."""

    def __init__(self, anchors):
        super().__init__()
        self.anchors = anchors

    def num_anchors_per_location(self):
        return [self.anchors.num_per_cell] * 5

    def forward(self, image_list, feature_maps):
        found = self.anchors([(x.shape[-2], x.shape[-1]) for x in feature_maps], torch.device("cpu"))
        return [found for _ in image_list.image_sizes]


class Pair(NamedTuple):
    """Two detectors of the same weights, and what they make of the same two images."""

    ours: Detector
    theirs: FasterRCNN
    images: Tensor
    first: DetectorOutput
    second: DetectorOutput
    features: dict[str, Tensor]  # theirs
    rois: list[Tensor]  # our proposals


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(3)
    ours = build_detector(config(), CLASSES)
    anchors = OurAnchors(ours.model.anchors)
    theirs = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES + 1, rpn_anchor_generator=anchors
    ).eval()
    for name, p in theirs.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.constant_(p, 0.2)  # else random weights make numbers of millions
    nn.init.normal_(theirs.rpn.head.cls_logits.weight, std=0.5)
    nn.init.normal_(theirs.rpn.head.bbox_pred.weight, std=0.02)
    nn.init.normal_(theirs.roi_heads.box_predictor.cls_score.weight, std=0.1)
    ours.model.load_state_dict(renamed(theirs.state_dict()))  # strict: each layer has its counterpart
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    with torch.no_grad():
        first, second = ours.model.eval()(images, targets())
        features = theirs.backbone(ours.model.pixel_norm(images))
    rois = [boxes[kept] for boxes, kept in zip(second.anchors, second.taking_part, strict=True)]
    return Pair(ours, theirs, images, first, second, features, rois)


def renamed(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of theirs with our names. Background, their class 0, is our last, and has no box of its own."""
    state = {}
    for name, value in theirs.items():
        layer = next(layer for layer in NAMES if name.startswith(layer))
        if layer.endswith("cls_score."):
            value = value.roll(-1, 0)
        elif layer.endswith("box_predictor.bbox_pred."):
            value = value[4:]
        if not name.endswith("num_batches_tracked"):
            state[name.replace(layer, NAMES[layer])] = value
    return state


@pytest.mark.full
def test_first_stage(pair):
    """Scores of all anchors, and the proposals: the same boxes in the same order."""
    with torch.no_grad():
        scores, _ = pair.theirs.rpn.head(list(pair.features.values()))
        proposals, _ = pair.theirs.rpn(ImageList(pair.images.float(), [SIZE] * 2), pair.features)
    flat = torch.cat([x.permute(0, 2, 3, 1).reshape(2, -1) for x in scores], dim=1)
    assert flat.std() > 0.1
    torch.testing.assert_close(pair.first.logits[..., 0], flat, rtol=1e-4, atol=1e-4)
    for ours, expected in zip(pair.rois, proposals, strict=True):
        assert len(expected) > 100
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.full
def test_second_stage(pair):
    """Their head on our proposals."""
    heads = pair.theirs.roi_heads
    with torch.no_grad():
        pooled = heads.box_roi_pool(pair.features, pair.rois, [SIZE] * 2)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
    ours = pair.second.logits[pair.second.taking_part]
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, logits.roll(-1, 1), rtol=1e-4, atol=1e-4)
    ours = pair.second.deltas[pair.second.taking_part]
    torch.testing.assert_close(ours.flatten(1), deltas[:, 4:], rtol=1e-4, atol=1e-4)


@pytest.mark.full
def test_detections(pair):
    """Thresholds 0.05 and 0.5, 100 an image: the same boxes, classes and scores."""
    with torch.no_grad():
        expected, _ = pair.theirs.roi_heads(pair.features, pair.rois, [SIZE] * 2)
    found = candidates(pair.ours, Batch(pair.images, targets()), torch.device("cpu"))
    for ours, image in zip(map(pair.ours.postprocess.select, found), expected, strict=True):
        assert len(ours.boxes) == len(image["boxes"]) > 20
        torch.testing.assert_close(ours.scores, image["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.boxes, image["boxes"], rtol=1e-4, atol=1e-2)
        assert torch.equal(ours.labels, image["labels"] - 1)


@pytest.mark.full
def test_shapes(pair):
    """160 x 192: cells 40 x 48, 20 x 24, 10 x 12, 5 x 6, 3 x 3, three anchors each, sides 32 to 512; 512 regions in
    training, 1000 in evaluation."""
    first, second = pair.first, pair.second
    assert first.level_sizes == (5760, 1440, 360, 90, 27)
    assert first.logits.shape == (2, 7677, 1)
    assert first.deltas.shape == (2, 7677, 4)
    sides = (first.anchors[1::3, 2:] - first.anchors[1::3, :2]).unique()
    assert sides.tolist() == pytest.approx([32, 64, 128, 256, 512])
    assert second.level_sizes == (1000,)
    assert second.logits.shape == (2, 1000, CLASSES + 1)
    assert second.deltas.shape == (2, 1000, CLASSES, 4)
    assert second.anchors.shape == (2, 1000, 4)
    with torch.no_grad():
        _, trained = pair.ours.model.train()(pair.images, targets([10.0, 10, 90, 100]))
    pair.ours.model.eval()
    assert trained.logits.shape == (2, 512, CLASSES + 1)
    assert trained.taking_part.sum() > 512
    assert pair.ours.model.fpn.strides == (4, 8, 16, 32, 64)
    assert pair.ours.model.roi_head.align.strides == (4, 8, 16, 32)


def test_parameters():
    """For 20 classes: torchvision's less its BN affines, constant here, and less a box of background.

    By layer: ResNet-50 without its classifier and affines; laterals, four 3x3 convs and the RPN's; its 3 scores and 12
    deltas; two hidden layers on 7 x 7 x 256 numbers; 21 scores and 80 deltas.
    """
    with torch.device("meta"):
        model = build_detector(config(), 20).model
        theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=21)
    backbone = 25_557_032 - 2_049_000 - 53_120
    conv = 256 * 256 * 9 + 256
    fpn = sum(count * 256 + 256 for count in (256, 512, 1024, 2048)) + 4 * conv
    rpn = conv + 257 * (3 + 12)
    head = (7 * 7 * 256 + 1) * 1024 + 1025 * 1024 + 1025 * (21 + 80)
    count = sum(p.numel() for p in model.parameters())
    assert count == backbone + fpn + rpn + head
    assert count == sum(p.numel() for p in theirs.parameters()) - 53_120 - 4 * 1025
    frozen = {name.split(".")[0] for name, p in model.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}
