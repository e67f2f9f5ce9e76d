"""Made-up scores to time losses on: as many as a batch has, early, midway and late in training."""

from typing import NamedTuple

import torch
from torch import Tensor

# Quantiles of the logits that a RetinaNet with AP-loss has after 1 800 steps on the drawn shapes (protocol mini_long),
# at 690 000 negatives and 880 positives of six training batches.
PROBABILITIES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
LATE_NEGATIVES = (-28.62, -20.71, -18.01, -15.69, -14.5, -12.66, -10.77, -9.02, -7.58, -6.78, -5.31, -3.75, -1.51)
LATE_POSITIVES = (-3.89, -3.85, -3.3, -2.76, -2.44, -1.8, -0.97, 0.02, 1.05, 2.14, 3.46, 5.34, 5.44)
# Mean and standard deviation of the logits at negatives and at positives. Early: log(0.01 / 0.99) and what random
# weights add to it. Midway: made up, so that they overlap and most negatives are within reach of a positive.
EARLY = ((-4.6, 0.2), (-4.6, 0.2))
MIDWAY = ((-5.0, 1.5), (-3.0, 0.8))
STAGES = ("early", "midway", "late")


class Size(NamedTuple):
    """What a problem is made of."""

    images: int
    anchors: int  # of each image
    classes: int
    positives: int  # scores, of all images
    stage: str = "early"  # one of STAGES

    @property
    def scores(self) -> int:
        """Scores of all images, the positives among them."""
        return self.images * self.anchors * self.classes


class Problem(NamedTuple):
    """One batch's scores B x A x K with P positives, in every form that some loss wants. No score is ignored, since
    torchvision's focal loss knows none that are. Logits and IoUs are leaves that want gradients.
    """

    size: Size
    logits: Tensor  # float32 [B, A, K]
    labels: Tensor  # int8 [B, A, K], 1 or 0
    positives: Tensor  # int64 [P], ascending flat indices
    targets: Tensor  # float32 [B, A, K]: the labels
    softmax_logits: Tensor  # float32 [B, A, K + 1]: the logits, and 0 for background
    ious: Tensor  # float32 [P] in [0, 1)
    quality: Tensor  # float32 [B, A, K]: the positives' IoUs, at least 1e-6, and 0 for negatives

    def clear_gradients(self) -> None:
        """Forgets what backward() left."""
        self.logits.grad = self.softmax_logits.grad = self.ious.grad = None


def make_problem(size: Size, device: torch.device, seed: int = 0) -> Problem:
    """The same numbers on every device.

    "early": positives and negatives alike N(-4.6, 0.2), so that nearly all pairs are within delta = 1 of each other.
    "midway": N(-5, 1.5) and N(-3, 0.8); four in five negatives lie above the lowest positive - 1. "late": as a
    trained detector's; 0.7 % do.
    """
    generator = torch.Generator().manual_seed(seed)
    positives = torch.randperm(size.scores, generator=generator)[: size.positives].sort().values
    if size.stage == "late":
        scores = _drawn(LATE_NEGATIVES, size.scores, generator)
        scores[positives] = _drawn(LATE_POSITIVES, size.positives, generator)
    else:
        of_negatives, of_positives = {"early": EARLY, "midway": MIDWAY}[size.stage]
        scores = torch.empty(size.scores).normal_(*of_negatives, generator=generator)
        scores[positives] = torch.empty(size.positives).normal_(*of_positives, generator=generator)
    ious = torch.rand(size.positives, generator=generator)
    labels = torch.zeros(size.scores, dtype=torch.int8)
    labels[positives] = 1
    quality = torch.zeros(size.scores)
    quality[positives] = ious.clamp(min=1e-6)
    shape = (size.images, size.anchors, size.classes)
    logits, labels = scores.view(shape).to(device), labels.view(shape).to(device)
    softmax_logits = torch.cat((logits, torch.zeros_like(logits[..., :1])), dim=-1)
    return Problem(
        size,
        logits.requires_grad_(),
        labels,
        positives.to(device),
        labels.float(),
        softmax_logits.requires_grad_(),
        ious.to(device).requires_grad_(),
        quality.view(shape).to(device),
    )


def _drawn(quantiles: tuple[float, ...], count: int, generator: torch.Generator) -> Tensor:
    """float32 [count] whose quantiles at PROBABILITIES are those given, linear between them."""
    at, values = torch.tensor(PROBABILITIES), torch.tensor(quantiles)
    u = torch.rand(count, generator=generator)
    left = (torch.bucketize(u, at, right=True) - 1).clamp_(0, len(at) - 2)
    return values[left] + (u - at[left]) * (values.diff() / at.diff())[left]
