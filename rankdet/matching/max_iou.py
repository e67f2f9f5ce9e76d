"""Matching by overlap: which object, if any, each anchor of one image answers for."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

NEGATIVE = -1
IGNORED = -2
TIE_TOLERANCE = 1e-5  # IoU; equal anchors at equal distance differ by the rounding of their float32 corners


class MaxIoUMatcher:
    """AP-loss's assignment (TPAMI 2020, Sec. 4.1; ties as in its program).

    An object claims every anchor with IoU >= positive_iou, and every anchor that ties for the object's best IoU if
    that is above 0, however small. Of several claims the highest IoU wins, then the earlier object; so an object goes
    without an anchor only if no anchor touches it or others win all that it claims. Unclaimed anchors are negative
    where all IoUs are below negative_iou, else ignored. claim_best=False: the second claim, by the best IoU, is left
    out, as in the second stage of Faster R-CNN (NeurIPS 2015), where a box without overlap enough is background.
    """

    def __init__(self, positive_iou: float = 0.5, negative_iou: float = 0.4, claim_best: bool = True) -> None:
        if not 0 < negative_iou <= positive_iou <= 1:
            raise ValueError(
                f"0 < negative_iou <= positive_iou <= 1 must hold, not negative_iou={negative_iou}, "
                f"positive_iou={positive_iou}"
            )
        self.positive_iou = positive_iou
        self.negative_iou = negative_iou
        self.claim_best = claim_best

    def __call__(self, anchors: Tensor, boxes: Tensor, level_sizes: Sequence[int] = ()) -> Tensor:
        """Anchors [A, 4], objects [G, 4] (A and G may be 0), xyxy -> int64 [A]: object's index, -1 negative, -2
        ignored. Levels do not matter to it."""
        if len(boxes) == 0 or len(anchors) == 0:
            return anchors.new_full((len(anchors),), NEGATIVE, dtype=torch.int64)
        iou = box_iou(boxes, anchors)  # [G, A]
        claimed = iou >= self.positive_iou
        if self.claim_best:
            claimed |= iou >= iou.amax(dim=1, keepdim=True) - TIE_TOLERANCE
        claim, matched = torch.where(claimed, iou, 0.0).max(dim=0)
        unclaimed = torch.where(iou.amax(dim=0) < self.negative_iou, NEGATIVE, IGNORED)
        return torch.where(claim > 0, matched, unclaimed)
