"""Any step function, pair by pair in blocks: exact, O(P + N) memory, O(P N) time."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rankdet.losses.blocks import blocks_of_pairs

Function = Callable[[Tensor], Tensor]  # float64, elementwise


class DirectStep(NamedTuple):
    """A step given by its value and its slope at differences x: where no sum over intervals is exact, or N is small."""

    value: Function
    slope: Function
    at_zero: float  # f(0)

    def pairs(self, points: Tensor, scores: Tensor, takes_part: Tensor | None = None) -> "DirectPairs":
        """Pairs of P points with those of N scores (float) whose `takes_part` (bool [N]; None: all) is true."""
        if takes_part is None:
            takes_part = torch.ones_like(scores, dtype=torch.bool)
        return DirectPairs(self, points.double(), scores, takes_part)


def power_step(exponent: float) -> DirectStep:
    """u**exponent of u = clamp(x / 2 + 1/2, 0, 1), exponent > 0; slope 0 at u = 0 and 1 and outside (golden data)."""

    def value(x: Tensor) -> Tensor:
        return (x / 2 + 0.5).clamp(0, 1) ** exponent

    def slope(x: Tensor) -> Tensor:
        u = x / 2 + 0.5
        inside = (u > 0) & (u < 1)
        return torch.where(inside, exponent / 2 * torch.where(inside, u, 1) ** (exponent - 1), 0)

    return DirectStep(value, slope, 0.5**exponent)


class DirectPairs(NamedTuple):
    """PairSums of a DirectStep."""

    step: DirectStep
    points: Tensor  # float64 [P]
    scores: Tensor  # float [N]
    takes_part: Tensor  # bool [N]

    def at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P]: sum_n u_n f(n - p_i), u = `weights` (float [N]; None: 1) over the scores that take part."""
        return self._at_points(self.step.value, weights)

    def at_scores(self, weights: Tensor) -> Tensor:
        """float [N] in the scores' dtype: sum_i w_i f(n - p_i), w = `weights` (float64 [P]); 0: takes no part."""
        return self._at_scores(self.step.value, weights)

    def slopes_at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P]: sum_n u_n f'(n - p_i)."""
        return self._at_points(self.step.slope, weights)

    def slopes_at_scores(self, weights: Tensor) -> Tensor:
        """float [N] in the scores' dtype: sum_i w_i f'(n - p_i)."""
        return self._at_scores(self.step.slope, weights)

    def _at_points(self, function: Function, weights: Tensor | None) -> Tensor:
        sums = torch.zeros_like(self.points)
        for block, active, differences in self._blocks():
            u = active.double() if weights is None else active * weights[block].double()
            sums += function(differences) @ u
        return sums

    def _at_scores(self, function: Function, weights: Tensor) -> Tensor:
        sums = torch.zeros_like(self.scores)
        for block, active, differences in self._blocks():
            sums[block] = ((weights @ function(differences)) * active).to(sums.dtype)
        return sums

    def _blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Slices of the scores, who takes part in them, and float64 [P, scores in the block]: n - p_i."""
        for block in blocks_of_pairs(len(self.scores), self.points):
            yield block, self.takes_part[block], self.scores[block].double() - self.points[:, None]


class PairsOfSome(NamedTuple):
    """PairSums of a DirectStep that looks at no score but those that take part, whose number the host has to know."""

    inner: DirectPairs
    active: Tensor  # int64 [scores that take part]
    num_scores: int

    @classmethod
    def build(cls, step: DirectStep, points: Tensor, scores: Tensor, takes_part: Tensor) -> "PairsOfSome":
        """points: float [P]; scores: float [N]; takes_part: bool [N]."""
        active = takes_part.nonzero().squeeze(1)
        return cls(step.pairs(points, scores[active]), active, len(scores))

    def at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P], as of DirectPairs; weights: float [N]."""
        return self.inner.at_points(self._of_active(weights))

    def at_scores(self, weights: Tensor) -> Tensor:
        """float [N], as of DirectPairs; weights: float64 [P]."""
        return self._spread(self.inner.at_scores(weights))

    def slopes_at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P], as of DirectPairs; weights: float [N]."""
        return self.inner.slopes_at_points(self._of_active(weights))

    def slopes_at_scores(self, weights: Tensor) -> Tensor:
        """float [N], as of DirectPairs; weights: float64 [P]."""
        return self._spread(self.inner.slopes_at_scores(weights))

    def _of_active(self, weights: Tensor | None) -> Tensor | None:
        return None if weights is None else weights[self.active]

    def _spread(self, sums: Tensor) -> Tensor:
        return sums.new_zeros(self.num_scores).index_copy_(0, self.active, sums)
