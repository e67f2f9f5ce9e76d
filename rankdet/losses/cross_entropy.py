"""Plain softmax cross entropy: Faster R-CNN's second stage (Fast R-CNN, ICCV 2015, Sec. 2.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankdet.losses.ce_ohem import SoftmaxScores
from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.scores import full_precision

LEFT_OUT = -100  # no class


def cross_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of -log p(class) over all anchors that take part, background being the last class.

    logits: float [B, A, K + 1], finite; half types are computed in float32. labels: signed integer [B, A, K] in
    {1, 0, -1}; an anchor is positive where a class is 1 (of several, the first), takes no part where all are -1, and is
    background otherwise. Returns a scalar; 0, with a gradient path, where no anchor takes part. Raises ValueError for
    shapes that do not fit.
    """
    if logits.dim() != 3 or logits.shape[:2] != labels.shape[:2] or logits.shape[2] != labels.shape[2] + 1:
        raise ValueError(f"logits must be [B, A, K + 1] for labels [B, A, K], got {logits.shape} and {labels.shape}")
    positive, takes_part = (labels == 1).any(2), (labels >= 0).any(2)
    targets = torch.where(positive, (labels == 1).int().argmax(2), labels.shape[2])
    targets = targets.masked_fill(~takes_part, LEFT_OUT).flatten()
    scores = full_precision(logits).flatten(0, 1)
    return F.cross_entropy(scores, targets, ignore_index=LEFT_OUT, reduction="sum") / takes_part.sum().clamp(min=1)


class CrossEntropyLoss(SoftmaxScores, nn.Module):
    """cross_entropy_loss of the images on one GPU, times `weight`; the head has one channel more, the background's."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "ce" is the loss before its weight."""
        loss = cross_entropy_loss(inputs.logits, inputs.labels)
        return LossOutput(self.weight * loss, {"ce": loss.detach()})
