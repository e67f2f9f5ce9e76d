"""SSD's matching: every object its own best prior, then every prior that overlaps an object enough."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from rankdet.matching.max_iou import NEGATIVE

TAKEN = -1.0  # in place of an IoU


class BestPriorMatcher:
    """SSD (ECCV 2016), Sec. 2.2: the strategy of MultiBox (CVPR 2014), extended to all priors that fit.

    First, of all pairs of a free prior and an object without one, that of the highest IoU is joined, again and again
    while there is one above 0: every object gets a prior of its own unless other objects took all that it touches.
    Then each free prior whose highest IoU is at least positive_iou is that object's. At equal IoUs the earlier object
    goes first, then the earlier prior. All other priors are negative: none is ignored.
    """

    def __init__(self, positive_iou: float = 0.5) -> None:
        if not 0 < positive_iou <= 1:
            raise ValueError(f"0 < positive_iou <= 1 must hold, not {positive_iou}")
        self.positive_iou = positive_iou

    def __call__(self, anchors: Tensor, boxes: Tensor, level_sizes: Sequence[int] = ()) -> Tensor:
        """Anchors [A, 4], objects [G, 4] (A and G may be 0), xyxy -> int64 [A]: object's index, or -1, negative.
        Levels do not matter to it."""
        matched = anchors.new_full((len(anchors),), NEGATIVE, dtype=torch.int64)
        if len(boxes) == 0 or len(anchors) == 0:
            return matched
        iou = box_iou(boxes, anchors)  # [G, A]
        highest, nearest = iou.max(dim=0)
        matched = torch.where(highest >= self.positive_iou, nearest, matched)
        owner, prior = _one_to_one(iou)
        return matched.index_put((prior,), owner)


def _one_to_one(iou: Tensor) -> tuple[Tensor, Tensor]:
    """IoUs [G, A] -> objects and their priors, int64 [M] both, M <= min(G, A): what joining the best pair again and
    again gives.

    A pair that is the best of its object and of its prior is joined sooner or later, whatever else is, so all of
    these are joined at once: a few rounds in place of G.
    """
    left = iou.clone()
    objects = torch.arange(len(iou), device=iou.device)
    owners, priors = [], []
    while True:
        best, prior = left.max(dim=1)
        rival = left[:, prior].argmax(dim=0)  # the object that overlaps each object's best prior most
        joined = ((rival == objects) & (best > 0)).nonzero().squeeze(1)
        if len(joined) == 0:
            return torch.cat([*owners, joined]), torch.cat([*priors, joined])
        owners.append(joined)
        priors.append(prior[joined])
        left[joined] = TAKEN
        left[:, prior[joined]] = TAKEN
