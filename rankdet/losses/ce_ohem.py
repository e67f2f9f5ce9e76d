"""Softmax cross entropy on the positives and the hardest negatives of each image (SSD, ECCV 2016, Sec. 2.2)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.sampling import check_counts, highest, num_negatives
from rankdet.losses.scores import full_precision


def ce_ohem_loss(logits: Tensor, labels: Tensor, negatives_per_positive: float = 3.0, min_negatives: int = 3) -> Tensor:
    """Cross entropy of all positive anchors and the hardest negative ones, over max(1, number of positive anchors).

    logits, labels and who is chosen: choose_anchors. Returns a scalar; 0, with a gradient path, where nothing is
    chosen. Raises ValueError for shapes that do not fit.
    """
    logits = full_precision(logits)
    positive, hard = choose_anchors(logits, labels, negatives_per_positive, min_negatives)
    chosen = positive | hard
    targets = torch.where(positive, (labels == 1).int().argmax(2), labels.shape[2])
    return F.cross_entropy(logits[chosen], targets[chosen], reduction="sum") / positive.sum().clamp(min=1)


def choose_anchors(
    logits: Tensor, labels: Tensor, negatives_per_positive: float, min_negatives: int
) -> tuple[Tensor, Tensor]:
    """The positive anchors and the hardest negative ones of each image: bool [B, A] both, never true for one anchor.

    logits: float [B, A, K + 1]; channel k < K is object class k, the last is background. labels: signed integer
    [B, A, K]; an anchor is positive where a class is 1 (of several, the first), takes no part where all are -1,
    and is negative otherwise. Hardest is who has the largest background loss, -log p(background), image by image:
    negatives_per_positive (>= 0) times the image's positives, but at least min_negatives (>= 0), as far as there are
    any. min_negatives = 0 is SSD's rule, by which an image without objects teaches nothing; the default 3 treats it
    as if it had one positive. Raises ValueError for shapes that do not fit.
    """
    if logits.dim() != 3 or logits.shape[:2] != labels.shape[:2] or logits.shape[2] != labels.shape[2] + 1:
        raise ValueError(f"logits must be [B, A, K + 1] for labels [B, A, K], got {logits.shape} and {labels.shape}")
    positive = (labels == 1).any(2)
    negative = ~positive & (labels == 0).any(2)
    wanted = num_negatives(positive, negative, negatives_per_positive, min_negatives)
    background_loss = logits.detach().logsumexp(2) - logits.detach()[..., -1]
    return positive, highest(background_loss, negative, wanted)


class SoftmaxScores:
    """A logit per object class and, last, background's, under a softmax: three of ClassificationLoss's methods."""

    def num_channels(self, num_classes: int) -> int:
        """The object classes and, last, background."""
        return num_classes + 1

    def prior_bias(self, num_classes: int, prior: float) -> Tensor:
        """float32 [num_classes + 1]: 0 for the objects, log((1 - num_classes prior) / prior) for background.

        Softmax then gives every object class `prior`; ValueError unless 0 < prior < 1 / num_classes.
        """
        if not 0 < prior * num_classes < 1:
            raise ValueError(f"prior must lie between 0 and 1/{num_classes}, the number of classes, got {prior}")
        bias = torch.zeros(num_classes + 1)
        bias[-1] = math.log((1 - num_classes * prior) / prior)
        return bias

    def probabilities(self, logits: Tensor) -> Tensor:
        """float [..., K + 1] logits -> float [..., K] in [0, 1]: the softmax without its background channel."""
        return logits.softmax(-1)[..., :-1]


class CEOHEMLoss(SoftmaxScores, nn.Module):
    """ce_ohem_loss of the images on one GPU, times `weight`; the head has one channel more, the background's, last."""

    def __init__(self, negatives_per_positive: float = 3.0, min_negatives: int = 3, weight: float = 1.0) -> None:
        super().__init__()
        check_counts(negatives_per_positive, min_negatives)
        self.negatives_per_positive, self.min_negatives, self.weight = negatives_per_positive, min_negatives, weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "ce" is the loss before its weight."""
        loss = ce_ohem_loss(inputs.logits, inputs.labels, self.negatives_per_positive, self.min_negatives)
        return LossOutput(self.weight * loss, {"ce": loss.detach()})
