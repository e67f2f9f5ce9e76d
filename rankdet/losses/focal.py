"""Focal loss (ICCV 2017) in the form that torchvision ships, with ignored scores left out."""

import torch
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.scores import SigmoidScores, full_precision


def focal_loss(logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sum over all scores that take part of -alpha_t (1 - p_t)^gamma log(p_t), divided by max(1, number of positives).

    logits: float, any shape, finite; half types are computed in float32. labels: signed integer, same shape, in
    {1, 0, -1}; -1 takes no part. alpha: weight of the positives in [0, 1] (1 - alpha: negatives), or negative for no
    weighting. gamma: >= 0; 0 is cross entropy.
    Returns a scalar; without positives it is the negatives' sum, undivided.
    """
    logits, labels = full_precision(logits.reshape(-1)), labels.reshape(-1)
    losses = sigmoid_focal_loss(logits, (labels == 1).to(logits.dtype), alpha, gamma, reduction="none")
    return torch.where(labels >= 0, losses, 0).sum() / (labels == 1).sum().clamp(min=1)


class FocalLoss(SigmoidScores, nn.Module):
    """focal_loss of all anchors and classes of the images on one GPU, times `weight`; arguments as there."""

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, weight: float = 1.0) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma must not be negative, got {gamma}")
        if alpha > 1:
            raise ValueError(f"alpha must not exceed 1, got {alpha}")
        self.alpha, self.gamma, self.weight = alpha, gamma, weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "focal" is the loss before its weight."""
        loss = focal_loss(inputs.logits, inputs.labels, self.alpha, self.gamma)
        return LossOutput(self.weight * loss, {"focal": loss.detach()})
