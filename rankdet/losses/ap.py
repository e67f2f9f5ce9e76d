"""AP-loss: 1 - average precision over all scores of a batch, optimised by an error-driven update (TPAMI 2020)."""

from functools import partial

import torch
from torch import Tensor, nn

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.ranking import Step, error_driven_loss
from rankdet.losses.scores import SigmoidScores


def ap_loss(
    logits: Tensor,
    labels: Tensor,
    delta: float = 1.0,
    interpolate: bool = True,
    step: str = "linear",
    k: float = 0.5,
    *,
    positives: Tensor | None = None,
) -> Tensor:
    """1 - AP with its error-driven gradient (AP-loss, TPAMI 2020: value Eq. 5, update Eq. 14, step Eq. 21, Alg. 1).

    logits: float, any shape; half types are computed in float32, float64 in float64. labels: signed integer, same
    shape, in {1, 0, -1}; -1 takes no part. delta: half width of the "linear" step, in logits, > 0; its f(0) is 1/2.
    interpolate: precision becomes its running maximum from the lowest positive up (Sec. 3.4.3); the released program
    does the same. step: "linear", "heaviside" (Eq. 2, f(0) = 1) or "sigmoid" (Eq. 54) with scale k, in logits, > 0.
    positives: int64 [P], the ascending flat indices of labels == 1, for callers that have them.

    Returns a scalar in [0, 1). No positives or no negatives: 0, with a gradient path. Cost O((P + N) log P) time and
    O(P + N) memory; "sigmoid" takes O(P N) time. The gradient is the error-driven update, not the derivative of the
    value, so there is no double backward. Raises ValueError naming the argument: delta or k not positive, an unknown
    step, shapes that differ, labels of a wrong type or value, NaN or infinite logits (ignored ones too).
    """
    errors = partial(_precision_errors, interpolate=interpolate)
    return error_driven_loss(logits, labels, errors, Step.of(step, delta, k), positives)


class APLoss(SigmoidScores, nn.Module):
    """ap_loss of all anchors and classes of the images on one GPU, times `weight`; arguments as there."""

    def __init__(
        self, delta: float = 1.0, interpolate: bool = True, step: str = "linear", k: float = 0.5, weight: float = 1.0
    ) -> None:
        super().__init__()
        Step.of(step, delta, k)
        self.delta, self.interpolate, self.step, self.k, self.weight = delta, interpolate, step, k, weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "ap" is the loss before its weight."""
        logits, labels = inputs.logits, inputs.labels
        loss = ap_loss(logits, labels, self.delta, self.interpolate, self.step, self.k, positives=inputs.positives)
        return LossOutput(self.weight * loss, {"ap": loss.detach()})


def _precision_errors(rank_pos: Tensor, num_fp: Tensor, scores: Tensor, interpolate: bool) -> Tensor:
    """float64 [P]: 1 - precision at each positive; interpolated, the least error of all positives not above it."""
    errors = num_fp / (rank_pos + num_fp)
    if not interpolate:
        return errors
    order = scores.argsort(stable=True)
    least = torch.empty_like(errors)
    least[order] = errors[order].cummin(0).values
    return least
