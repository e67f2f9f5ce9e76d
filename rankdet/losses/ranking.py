"""The sum over pairs behind every ranking loss, S(x) = sum_j u_j f(y_j - x), both ways and without the pairs."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from rankdet.losses.scores import full_precision

SIGMOID_BLOCK = 1 << 20  # pairs held at a time by the sigmoid step


class Step(NamedTuple):
    """The step f: kind "linear" (half width `size`), "heaviside" (size unused) or "sigmoid" (scale `size`).

    linear: f(x) = clamp(x / (2 size) + 1/2, 0, 1) (AP-loss Eq. 21); heaviside: [x >= 0], so f(0) = 1 (Eq. 2);
    sigmoid: 1 / (1 + exp(-x / size)) (Eq. 54).
    """

    kind: str
    size: float

    @classmethod
    def of(cls, step: str, delta: float, k: float = 0.5) -> "Step":
        """The step that a loss's arguments name; ValueError: unknown `step`, `delta` or `k` not positive and finite."""
        if step not in ("linear", "heaviside", "sigmoid"):
            raise ValueError(f'step must be "linear", "heaviside" or "sigmoid", got {step!r}')
        for name, value in (("delta", delta), ("k", k)):
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        return cls(step, {"linear": delta, "heaviside": 0.0, "sigmoid": k}[step])

    @property
    def at_zero(self) -> float:
        """f(0), which a score contributes to its own sum."""
        return 1.0 if self.kind == "heaviside" else 0.5

    def pairs(self, points: Tensor, scores: Tensor, takes_part: Tensor | None = None) -> "LinearPairs | SigmoidPairs":
        """Pairs of P points (few) with those of N scores (many) whose `takes_part` (bool [N]; None: all) is true."""
        if takes_part is None:
            takes_part = torch.ones_like(scores, dtype=torch.bool)
        if self.kind == "sigmoid":
            return SigmoidPairs(points, scores, takes_part, torch.tensor(self.size, dtype=torch.float64))
        return LinearPairs.build(points, scores, takes_part, self.size)


class LinearPairs(NamedTuple):
    """Sums of the piecewise linear or the hard step over P x N pairs in O((P + N) log P) time and O(P + N) memory.

    The M = 2P breakpoints p_i -+ delta (M = P, p_i itself, for the hard step) cut the score axis into M + 1 intervals;
    inside one, every f(n - p_i) is linear in n. Scores below all breakpoints and scores that take no part share
    interval 0, where f is 0 for every point. Breakpoints are float64 and each score is put on its true side of them.
    Sums are float64; on a GPU torch.bincount adds in no fixed order, so their last bits may differ between runs.
    """

    scores: Tensor  # float [N], finite
    interval: Tensor  # int32 [N]: number of breakpoints at or below the score; 0 where it takes no part
    knots: Tensor  # float64 [M], ascending
    low: Tensor  # int64 [P]: where p_i - delta stands among the knots
    high: Tensor  # int64 [P]: where p_i + delta stands; equal to low for the hard step
    width: Tensor  # float64 scalar: 2 delta

    @classmethod
    def build(cls, points: Tensor, scores: Tensor, takes_part: Tensor, delta: float) -> "LinearPairs":
        """points: float [P]; scores: float [N]; takes_part: bool [N]; delta: half width >= 0, 0 is the hard step."""
        points = points.double()
        ends = torch.cat((points - delta, points + delta)) if delta > 0 else points
        knots, order = ends.sort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        low, high = place[: len(points)], place[-len(points) :]
        candidates = torch.where(takes_part, scores, -torch.inf)
        interval = torch.bucketize(candidates, _round_up(knots, scores.dtype), right=True, out_int32=True)
        return cls(scores, interval, knots, low, high, torch.tensor(2.0 * delta, dtype=torch.float64))

    def at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P]: sum_n u_n f(n - p_i), u = `weights` (float [N]; None: 1) over the scores that take part."""
        size = len(self.knots) + 1
        mass = torch.bincount(self.interval, None if weights is None else weights.double(), minlength=size)
        mass_above = _suffix_sums(mass.double())
        full = mass_above[self.high + 1]
        if self.width == 0:
            return full
        moment = self.scores.double() if weights is None else self.scores.double() * weights
        moment = torch.bincount(self.interval, moment, minlength=size)
        moment[-1] = 0  # scores above every ramp count as 1 each; however large, they must not drown the others' sum
        moment_above = _suffix_sums(moment)
        partial_mass = mass_above[self.low + 1] - full
        partial_moment = moment_above[self.low + 1] - moment_above[self.high + 1]
        return full + (partial_moment - self.knots[self.low] * partial_mass) / self.width

    def at_scores(self, weights: Tensor) -> Tensor:
        """float [N] in the scores' dtype: sum_i w_i f(n - p_i), w = `weights` (float64 [P]); 0 where n takes no part.

        Evaluated from the interval's left breakpoint, value + slope * distance: value and slope alone would cancel.
        """
        slope, value = torch.zeros_like(self.knots), torch.zeros_like(self.knots)
        if self.width == 0:
            value[self.low] = weights
            value = value.cumsum(0)
        else:
            slope[self.low], slope[self.high] = weights / self.width, -weights / self.width
            active = torch.zeros_like(slope)
            active[self.low], active[self.high] = 1, -1
            slope = slope.cumsum(0).where(active.cumsum(0) > 0, 0)  # exactly flat outside all ramps, whatever rounding
            value[1:] = (slope[:-1] * self.knots.diff()).cumsum(0)
        dtype = self.scores.dtype
        left = _round_up(self.knots, dtype)
        value = value + slope * (left.double() - self.knots)
        slope, value, left = (torch.cat((table.new_zeros(1), table)).to(dtype) for table in (slope, value, left))
        distance = self.scores - left.index_select(0, self.interval)  # indexing with [] takes several times as long
        return distance.mul_(slope.index_select(0, self.interval)).add_(value.index_select(0, self.interval))


class SigmoidPairs(NamedTuple):
    """Sums of the sigmoid step over P x N pairs: exact, block by block, O(P + N) memory but O(P N) time.

    The sigmoid is not piecewise linear, so no interval sums give it exactly; at detector size this is the slow step.
    """

    points: Tensor  # float [P]
    scores: Tensor  # float [N]
    takes_part: Tensor  # bool [N]
    scale: Tensor  # float64 scalar: k

    def at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P]: sum_n u_n f(n - p_i), u = `weights` (float [N]; None: 1) over the scores that take part."""
        sums = torch.zeros(len(self.points), dtype=torch.float64, device=self.points.device)
        for block, active in self._blocks():
            u = active.double() if weights is None else active * weights[block].double()
            sums += self._steps(block) @ u
        return sums

    def at_scores(self, weights: Tensor) -> Tensor:
        """float [N] in the scores' dtype: sum_i w_i f(n - p_i), w = `weights` (float64 [P]); 0: takes no part."""
        sums = torch.zeros_like(self.scores)
        for block, active in self._blocks():
            sums[block] = ((weights @ self._steps(block)) * active).to(sums.dtype)
        return sums

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the scores small enough for their pairs with all points to be held, and who takes part in them."""
        size = max(1, SIGMOID_BLOCK // max(1, len(self.points)))
        for start in range(0, len(self.scores), size):
            block = slice(start, start + size)
            yield block, self.takes_part[block]

    def _steps(self, block: slice) -> Tensor:
        """float64 [P, scores in the block]: f(n - p_i)."""
        return ((self.scores[block].double() - self.points.double()[:, None]) / self.scale).sigmoid()


# (rank among positives [P], false positives above [P], positives' scores [P]), float64 each -> errors l [P], float64
Errors = Callable[[Tensor, Tensor, Tensor], Tensor]


def error_driven_loss(
    logits: Tensor, labels: Tensor, errors: Errors, step: Step, positives: Tensor | None = None
) -> Tensor:
    """Mean error l_i of the positives, with the error-driven gradient (AP-loss TPAMI 2020, Eq. 8-14; aLRP Alg. 1).

    logits: float, any shape; computed in float32 (half types) or in its own type, sums over scores in float64. labels:
    signed integer, same shape, in {1 positive, 0 negative, -1 takes no part}. positives: int64 [P], the ascending
    flat indices of the labels that are 1, for callers that have them.
    errors: from R_i = 1 + sum_{k != i} f(p_k - p_i), F_i = sum_n f(n - p_i) and p_i to l_i, which must be 0 where F_i
    is. Each l_i is pushed onto its positive (gradient -l_i / P) and in equal total onto the negatives n, in the ratio
    f(n - p_i) / F_i. This is not the derivative of the value, so there is no double backward.
    Returns a scalar in the type of the computation; 0 with a gradient path without positives or without negatives.
    Raises ValueError for shapes or devices that differ, wrong dtypes, labels out of range, NaN or infinite logits.
    """
    _check_tensors(logits, labels)
    scores = full_precision(logits.reshape(-1))
    labels = labels.reshape(-1)
    _check_values(scores.detach(), labels)
    if positives is None:
        positives = (labels == 1).nonzero().squeeze(1)
    if len(positives) == 0:
        return scores[:0].sum()
    return _ErrorDriven.apply(scores, labels, positives, errors, step)


class _ErrorDriven(torch.autograd.Function):
    """The loss of error_driven_loss on flat, checked inputs with at least one positive."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, scores: Tensor, labels: Tensor, positives: Tensor, errors: Errors, step: Step
    ) -> Tensor:
        points = scores[positives].double()
        rank_pos = step.pairs(points, points).at_points() + (1.0 - step.at_zero)
        pairs = step.pairs(points, scores, labels == 0)
        num_fp = pairs.at_points().clamp_(min=0)
        error = errors(rank_pos, num_fp, points)
        shares = torch.where(num_fp > 0, error / num_fp, 0)
        ctx.pairs_type = type(pairs)
        ctx.save_for_backward(positives, error, shares, *pairs)
        return error.mean().to(scores.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        positives, error, shares, *pairs = ctx.saved_tensors
        scale = upstream.double() / len(positives)
        gradient = ctx.pairs_type(*pairs).at_scores(shares * scale)
        gradient[positives] = (-error * scale).to(gradient.dtype)
        return gradient, None, None, None, None


def _check_tensors(logits: Tensor, labels: Tensor) -> None:
    """What can be told without looking at the values; ValueError names the argument."""
    if not logits.is_floating_point():
        raise ValueError(f"logits must be floating point, got {logits.dtype}")
    if labels.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        raise ValueError(f"labels must be signed integers (1, 0, -1), got {labels.dtype}")
    if logits.shape != labels.shape:
        raise ValueError(f"labels must have the shape of logits, got {tuple(labels.shape)} for {tuple(logits.shape)}")
    if logits.device != labels.device:
        raise ValueError(f"labels must be on the device of logits, got {labels.device} for {logits.device}")


def _check_values(scores: Tensor, labels: Tensor) -> None:
    """One read-back from the device for both checks; ValueError says how many logits are NaN or infinite."""
    if scores.numel() == 0:
        return
    lowest, highest = labels.aminmax()
    # A sum is the cheapest pass that no NaN or infinity survives; huge finite scores may make it overflow: ask again.
    range_ok, sum_ok = torch.stack(((lowest >= -1) & (highest <= 1), scores.sum().isfinite())).tolist()
    if not range_ok:
        raise ValueError(f"labels must be 1, 0 or -1, got values from {lowest.item()} to {highest.item()}")
    if not sum_ok and not (finite := scores.isfinite()).all():
        bad = int((~finite).sum())
        first = int((~finite).nonzero()[0])
        raise ValueError(
            f"logits must be finite: {bad} of {scores.numel()} are NaN or infinite, "
            f"the first at flat index {first} ({scores[first].item()})"
        )


def _round_up(knots: Tensor, dtype: torch.dtype) -> Tensor:
    """The least numbers of type `dtype` at or above the float64 knots: score >= knot, asked in the scores' own type."""
    rounded = knots.to(dtype)
    above = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
    return torch.where(rounded.double() < knots, above, rounded)


def _suffix_sums(bins: Tensor) -> Tensor:
    """[M] -> [M + 1]: entry b is the sum of bins b, b + 1, ...; the last is 0."""
    return torch.cat((bins.flip(0).cumsum(0).flip(0), bins.new_zeros(1)))
