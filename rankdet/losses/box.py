"""Losses of the boxes at the positives: smooth L1 on the encoded offsets; IoU, GIoU and harmonic IoU on the boxes."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.overlap import paired_iou


def iou_loss(pred: Tensor, target: Tensor) -> Tensor:
    """Mean over the pairs of 1 - IoU, in [0, 1]; arguments as for paired_iou. Without pairs 0, with a gradient path."""
    return _mean(1 - paired_iou(pred, target))


def harmonic_iou_loss(pred: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Mean over the pairs of (1 + IoU)^gamma (1 - IoU) (Harmonic loss, ICCV 2021, supplement Eq. 11).

    pred, target: as for paired_iou. gamma: <= 1, else the loss would rise with the IoU below (gamma - 1)/(gamma + 1)
    (Eq. 13): ValueError; 0 is iou_loss. For gamma in [0, 1] it is in [0, 1] and falls with slope 1 - gamma at IoU 0
    and 2^gamma at IoU 1. Without pairs 0, with a gradient path.
    """
    check_gamma(gamma)
    return _mean(harmonic_iou(paired_iou(pred, target), gamma))


def harmonic_iou(iou: Tensor, gamma: float) -> Tensor:
    """(1 + iou)^gamma (1 - iou), element by element, for any gamma: the bare formula (supplement Eq. 11), for plots."""
    return (1 + iou) ** gamma * (1 - iou)


def check_gamma(gamma: float) -> None:
    """ValueError unless gamma is a number up to 1."""
    if not -float("inf") < gamma <= 1:
        raise ValueError(f"gamma must be at most 1 (the loss would rise with the IoU), got {gamma}")


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

    Torchvision's: 1e-7 square pixels are added to union and hull, where the IoU losses divide by max(union, 1e-6).
    No positives: 0, with a gradient path to the deltas.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "box" is the loss before its weight."""
        return _output(_mean(generalized_box_iou_loss(inputs.pred_boxes, inputs.target_boxes)), inputs, self.weight)


class IoULoss(nn.Module):
    """iou_loss of predicted and matched boxes, times `weight`. No positives: 0, with a gradient path to the deltas."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "box" is the loss before its weight."""
        return _output(iou_loss(inputs.pred_boxes, inputs.target_boxes), inputs, self.weight)


class HarmonicIoULoss(nn.Module):
    """harmonic_iou_loss of predicted and matched boxes, times `weight`; gamma as there.

    No positives: 0, with a gradient path to the deltas.
    """

    def __init__(self, gamma: float = 0.5, weight: float = 1.0) -> None:
        super().__init__()
        check_gamma(gamma)
        self.gamma, self.weight = gamma, weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "box" is the loss before its weight."""
        return _output(harmonic_iou_loss(inputs.pred_boxes, inputs.target_boxes, self.gamma), inputs, self.weight)


def _mean(losses: Tensor) -> Tensor:
    return losses.sum() / max(1, losses.numel())


def _output(loss: Tensor, inputs: LossInputs, weight: float) -> LossOutput:
    """The part "box" and the weighted total, with a gradient path to the deltas also where no box was decoded."""
    loss = loss + inputs.pred_deltas[:0].sum()
    return LossOutput(weight * loss, {"box": loss.detach()})
