"""Losses of the boxes at the positives: smooth L1 on the encoded offsets, GIoU on the decoded boxes."""

import torch.nn.functional as F
from torch import nn
from torchvision.ops import generalized_box_iou_loss

from rankdet.losses.inputs import LossInputs, LossOutput


class SmoothL1Loss(nn.Module):
    """Smooth L1 (Fast R-CNN, ICCV 2015, Eq. 3) of predicted and target deltas: mean over 4 coordinates x P positives.

    beta: where the quadratic part ends, >= 0 (0 is plain L1). AP-loss's released program reports 4 times this value but
    applies the gradient of this mean; value and gradient agree here, on the gradient's side.
    No positives: 0, with a gradient path to the deltas.
    """

    def __init__(self, beta: float = 1.0, weight: float = 1.0) -> None:
        super().__init__()
        if beta < 0:
            raise ValueError(f"beta must not be negative, got {beta}")
        self.beta, self.weight = beta, weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "box" is the loss before its weight."""
        total = F.smooth_l1_loss(inputs.pred_deltas, inputs.target_deltas, beta=self.beta, reduction="sum")
        loss = total / max(1, inputs.pred_deltas.numel())
        return LossOutput(self.weight * loss, {"box": loss.detach()})


class GIoULoss(nn.Module):
    """1 - GIoU (CVPR 2019) of predicted and matched boxes, in [0, 2]: mean over the P positives.

    No positives: 0, with a gradient path to the deltas.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "box" is the loss before its weight."""
        total = generalized_box_iou_loss(inputs.pred_boxes, inputs.target_boxes, reduction="sum")
        loss = total / max(1, len(inputs.pred_boxes)) + inputs.pred_deltas[:0].sum()
        return LossOutput(self.weight * loss, {"box": loss.detach()})
