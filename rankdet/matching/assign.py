"""From a detector's output and the images' objects to what the losses see."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.ops import box_area

from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.losses.inputs import LossInputs
from rankdet.matching.boxes import Coder
from rankdet.matching.max_iou import IGNORED
from rankdet.models.output import DetectorOutput
from rankdet.models.padding import in_padding

IGNORED_SHARE = 0.5  # of an anchor's own area; IoU would never reach a large crowd region


class Matcher(Protocol):
    """Which object, if any, each anchor of one image answers for."""

    def __call__(self, anchors: Tensor, boxes: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Anchors [A, 4], so many per pyramid level, objects [G, 4] (G may be 0), xyxy -> int64 [A]: the object's
        index, NEGATIVE or IGNORED (see matching/max_iou.py)."""


class Predictions(NamedTuple):
    """What a network says of one image: A anchors or queries, K classes."""

    scores: Tensor  # float [A, K] in [0, 1]
    deltas: Tensor  # float [A, 4]
    boxes: Tensor  # float [A, 4]: deltas decoded, xyxy, pixels of the network's input


class PredictionMatcher(Protocol):
    """Which object, if any, each query of one image answers for, whose place is what it predicts."""

    def by_prediction(self, predicted: Predictions, boxes: Tensor, classes: Tensor, deltas: Tensor) -> Tensor:
        """Objects [G, 4] (G may be 0), xyxy, of classes int64 [G] in 0..K-1, and their deltas [A, G, 4] for each query
        -> int64 [A]: as Matcher's."""


def build_loss_inputs(
    output: DetectorOutput,
    targets: Sequence[Target],
    matcher: Matcher | PredictionMatcher,
    coder: Coder,
    num_classes: int,
    probabilities: Callable[[Tensor], Tensor] = torch.sigmoid,
) -> LossInputs:
    """Matches every image's anchors (see LossInputs for the shapes); K = num_classes, one positive class per anchor.

    Objects flagged `ignore` are matched to nothing: anchors of which they cover more than half become -1 in every
    class, unless an object has them (not so where a PredictionMatcher matches: DETR leaves such objects out); so do
    anchors whose cell lies in the padding and those that the output leaves out. With num_classes = 1 objects of all
    classes are one. Targets may lie on another device. No gradient flows to anchors or targets. probabilities: logits
    [..., C] -> scores [..., K], as the loss means them, for a PredictionMatcher; UserError where such an image has more
    objects than queries.
    """
    device = output.anchors.device
    matches, boxes, classes = [], [], []
    num_objects = 0
    for image, target in enumerate(targets):
        matched, objects, of_class = _match_image(output, image, target, matcher, coder, num_classes, probabilities)
        matches.append(torch.where(matched >= 0, matched + num_objects, matched))
        boxes.append(objects)
        classes.append(of_class)
        num_objects += len(objects)
    match = torch.cat(matches)  # [B * A], indices into the objects of the whole batch
    rows = (match >= 0).nonzero().squeeze(1)  # [P]
    objects = match[rows]
    target_boxes = torch.cat(boxes)[objects]
    target_classes = torch.cat(classes)[objects]
    positives = rows * num_classes + target_classes
    labels = (match == IGNORED).to(torch.int8).neg().repeat_interleave(num_classes)
    labels[positives] = 1
    num_anchors = output.anchors.shape[-2]
    positive_anchors = output.anchors.reshape(-1, 4)[rows if output.anchors.dim() == 3 else rows % num_anchors]
    pred_deltas = output.deltas.flatten(0, 1)[rows]  # [P, 4], or [P, K, 4]
    if pred_deltas.dim() == 3:
        pred_deltas = pred_deltas[torch.arange(len(rows), device=device), target_classes]
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


def _match_image(
    output: DetectorOutput,
    image: int,
    target: Target,
    matcher: Matcher | PredictionMatcher,
    coder: Coder,
    num_classes: int,
    probabilities: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """int64 [A] as a matcher's answer, and of the objects that it refers to the boxes [G, 4] and classes [G]."""
    anchors, device = output.anchors_of(image), output.anchors.device
    wanted = ~target.ignore  # chosen where the targets are: on a GPU each choice would wait for all work before it
    objects, classes = target.boxes[wanted].to(device), target.labels[wanted].to(device)
    if num_classes == 1:
        classes = torch.zeros_like(classes)
    if hasattr(matcher, "by_prediction"):
        if len(objects) > len(anchors):
            raise UserError(
                f"image {target.image_id} has {len(objects)} objects, more than the model's {len(anchors)} queries: "
                "raise model.num_queries"
            )
        predicted = _predictions(output, image, coder, probabilities)
        matched = matcher.by_prediction(predicted, objects, classes, coder.encode(anchors[:, None], objects))
        idle = torch.zeros_like(matched, dtype=torch.bool)
    else:
        matched = matcher(anchors, objects, output.level_sizes)
        idle = covered(anchors, target.boxes[target.ignore].to(device))
    if target.shown is not None and output.anchors.dim() == 2:
        idle |= in_padding(anchors, output.level_sizes, target.shown)
    if output.taking_part is not None:
        idle |= ~output.taking_part[image]
    return torch.where((matched < 0) & idle, IGNORED, matched), objects, classes


@torch.no_grad()
def _predictions(
    output: DetectorOutput, image: int, coder: Coder, probabilities: Callable[[Tensor], Tensor]
) -> Predictions:
    deltas = output.deltas[image]
    return Predictions(probabilities(output.logits[image]), deltas, coder.decode(output.anchors_of(image), deltas))
