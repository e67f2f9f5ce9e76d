"""What every step function f offers: its sums over pairs of few points with many scores, both ways."""

from typing import Protocol

from torch import Tensor


class PairSums(Protocol):
    """S(x) = sum_j u_j f(y_j - x) for P points and N scores, without a P x N matrix that is held at once.

    A score that takes no part adds nothing to any point, and gets 0.
    """

    def at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P]: sum_n u_n f(n - p_i), u = `weights` (float [N]; None: 1) over the scores that take part."""

    def at_scores(self, weights: Tensor) -> Tensor:
        """float [N] in the scores' dtype: sum_i w_i f(n - p_i), w = `weights` (float64 [P])."""

    def slopes_at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P]: sum_n u_n f'(n - p_i)."""

    def slopes_at_scores(self, weights: Tensor) -> Tensor:
        """float [N] in the scores' dtype: sum_i w_i f'(n - p_i)."""


class Step(Protocol):
    """A step function f, about 0 far left and 1 far right."""

    @property
    def at_zero(self) -> float:
        """f(0), which a score contributes to its own sum."""

    def pairs(self, points: Tensor, scores: Tensor, takes_part: Tensor | None = None) -> PairSums:
        """Pairs of P points with those of N scores (float) whose `takes_part` (bool [N]; None: all) is true."""
