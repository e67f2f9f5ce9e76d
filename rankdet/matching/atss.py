"""Adaptive training sample selection: the objects' own overlaps say from which one on an anchor is theirs."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from rankdet.matching.max_iou import NEGATIVE

INSIDE = 0.01  # pixels by which a positive's centre must lie within its object; the released program's


class ATSSMatcher:
    """ATSS (CVPR 2020), Algorithm 1: no threshold to choose, and nothing is ignored.

    An object's candidates are the `topk` anchors of each level whose centres are nearest to its own (all anchors of a
    level with fewer; of equal distances the earlier anchor). Those it claims whose IoU reaches mean + standard
    deviation (n - 1 in the denominator; 0 for a lone candidate) of all its candidates' IoUs, and whose centre is inside
    the object. Of several claims the highest IoU wins, then the earlier object. So an object goes without an anchor if
    no candidate of high IoU is centred inside it, or others win all that it claims.
    """

    def __init__(self, topk: int = 9) -> None:
        if topk < 1:
            raise ValueError(f"topk must be at least 1, not {topk}")
        self.topk = topk

    def __call__(self, anchors: Tensor, boxes: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Anchors [A, 4], objects [G, 4] (A and G may be 0), xyxy -> int64 [A]: object's index, -1 negative.

        level_sizes: anchors per level, finest first, summing to A; a level may have none.
        """
        if len(boxes) == 0 or len(anchors) == 0:
            return anchors.new_full((len(anchors),), NEGATIVE, dtype=torch.int64)
        x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).unbind(1)
        x1, y1, x2, y2 = boxes.unsqueeze(2).unbind(1)  # each [G, 1]
        distances = (x - (x1 + x2) / 2).square() + (y - (y1 + y2) / 2).square()  # [G, A]
        candidates = torch.cat([nearest(level, self.topk) for level in distances.split(list(level_sizes), dim=1)], 1)
        iou = box_iou(boxes, anchors)
        ious = iou[candidates].view(len(boxes), -1).double()  # so that the mean of equal IoUs is just that IoU
        deviation = ious.std(dim=1, correction=min(1, ious.shape[1] - 1), keepdim=True)
        reached = iou >= ious.mean(dim=1, keepdim=True) + deviation
        inside = (x - x1 > INSIDE) & (y - y1 > INSIDE) & (x2 - x > INSIDE) & (y2 - y > INSIDE)
        claim, matched = torch.where(candidates & reached & inside, iou, -1.0).max(dim=0)
        return torch.where(claim >= 0, matched, NEGATIVE)


def nearest(distances: Tensor, number: int) -> Tensor:
    """[G, n] -> bool [G, n]: the `number` least of each row, or all if there are fewer; of equals the first ones."""
    if distances.shape[1] <= number:
        return torch.ones_like(distances, dtype=torch.bool)
    farthest = distances.topk(number, dim=1, largest=False).values.amax(dim=1, keepdim=True)
    nearer, last = distances < farthest, distances == farthest
    return nearer | (last & (last.cumsum(dim=1) <= number - nearer.sum(dim=1, keepdim=True)))
