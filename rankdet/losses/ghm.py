"""GHM (AAAI 2019): losses whose every unit of gradient length carries the same total weight."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankdet.losses.checks import check_tensors, check_values
from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.scores import SigmoidScores, full_precision
from rankdet.losses.sums import interval_sums

EPSILON = torch.finfo(torch.float32).eps  # added to the number of elements, as in the released program


def ghm_c_loss(
    logits: Tensor, labels: Tensor, bins: int = 30, momentum: float = 0.75, counts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross entropy of N elements, each weighted by 1 / density of its gradient length (GHM, AAAI 2019: GHM-C).

    logits: float, any shape; half types are computed in float32, float64 in float64. labels: signed integer, same
    shape, in {1, 0, -1}; -1 takes no part. The gradient length |sigmoid(logit) - label| lies in bin b of `bins` (>= 1)
    equal ones, closed on the left, the last on both sides. counts: float64 [bins], the moving averages c_b of the bins'
    counts as the last call returned them, None at the start (0, without a correction for it, so the first calls weigh
    1/(1 - momentum) times too much). A bin that has n_b > 0 elements moves to momentum c_b + (1 - momentum) n_b, an
    empty one stays; momentum in [0, 1).

    Returns the scalar loss, the mean of cross entropy x N / (c_b x non-empty bins), and the new counts. The weights are
    constants in its gradient. The paper divides by all bins; the non-empty ones, and N + 1.2e-7 under the mean, are the
    released program's. N = 0: 0, with a gradient path. Raises ValueError naming the argument: numbers out of range,
    counts of another shape, shapes that differ, labels of a wrong type or value, NaN or infinite logits (ignored ones
    too).
    """
    check_tensors(logits, labels)
    scores, labels = full_precision(logits.reshape(-1)), labels.reshape(-1)
    check_values(scores.detach(), labels)
    wrong = torch.where(labels == 1, -scores, scores)  # sigmoid(wrong) is the gradient length
    lengths = wrong.detach().sigmoid()
    return _harmonise(-F.logsigmoid(-wrong), lengths, labels >= 0, bins, momentum, counts)


def ghm_r_loss(
    pred_deltas: Tensor,
    target_deltas: Tensor,
    mu: float = 0.02,
    bins: int = 10,
    momentum: float = 0.7,
    counts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Authentic smooth L1, sqrt(d^2 + mu^2) - mu, of all differences d, weighted as in ghm_c_loss (GHM: GHM-R).

    pred_deltas, target_deltas: float, one shape, finite: the positives' encoded offsets, every coordinate an element of
    its own. mu: > 0, where the quadratic part ends. The gradient length is |d| / sqrt(d^2 + mu^2). bins, momentum and
    counts: as in ghm_c_loss. Returns the scalar loss and the new counts. No elements: 0, with a gradient path.
    Raises ValueError naming the argument.
    """
    _check_mu(mu)
    if pred_deltas.shape != target_deltas.shape:
        shapes = f"{tuple(target_deltas.shape)} for {tuple(pred_deltas.shape)}"
        raise ValueError(f"target_deltas must have the shape of pred_deltas, got {shapes}")
    difference = full_precision(pred_deltas.reshape(-1)) - full_precision(target_deltas.reshape(-1))
    finite = difference.detach().isfinite().all()
    if finite.device.type != "cpu" or torch.compiler.is_compiling():
        torch._assert_async(finite, "pred_deltas and target_deltas must be finite")
    elif not finite:
        raise ValueError("pred_deltas and target_deltas must be finite, got NaN or infinite differences")
    root = torch.hypot(difference, difference.new_tensor(mu))
    losses = difference * (difference / (root + mu))  # = root - mu, which would cancel
    lengths = (difference / root).detach().abs()
    return _harmonise(losses, lengths, torch.ones_like(lengths, dtype=torch.bool), bins, momentum, counts)


class _RunningCounts(nn.Module):
    """The bins' moving averages as the buffer `counts`, float64 [bins]; in eval mode they stand still."""

    def __init__(self, bins: int, momentum: float, weight: float) -> None:
        super().__init__()
        _check_bins(bins, momentum)
        self.bins, self.momentum, self.weight = bins, momentum, weight
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(bins, dtype=torch.float64))

    def finish(self, name: str, loss: Tensor, counts: Tensor) -> LossOutput:
        """Keeps the counts; the part `name` is the loss before its weight."""
        if self.training:
            self.counts.copy_(counts)
        return LossOutput(self.weight * loss, {name: loss.detach()})


class GHMCLoss(SigmoidScores, _RunningCounts):
    """ghm_c_loss of all anchors and classes of the images on one GPU, times `weight`; each GPU keeps its own counts."""

    def __init__(self, bins: int = 30, momentum: float = 0.75, weight: float = 1.0) -> None:
        super().__init__(bins, momentum, weight)

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "ghm_c" is the loss before its weight."""
        return self.finish("ghm_c", *ghm_c_loss(inputs.logits, inputs.labels, self.bins, self.momentum, self.counts))


class GHMRLoss(_RunningCounts):
    """ghm_r_loss of the P positives' deltas on one GPU, times `weight`; each GPU keeps its own counts."""

    def __init__(self, mu: float = 0.02, bins: int = 10, momentum: float = 0.7, weight: float = 1.0) -> None:
        super().__init__(bins, momentum, weight)
        _check_mu(mu)
        self.mu = mu

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "ghm_r" is the loss before its weight."""
        pred, target = inputs.pred_deltas, inputs.target_deltas
        return self.finish("ghm_r", *ghm_r_loss(pred, target, self.mu, self.bins, self.momentum, self.counts))


def _harmonise(
    losses: Tensor, lengths: Tensor, takes_part: Tensor, bins: int, momentum: float, counts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The weighted mean of the losses ([N]) whose gradient lengths ([N], in [0, 1]) are given, and the new counts."""
    _check_bins(bins, momentum)
    if counts is None:
        counts = torch.zeros(bins, dtype=torch.float64, device=losses.device)
    if counts.shape != (bins,):
        raise ValueError(f"counts must be of shape ({bins},), one per bin, got {tuple(counts.shape)}")
    which = torch.where(takes_part, (lengths * bins).int().clamp_(max=bins - 1), bins)  # one bin more for the others
    found = interval_sums(which, None, bins + 1)[:-1]
    counts = torch.where(found > 0, momentum * counts + (1 - momentum) * found, counts)
    num_elements, num_filled = found.sum(), (found > 0).sum()
    weights = torch.where(found > 0, num_elements / (counts * num_filled), 0)
    weights = F.pad(weights, (0, 1)).to(losses.dtype).index_select(0, which)
    total = (losses * weights).sum(dtype=torch.float64)
    return (total / (num_elements + EPSILON)).to(losses.dtype), counts


def _check_bins(bins: int, momentum: float) -> None:
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}")


def _check_mu(mu: float) -> None:
    if not mu > 0:
        raise ValueError(f"mu must be positive, got {mu}")
