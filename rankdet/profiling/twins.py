"""AP-loss as its paper computes it, for comparison: a loop over the positives, and the full matrix of pairs."""

import torch
from torch import Tensor

from rankdet.losses.ranking import with_gradient


def ap_loss_by_loop(logits: Tensor, labels: Tensor, delta: float = 1.0) -> Tensor:
    """AP-loss by TPAMI 2020, Algorithm 1: O(P M + N) time and O(N) memory for M relevant negatives.

    Relevant are those above the lowest positive - delta, early in training all; they are passed over five times for
    every positive.
    logits: float, any shape; computed in its own type. labels: same shape, in {1, 0, -1}, at least one of them 1.
    Value and gradient are ap_loss's, to rounding.
    """
    flat, labels = logits.reshape(-1), labels.reshape(-1)
    with torch.no_grad():
        positives = (labels == 1).nonzero().squeeze(1)
        points = flat[positives]
        relevant = ((labels == 0) & (flat > points.min() - delta)).nonzero().squeeze(1)
        negatives = flat[relevant]
        to_points, to_negatives = torch.zeros_like(points), torch.zeros_like(negatives)
        best = torch.zeros_like(points[0])
        for i in points.argsort():
            among = ((points - points[i]) / (2 * delta) + 0.5).clamp_(0, 1)
            among[i] = 1
            above = (negatives - (points[i] - delta)).mul_(0.5 / delta).clamp_(0, 1)
            rank_pos = among.sum()
            rank = rank_pos + above.sum()
            precision = rank_pos / rank
            best = torch.maximum(best, precision)
            lifted = torch.where(precision < best, (1 - best) / (1 - precision), 1)
            to_points[i] = best - 1
            to_negatives.addcmul_(above, lifted / rank)
        gradient = torch.zeros_like(flat)
        gradient[positives], gradient[relevant] = to_points / len(points), to_negatives / len(points)
    return with_gradient(flat, -to_points.mean(), gradient)


def ap_loss_by_matrix(logits: Tensor, labels: Tensor, delta: float = 1.0) -> Tensor:
    """AP-loss without interpolation by its plain form (TPAMI 2020, Eq. 2-5, 14, 21): O((P + N)^2) time and memory.

    logits: float, any shape; computed in its own type. labels: same shape, in {1, 0}, at least one of them 1.
    Value and gradient are ap_loss's with interpolate=False, to rounding.
    """
    flat, labels = logits.reshape(-1), labels.reshape(-1)
    with torch.no_grad():
        steps = (flat - flat[:, None]).mul_(0.5 / delta).add_(0.5).clamp_(0, 1)  # [i, j]: f(s_j - s_i)
        terms = steps.fill_diagonal_(0).div_(1 + steps.sum(1, keepdim=True))
        terms *= (labels == 1)[:, None] & (labels == 0)
        terms /= (labels == 1).sum()
        value, gradient = terms.sum(), terms.sum(0) - terms.sum(1)
    return with_gradient(flat, value, gradient)
