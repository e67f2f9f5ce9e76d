"""Which negative anchors a loss gets to see: all, the hardest, or some at random (AP-loss TPAMI 2020, Table 8)."""

import torch
from torch import Tensor

from rankdet.losses.inputs import LossInputs


class Sampler:
    """Keeps negatives_per_positive (>= 0) negative anchors for each positive one of their image.

    At least min_negatives (>= 0) of each image, so that images without objects teach too, as far as there are any. The
    other negatives take no part (-1). An anchor that is positive or ignored stays what it is. ValueError for numbers
    below 0.
    """

    def __init__(self, negatives_per_positive: float = 3.0, min_negatives: int = 3) -> None:
        check_counts(negatives_per_positive, min_negatives)
        self.negatives_per_positive, self.min_negatives = negatives_per_positive, min_negatives

    def __call__(self, inputs: LossInputs) -> LossInputs:
        """The inputs with the labels (int8 [B, A, K]) of the negatives that are left out set to -1."""
        labels = inputs.labels
        positive = (labels == 1).any(2)
        negative = ~positive & (labels == 0).any(2)
        wanted = num_negatives(positive, negative, self.negatives_per_positive, self.min_negatives)
        left_out = negative & ~highest(self.values(inputs), negative, wanted)
        return inputs._replace(labels=labels.masked_fill(left_out[..., None], -1))

    def values(self, inputs: LossInputs) -> Tensor:
        """float [B, A]: the negatives of an image with the highest are kept."""
        raise NotImplementedError


class OHEMSampler(Sampler):
    """The hardest negatives: those of which some class scores highest (one logit per class)."""

    def values(self, inputs: LossInputs) -> Tensor:
        """The highest logit of each anchor."""
        return inputs.logits.detach().amax(2)


class RandomSampler(Sampler):
    """Negatives at random, all alike; drawn from the device's own generator."""

    def values(self, inputs: LossInputs) -> Tensor:
        """Uniform numbers."""
        return torch.rand(inputs.labels.shape[:2], device=inputs.labels.device)


def num_negatives(positive: Tensor, negative: Tensor, per_positive: float, least: int) -> Tensor:
    """bool [B, A] both -> int64 [B]: per_positive for each positive, at least `least` an image, as far as there are."""
    wanted = (per_positive * positive.sum(1)).ceil().long().clamp(min=least)
    return torch.minimum(wanted, negative.sum(1))


def highest(values: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """bool [B, A]: in row b the count[b] (int64 [B]) anchors of `among` (bool [B, A]) with the highest float values."""
    most = int(count.max()) if count.numel() else 0
    ranked = values.masked_fill(~among, -torch.inf).topk(most, dim=1).indices
    within = torch.arange(most, device=count.device) < count[:, None]
    return torch.zeros_like(among).scatter_(1, ranked, within)


def check_counts(negatives_per_positive: float, min_negatives: int) -> None:
    """ValueError for a number below 0."""
    for name, value in (("negatives_per_positive", negatives_per_positive), ("min_negatives", min_negatives)):
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
