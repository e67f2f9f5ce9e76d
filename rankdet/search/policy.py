"""The search's policy: a truncated normal on [0, 1] for every coordinate of theta, all of one spread."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.special import ndtr, ndtri


class Policy(NamedTuple):
    """What theta is drawn from. mean = sigmoid(mu) is where an untruncated normal would have its mean (as released)."""

    mu: Tensor  # float64 [D]: logits
    sigma: float  # > 0

    @property
    def mean(self) -> Tensor:
        """float64 [D] in (0, 1)."""
        return self.mu.sigmoid()

    def sample(self, uniform: Tensor) -> Tensor:
        """theta [S, D] in [0, 1] from numbers of the same shape that are uniform in [0, 1)."""
        low, high = self._ends()
        return (self.mean + self.sigma * ndtri(low + uniform * (high - low))).clamp(0, 1)

    def log_prob(self, theta: Tensor) -> Tensor:
        """log of each coordinate's density, [S, D] for theta [S, D] in [0, 1]; differentiable in mu."""
        low, high = self._ends()
        normal = -(((theta - self.mean) / self.sigma) ** 2) / 2 - math.log(self.sigma * math.sqrt(2 * math.pi))
        return normal - (high - low).log()

    def _ends(self) -> tuple[Tensor, Tensor]:
        """The normal's distribution function at 0 and 1, [D] each."""
        return ndtr(-self.mean / self.sigma), ndtr((1 - self.mean) / self.sigma)


def logits(mean: Tensor) -> Tensor:
    """mu of a policy with this mean, in (0, 1)."""
    return torch.logit(mean.double())


def shrunk(sigma: float, rounds_done: int, rounds: int) -> float:
    """The spread after so many of all rounds: from sigma linearly to 0 (as released)."""
    return sigma * (1 - rounds_done / rounds)
