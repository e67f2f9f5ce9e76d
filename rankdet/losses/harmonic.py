"""Harmonic loss: each positive's classification and box losses weigh each other (ICCV 2021, supplement)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankdet.losses.box import check_gamma, harmonic_iou
from rankdet.losses.ce_ohem import SoftmaxScores, choose_anchors
from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.overlap import paired_iou
from rankdet.losses.sampling import check_counts
from rankdet.losses.scores import full_precision


def harmonic_loss(cross_entropy: Tensor, regression: Tensor) -> Tensor:
    """Mean over the positives of (1 + e^-L) CE + (1 + e^-CE) L (Harmonic loss, ICCV 2021, supplement Eq. 1 and 7).

    cross_entropy, regression: float, one shape; CE = -log p >= 0 and the box loss L >= 0 of each positive. Half types
    are computed in float32. Both factors are differentiated: the gradient to L is 1 + p - e^-L CE (Eq. 5), to CE
    1 + e^-L - p L (Eq. 8), so to p it is L - (1 + e^-L) / p (Eq. 10). Either may be negative: the loss rises with CE
    only where CE > ln L - ln(1 + e^-L) (Eq. 9), which is everywhere for L up to 1.278.
    Returns a scalar; without positives 0, with a gradient path to both. Raises ValueError for shapes that differ.
    """
    if cross_entropy.shape != regression.shape:
        raise ValueError(
            f"regression must have the shape of cross_entropy, got {tuple(regression.shape)} "
            f"for {tuple(cross_entropy.shape)}"
        )
    ce, box = full_precision(cross_entropy), full_precision(regression)
    return ((1 + torch.exp(-box)) * ce + (1 + torch.exp(-ce)) * box).sum() / max(1, ce.numel())


class HarmonicLoss(SoftmaxScores, nn.Module):
    """harmonic_loss of the positives plus the plain cross entropy of the hardest negatives, all over max(1, P).

    It owns the scores and the box loss: use it with box_loss=none. The paper's CE = -log p with a one-hot label is a
    softmax's, and its baseline is SSD: the head has a background channel, and the negatives are chosen as for
    ce_ohem_loss, by the same two numbers.
    box: "smooth_l1", the sum over the 4 deltas (SSD, ECCV 2016, Eq. 2) with its quadratic part up to `beta` >= 0; or
    "harmonic_iou" of the decoded boxes with exponent `gamma` <= 1. ValueError for other values.
    While p < 0.278, a box is pushed away from its object if L < ln CE - ln(1 + p) (Eq. 5). Smooth L1 pulls it back
    later; harmonic IoU has no gradient at IoU 0, and a head that starts at p = 0.01 can lose all of its boxes there.
    """

    has_box_loss = True

    def __init__(
        self,
        box: str = "smooth_l1",
        beta: float = 1.0,
        gamma: float = 0.5,
        negatives_per_positive: float = 3.0,
        min_negatives: int = 3,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if box not in ("smooth_l1", "harmonic_iou"):
            raise ValueError(f'box must be "smooth_l1" or "harmonic_iou", got {box!r}')
        if beta < 0:
            raise ValueError(f"beta must not be negative, got {beta}")
        check_gamma(gamma)
        check_counts(negatives_per_positive, min_negatives)
        self.box, self.beta, self.gamma, self.weight = box, beta, gamma, weight
        self.negatives_per_positive, self.min_negatives = negatives_per_positive, min_negatives

    def forward(self, inputs: LossInputs) -> LossOutput:
        """Parts, before the weight: "harmonic", the loss; "ce" and "box", its two losses without harmonic factors."""
        logits, num_classes = full_precision(inputs.logits), inputs.labels.shape[2]
        num_positives = max(1, len(inputs.positives))
        _, hard = choose_anchors(logits, inputs.labels, self.negatives_per_positive, self.min_negatives)
        negatives = logits[hard]
        targets = torch.full_like(negatives[:, 0], num_classes, dtype=torch.int64)
        background = F.cross_entropy(negatives, targets, reduction="sum") / num_positives
        anchors, classes = inputs.positives // num_classes, inputs.positives % num_classes
        cross_entropy = F.cross_entropy(logits.flatten(0, 1)[anchors], classes, reduction="none")
        regression = self._regression(inputs)
        loss = harmonic_loss(cross_entropy, regression) + background + inputs.pred_deltas[:0].sum()
        parts = {
            "harmonic": loss,
            "ce": cross_entropy.sum() / num_positives + background,
            "box": regression.sum() / num_positives,
        }
        return LossOutput(self.weight * loss, {name: part.detach() for name, part in parts.items()})

    def _regression(self, inputs: LossInputs) -> Tensor:
        """float [P]: the box loss of each positive."""
        if self.box == "harmonic_iou":
            return harmonic_iou(paired_iou(inputs.pred_boxes, inputs.target_boxes), self.gamma)
        pred, target = full_precision(inputs.pred_deltas), full_precision(inputs.target_deltas)
        return F.smooth_l1_loss(pred, target, beta=self.beta, reduction="none").sum(1)
