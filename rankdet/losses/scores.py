"""What the scores of a sigmoid head mean, and the precision that losses compute in: shared by the losses."""

import math

import torch
from torch import Tensor


class SigmoidScores:
    """One logit per object class and anchor, its probability the sigmoid: three of ClassificationLoss's methods."""

    def num_channels(self, num_classes: int) -> int:
        """As many score channels as object classes: background is every class's absence."""
        return num_classes

    def prior_bias(self, num_classes: int, prior: float) -> Tensor:
        """float32 [num_classes]: -log((1 - prior) / prior), so that every class starts at `prior` (0 < prior < 1)."""
        if not 0 < prior < 1:
            raise ValueError(f"prior must lie strictly between 0 and 1, got {prior}")
        return torch.full((num_classes,), -math.log((1 - prior) / prior))

    def probabilities(self, logits: Tensor) -> Tensor:
        """float [..., K] logits -> float [..., K] in [0, 1]; the classes of one anchor need not add up to 1."""
        return logits.sigmoid()


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in the type that losses compute in: float32 for half types, its own for any other."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
