"""From a detector's output and the images' objects to what the losses see."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.ops import box_area

from rankdet.data.records import Target
from rankdet.losses.inputs import LossInputs
from rankdet.matching.boxes import BoxCoder
from rankdet.matching.max_iou import IGNORED
from rankdet.models.output import DetectorOutput

IGNORED_SHARE = 0.5  # of an anchor's own area; IoU would never reach a large crowd region

Matcher = Callable[[Tensor, Tensor], Tensor]  # (anchors [A, 4], boxes [G, 4]) -> int64 [A], see MaxIoUMatcher


def build_loss_inputs(
    output: DetectorOutput, targets: Sequence[Target], matcher: Matcher, coder: BoxCoder, num_classes: int
) -> LossInputs:
    """Matches every image's anchors (see LossInputs for the shapes); K = num_classes, one positive class per anchor.

    Objects flagged `ignore` are matched to nothing: anchors of which they cover more than half become -1 in every
    class, unless an object has them. Targets may lie on another device. No gradient flows to anchors or targets.
    """
    anchors, device = output.anchors, output.anchors.device
    num_anchors = len(anchors)
    matches, boxes, classes = [], [], []
    num_objects = 0
    for target in targets:
        target_boxes, ignore = target.boxes.to(device), target.ignore.to(device)
        objects = target_boxes[~ignore]
        matched = matcher(anchors, objects)
        unmatched = torch.where(covered(anchors, target_boxes[ignore]), IGNORED, matched)
        matches.append(torch.where(matched >= 0, matched + num_objects, unmatched))
        boxes.append(objects)
        classes.append(target.labels.to(device)[~ignore])
        num_objects += len(objects)
    match = torch.cat(matches)  # [B * A], indices into the objects of the whole batch
    rows = (match >= 0).nonzero().squeeze(1)  # [P]
    objects = match[rows]
    target_boxes = torch.cat(boxes)[objects]
    positives = rows * num_classes + torch.cat(classes)[objects]
    labels = (match == IGNORED).to(torch.int8).neg().repeat_interleave(num_classes)
    labels[positives] = 1
    positive_anchors = anchors[rows % num_anchors]
    pred_deltas = output.deltas.reshape(-1, 4)[rows]
    return LossInputs(
        logits=output.logits,
        labels=labels.view(len(targets), num_anchors, num_classes),
        positives=positives,
        pred_deltas=pred_deltas,
        target_deltas=coder.encode(positive_anchors, target_boxes),
        pred_boxes=coder.decode(positive_anchors, pred_deltas),
        target_boxes=target_boxes,
    )


def covered(anchors: Tensor, regions: Tensor) -> Tensor:
    """Anchors [A, 4] and regions [R, 4], xyxy -> bool [A]: a region holds more than half of the anchor. R may be 0."""
    top_left = torch.maximum(anchors[:, None, :2], regions[:, :2])
    bottom_right = torch.minimum(anchors[:, None, 2:], regions[:, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(dim=2)  # [A, R]
    return (shared > IGNORED_SHARE * box_area(anchors)[:, None]).any(dim=1)
