"""DETR's matching: every object the query that costs least, so that all pairs together cost least."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import generalized_box_iou

from rankdet.matching.assign import Predictions
from rankdet.matching.max_iou import NEGATIVE

LOG_EPS = 1e-8  # added to probabilities before their log; the released program's


class HungarianMatcher:
    """The one-to-one assignment of least total cost, by the Hungarian algorithm: DETR (ECCV 2020), Eq. 1.

    A pair costs class_weight times the difference that its class makes in focal loss, FL(p, positive) - FL(p,
    negative), of alpha and gamma, as in Deformable DETR (ICLR 2021); l1_weight times the sum over the four deltas of
    their distances; giou_weight times -GIoU of the boxes. It is by probabilities, so that any loss's scores will do.
    Every object gets a query, unless there are more objects; all other queries are negative, none is ignored.
    ValueError for a negative weight, or without a positive one.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        weights = (class_weight, l1_weight, giou_weight)
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(f"the weights must not be negative, nor all 0, got {weights}")
        if not 0 <= alpha <= 1 or gamma < 0:
            raise ValueError(f"alpha must lie in [0, 1] and gamma must not be negative, got {alpha} and {gamma}")
        self.class_weight, self.l1_weight, self.giou_weight = weights
        self.alpha, self.gamma = alpha, gamma

    def by_prediction(self, predicted: Predictions, boxes: Tensor, classes: Tensor, deltas: Tensor) -> Tensor:
        """What is predicted for A queries, objects [G, 4] (xyxy) of classes int64 [G], and their deltas for each query,
        [A, G, 4] -> int64 [A]: the object's index, or -1, negative. G may be 0."""
        matched = boxes.new_full((len(predicted.boxes),), NEGATIVE, dtype=torch.int64)
        if len(boxes) == 0:
            return matched
        queries, objects = linear_sum_assignment(self.costs(predicted, boxes, classes, deltas).cpu().numpy())
        found = torch.from_numpy(objects).to(matched.device)
        return matched.index_put((torch.from_numpy(queries).to(matched.device),), found)

    @torch.no_grad()
    def costs(self, predicted: Predictions, boxes: Tensor, classes: Tensor, deltas: Tensor) -> Tensor:
        """[A, G], G at least 1; arguments as for by_prediction."""
        p = predicted.scores
        positive = -self.alpha * (1 - p) ** self.gamma * (p + LOG_EPS).log()
        negative = -(1 - self.alpha) * p**self.gamma * (1 - p + LOG_EPS).log()
        distance = (predicted.deltas[:, None] - deltas).abs().sum(dim=2)
        giou = generalized_box_iou(predicted.boxes, boxes)
        of_class = (positive - negative)[:, classes]
        return self.class_weight * of_class + self.l1_weight * distance - self.giou_weight * giou
