"""Plain binary cross entropy: a region proposal network's object or not (Faster R-CNN, NeurIPS 2015, Eq. 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.scores import SigmoidScores, full_precision


def binary_cross_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over all scores that take part of -log p where the label is 1 and of -log(1 - p) where it is 0.

    logits: float, any shape, finite; half types are computed in float32. labels: signed integer, same shape, in
    {1, 0, -1}; -1 takes no part. Returns a scalar; 0, with a gradient path, where no score takes part. Raises
    ValueError for shapes that differ.
    """
    if logits.shape != labels.shape:
        raise ValueError(f"labels must have the shape of logits, got {tuple(labels.shape)} for {tuple(logits.shape)}")
    logits, takes_part = full_precision(logits), labels >= 0
    losses = F.binary_cross_entropy_with_logits(logits, (labels == 1).to(logits.dtype), reduction="none")
    return torch.where(takes_part, losses, 0).sum() / takes_part.sum().clamp(min=1)


class BinaryCrossEntropyLoss(SigmoidScores, nn.Module):
    """binary_cross_entropy_loss of all anchors and classes of the images on one GPU, times `weight`."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "bce" is the loss before its weight."""
        loss = binary_cross_entropy_loss(inputs.logits, inputs.labels)
        return LossOutput(self.weight * loss, {"bce": loss.detach()})
