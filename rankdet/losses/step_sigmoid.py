"""The sigmoid step: pair sums from the moments of the scores in narrow bins, without pairs."""

from collections.abc import Iterator
from math import factorial
from typing import NamedTuple

import torch
from torch import Tensor

from rankdet.losses.blocks import blocks_of_pairs
from rankdet.losses.step_direct import DirectStep, PairsOfSome
from rankdet.losses.steps import PairSums
from rankdet.losses.sums import interval_sums

# In a bin of half width h the sigmoid is its Taylor polynomial of degree ORDER up to (h / k)^(ORDER + 1) / (ORDER + 1)!
# of itself: 3e-9 for 32 bins in a width of k, 6e-13 for 256.
ORDER = 3
BINS_PER_SCALE = {torch.float32: 32, torch.float64: 256}
SATURATED = 40.0  # in units of k; exp(-40) is 4e-18
BIN_COST = 3  # what a bin takes, in scores that are looked at pair by pair: 1 to 5 where it was measured


class SigmoidStep(NamedTuple):
    """f(x) = 1 / (1 + exp(-x / k)), k > 0 (AP-loss TPAMI 2020, Eq. 54)."""

    k: float

    @property
    def at_zero(self) -> float:
        """f(0) = 1/2."""
        return 0.5

    def pairs(self, points: Tensor, scores: Tensor, takes_part: Tensor | None = None) -> PairSums:
        """Pairs of P points with those of N scores (float) whose `takes_part` (bool [N]; None: all) is true.

        Pair by pair where that is cheaper than by bins (few scores take part, or scores lie far apart). The number of
        bins is read back from the device.
        """
        if takes_part is None:
            takes_part = torch.ones_like(scores, dtype=torch.bool)
        points = points.double()
        if min(len(points), len(scores)) > 0:
            reach = SATURATED * self.k
            low = torch.maximum(scores.amin().double(), points.amin() - reach)
            high = torch.minimum(scores.amax().double(), points.amax() + reach)
            first, last, count = torch.stack((low, high, takes_part.sum())).tolist()
            last = max(first, last)  # all scores lie left of all windows
            widths = (last - first) / self.k * BINS_PER_SCALE[scores.dtype]  # may be infinite
            if BIN_COST * (widths + 1) < count:
                return SigmoidPairs.build(self.k, points, scores, takes_part, first, last, int(widths) + 1)
        return PairsOfSome.build(DirectStep(self._value, self._slope, 0.5), points, scores, takes_part)

    def _value(self, x: Tensor) -> Tensor:
        return (x / self.k).sigmoid()

    def _slope(self, x: Tensor) -> Tensor:
        step = self._value(x)
        return step * (1 - step) / self.k


class SigmoidPairs(NamedTuple):
    """Sums of the sigmoid step over P x N pairs in O(N + P bins) time and O(P + N + bins) memory.

    Scores further than SATURATED k from all points count as if they were that far.
    """

    k: float
    points: Tensor  # float64 [P]
    centres: Tensor  # float64 [bins], numbers of the scores' dtype
    bin: Tensor  # int32 [N]; the number of bins where the score takes no part
    distance: Tensor  # float [N]: (score - centre of its bin) / k

    @classmethod
    def build(
        cls, k: float, points: Tensor, scores: Tensor, takes_part: Tensor, low: float, high: float, num_bins: int
    ) -> "SigmoidPairs":
        """points: float64 [P]; scores: float [N]; takes_part: bool [N]; bins of width k / BINS_PER_SCALE from `low`."""
        width = k / BINS_PER_SCALE[scores.dtype]
        centres = low + width * (torch.arange(num_bins, dtype=torch.float64, device=scores.device) + 0.5)
        centres = centres.to(scores.dtype)
        clamped = scores.clamp(low, high)
        index = clamped.sub(low).div_(width).clamp_(0, num_bins - 1).int()
        distance = clamped.sub_(centres.index_select(0, index)).div_(k)
        return cls(k, points, centres.double(), torch.where(takes_part, index, num_bins), distance)

    def at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P]: sum_n u_n f(n - p_i), u = `weights` (float [N]; None: 1) over the scores that take part."""
        return self._at_points(0, weights)

    def at_scores(self, weights: Tensor) -> Tensor:
        """float [N] in the scores' dtype: sum_i w_i f(n - p_i), w = `weights` (float64 [P]); 0: takes no part."""
        return self._at_scores(0, weights)

    def slopes_at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P]: sum_n u_n f'(n - p_i)."""
        return self._at_points(1, weights) / self.k

    def slopes_at_scores(self, weights: Tensor) -> Tensor:
        """float [N] in the scores' dtype: sum_i w_i f'(n - p_i)."""
        return self._at_scores(1, weights) / self.k

    def _at_points(self, derivative: int, weights: Tensor | None) -> Tensor:
        size, distance = len(self.centres), self.distance.double()
        power = None if weights is None else weights.double()
        moments = []
        for order in range(ORDER + 1):
            moments.append(interval_sums(self.bin, power, size + 1)[:size] / factorial(order))
            power = distance if power is None else power * distance
        sums = torch.zeros_like(self.points)
        for block, terms in self._derivatives(derivative):
            sums += sum(term @ moment[block] for term, moment in zip(terms, moments, strict=True))
        return sums

    def _at_scores(self, derivative: int, weights: Tensor) -> Tensor:
        table = torch.zeros(ORDER + 1, len(self.centres) + 1, dtype=torch.float64, device=self.points.device)
        for block, terms in self._derivatives(derivative):
            for order, term in enumerate(terms):
                table[order, block] = weights @ term / factorial(order)
        *lower, highest = table.to(self.distance.dtype)
        sums = highest.index_select(0, self.bin)
        for coefficients in reversed(lower):
            sums.mul_(self.distance).add_(coefficients.index_select(0, self.bin))
        return sums

    def _derivatives(self, lowest: int) -> Iterator[tuple[slice, list[Tensor]]]:
        """Slices of the bins, and the sigmoid's derivatives from the lowest (0 or 1) on, ORDER + 1 of them: float64
        [P, bins in the block], at (centre - p) / k."""
        for block in blocks_of_pairs(len(self.centres), self.points):
            step = (self.centres[block] - self.points[:, None]).div_(self.k).sigmoid_()
            first = (1 - step).mul_(step)
            second = first.addcmul(first, step, value=-2)
            third = first.addcmul(first, first, value=-6)
            if lowest == 0:
                yield block, [step, first, second, third]
            else:
                yield block, [first, second, third, second.addcmul(second, first, value=-12)]
