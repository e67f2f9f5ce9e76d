"""The structured hinge loss of average precision (Yue et al., SIGIR 2007), a convex upper bound of 1 - AP."""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from rankdet.losses.checks import check_tensors, find_positives
from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.scores import SigmoidScores, full_precision
from rankdet.losses.sums import sums_from_the_right


def structured_hinge_ap_loss(logits: Tensor, labels: Tensor, *, positives: Tensor | None = None) -> Tensor:
    """max over all rankings r of 1 - AP(r) + <Psi(r) - Psi(r*)>, an upper bound of 1 - AP that is convex in the logits.

    <Psi(r)> = sum over the P N pairs of y_ij (p_i - n_j) / (P N), with y_ij = 1 where r has positive i above negative j
    and -1 elsewhere; r* has no negative above a positive (Yue et al., "A support vector method for optimizing average
    precision", SIGIR 2007). So every pair that r inverts costs 2 (p_i - n_j) / (P N).
    logits: float, any shape; half types are computed in float32, float64 in float64. labels: signed integer, same
    shape, in {1, 0, -1}; -1 takes no part. positives: int64 [P], the ascending flat indices of labels == 1, for callers
    that have them.

    Returns a scalar >= 0, not bounded above; it is 0 where the least positive is N / 4 above every negative. The
    gradient belongs to the worst ranking, found exactly: a subgradient, and the derivative where there is one (of equal
    scores, an arbitrary one may be pushed first). No positives or no negatives: 0, with a gradient path.
    Among positives, and among negatives, the worst ranking keeps the order of the scores. How the two interleave is
    found by bisection for all positives at once, which like the quicksort of Mohapatra et al. (NeurIPS 2014, CVPR 2018)
    uses that a higher negative's best place is never lower: O(A log A + P log A) time for A logits in all, nearly all
    of it one sort, and O(A) memory. Raises ValueError naming the argument: shapes that differ, labels of a wrong type
    or value, NaN or infinite logits (ignored ones too). Given `positives`, nothing waits for the device.
    """
    check_tensors(logits, labels)
    scores, labels = full_precision(logits.reshape(-1)), labels.reshape(-1)
    positives = find_positives(scores.detach(), labels, positives)
    if len(positives) == 0:
        return scores[:0].sum()
    return _StructuredHinge.apply(scores, labels, positives)


class StructuredHingeAPLoss(SigmoidScores, nn.Module):
    """structured_hinge_ap_loss of all anchors and classes of the images on one GPU, times `weight`."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "hinge" is the loss before its weight."""
        loss = structured_hinge_ap_loss(inputs.logits, inputs.labels, positives=inputs.positives)
        return LossOutput(self.weight * loss, {"hinge": loss.detach()})


class _StructuredHinge(torch.autograd.Function):
    """The loss on flat, checked inputs with at least one positive. Its subgradient is made with the value."""

    @staticmethod
    def forward(ctx: FunctionCtx, scores: Tensor, labels: Tensor, positives: Tensor) -> Tensor:
        points, points_order = scores[positives].double().sort(descending=True, stable=True)
        ranked, order = torch.where(labels == 0, scores, -torch.inf).sort(descending=True, stable=True)
        num_negatives = (labels == 0).sum()
        above = worst_interleaving(points, ranked, num_negatives)
        ends = torch.zeros_like(order).scatter_add_(0, (above - 1).clamp(min=0), (above > 0).long())
        below = ends.flip(0).cumsum(0).flip(0)  # int64 [A]: positives that the j-th negative stands above
        scale = 2 / (len(points) * num_negatives.clamp(min=1)).double()
        inversions = torch.where(below > 0, ranked, 0).double().mul_(below).sum() - above.double() @ points
        rank_pos = torch.arange(1, len(points) + 1, dtype=torch.float64, device=points.device)
        if ctx.needs_input_grad[0]:
            gradient = torch.zeros_like(scores).scatter_(0, order, (below * scale).to(scores.dtype))
            gradient[positives[points_order]] = (above * -scale).to(scores.dtype)
            ctx.save_for_backward(gradient)
        value = (above / (rank_pos + above)).mean() + scale * inversions
        return value.clamp(min=0).to(scores.dtype)  # below 0 by rounding alone: r* has 0

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None


def worst_interleaving(points: Tensor, ranked: Tensor, num_negatives: Tensor) -> Tensor:
    """int64 [P], never falling: how many negatives stand above each positive in the ranking that maximises the hinge.

    points: float64 [P], descending: p_1 >= p_2 ... ranked: float [A], descending, of which the first num_negatives
    (int64 scalar) are the negatives n_1 >= n_2 ...
    To have the j-th negative, too, above the k-th positive gains (P times)
    g_j(k) = k / ((k + j - 1)(k + j)) - (2 / N)(p_k - n_j), which falls with j. The j-th negative's best place is above
    the positive i that maximises the sum of g_j(k) over k >= i. Positives whose number of negatives is known to lie in
    the same [low, high] form a block; each round tries the middle j of every block and splits it in two.
    """
    place = torch.arange(len(points), device=points.device)
    k = place.double() + 1
    low, high = torch.zeros_like(place), num_negatives.expand(len(points))
    for _ in range(len(ranked).bit_length()):
        j = (low + high + 1) // 2
        margin = points - ranked[(j - 1).clamp(min=0)].double()
        gain = k / ((k + j - 1) * (k + j)) - 2 * margin / num_negatives
        is_open = low < high
        total = sums_from_the_right(torch.where(is_open, gain, 0))
        block = torch.cat((place[:1], (low.diff() > 0).cumsum(0)))
        # Of each block: its last positive, the best total over its places, and the first place that has it.
        last = torch.zeros_like(place).scatter_reduce_(0, block, place, "amax")
        best = torch.full_like(k, -torch.inf).scatter_reduce_(0, block, total[:-1], "amax")
        is_best = total[:-1] == best[block]
        first = torch.full_like(place, len(points)).scatter_reduce_(
            0, block, torch.where(is_best, place, len(points)), "amin"
        )
        pays = (best > total[last + 1])[block] & (place >= first[block])
        low = torch.where(is_open & pays, j, low)
        high = torch.where(is_open & ~pays, j - 1, high)
    return low
