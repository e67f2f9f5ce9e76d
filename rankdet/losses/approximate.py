"""Smoothed AP-loss: a sigmoid for the step and its true gradient, the optimiser that AP-loss compares itself with."""

import torch
from torch import Tensor, nn

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.ranking import Ranking, named_step, rank, with_gradient
from rankdet.losses.scores import SigmoidScores


def smoothed_ap_loss(
    logits: Tensor,
    labels: Tensor,
    k: float = 1.0,
    log_eps: float | None = None,
    *,
    positives: Tensor | None = None,
) -> Tensor:
    """1 - AP with the sigmoid of scale k for the step (AP-loss TPAMI 2020, Eq. 32, Appendix 2), differentiated.

    logits: float, any shape; half types are computed in float32, float64 in float64. labels: signed integer, same
    shape, in {1, 0, -1}; -1 takes no part. k: scale of the sigmoid, in logits, > 0. log_eps: None, or the eps > 0 of
    the log objective -log(AP + eps) (Sec. 4.2.3), which leaves the start of a training sooner. positives, waiting for a
    GPU (once more, for the sigmoid's bins): as in ranking.error_driven_loss.

    AP = mean of R_i / rank_i, R_i = 1 + sum_{k != i} f(p_k - p_i). Unlike ap_loss's, the gradient is the derivative of
    the value; it is written by hand, so there is no double backward. Returns a scalar; without positives 0, with a
    gradient path. O(N + P bins) time, O(P + N) memory. Raises ValueError as ap_loss does, and for log_eps <= 0.

    One positive and one negative at 0: R = 1, F = 1/2, so AP = 2/3.
    >>> smoothed_ap_loss(torch.tensor([0.0, 0.0]), torch.tensor([1, 0]))
    tensor(0.3333)
    """
    if log_eps is not None and not log_eps > 0:
        raise ValueError(f"log_eps must be positive, got {log_eps}")
    ranking = rank(logits, labels, named_step("sigmoid", 1.0, k), positives=positives)
    if len(ranking.positives) == 0:
        return ranking.flat[:0].sum()
    with torch.no_grad():
        ap = (ranking.rank_pos / ranking.rank).mean()
        value, outer = (1 - ap, -1.0) if log_eps is None else (-(ap + log_eps).log(), -1 / (ap + log_eps))
        gradient = _ap_gradient(ranking) * outer
    return with_gradient(ranking.flat, value.to(ranking.flat.dtype), gradient.to(ranking.flat.dtype))


class SmoothedAPLoss(SigmoidScores, nn.Module):
    """smoothed_ap_loss of all anchors and classes of the images on one GPU, times `weight`; arguments as there."""

    def __init__(self, k: float = 1.0, log_eps: float | None = 1e-3, weight: float = 1.0) -> None:
        super().__init__()
        named_step("sigmoid", 1.0, k)
        if log_eps is not None and not log_eps > 0:
            raise ValueError(f"log_eps must be positive, got {log_eps}")
        self.k, self.log_eps, self.weight = k, log_eps, weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "smoothed_ap" is the loss before its weight."""
        loss = smoothed_ap_loss(inputs.logits, inputs.labels, self.k, self.log_eps, positives=inputs.positives)
        return LossOutput(self.weight * loss, {"smoothed_ap": loss.detach()})


def _ap_gradient(ranking: Ranking) -> Tensor:
    """float [N]: d AP / d scores, from d(R / (R + F)) = (F dR - R dF) / (R + F)^2."""
    count = len(ranking.scores)
    by_positives = ranking.num_fp / ranking.rank**2 / count
    by_negatives = ranking.rank_pos / ranking.rank**2 / count
    among, negatives = ranking.among, ranking.negatives
    gradient = -negatives.slopes_at_scores(by_negatives)
    as_points = by_negatives * negatives.slopes_at_points() - by_positives * among.slopes_at_points()
    as_sources = among.slopes_at_scores(by_positives)  # a positive's own term is in both of these, and cancels
    gradient[ranking.positives] = (as_points + as_sources).to(gradient.dtype)
    return gradient
