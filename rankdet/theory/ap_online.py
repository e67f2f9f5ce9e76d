"""AP-loss (TPAMI 2020), A3: the modified algorithm on linear problems that no weights separate, many at a time."""

from typing import NamedTuple

import torch
from torch import Tensor

from rankdet.theory.pair_matrix import heaviside, piecewise


class Problems(NamedTuple):
    """B linear problems of K samples; positives first."""

    features: Tensor  # float64 [B, K, n, D]
    num_positives: int
    radius: Tensor  # R of each problem, [B]


class Course(NamedTuple):
    """T steps of B problems, before each step's update."""

    thetas: Tensor  # [T, B, D]
    samples: Tensor  # int64 [T, B]: which was drawn
    ranks: Tensor  # [T, B, P]: 1 + sum of H(x_ik)
    losses: Tensor  # [T, B]: AP-loss
    surrogates: Tensor  # [T, B]: l_t(theta_t)
    squared_norms: Tensor  # [T, B]: |dl/dx|^2


def inseparable_problems(
    count: int, num_samples: int, num_positives: int, num_negatives: int, sd: float, seed: int
) -> Problems:
    """Gaussian features in 5 dimensions; along the first, positives stand about 3 and negatives about -3.

    But the first positive and the first negative of a sample have equal features, about 0.
    """
    generator = torch.Generator().manual_seed(seed)
    n = num_positives + num_negatives
    features = sd * torch.randn(count, num_samples, n, 5, generator=generator, dtype=torch.float64)
    features[..., 1:num_positives, 0] += 3
    features[..., num_positives + 1 :, 0] -= 3
    features[..., num_positives, :] = features[..., 0, :]
    pairs = features[..., None, num_positives:, :] - features[..., :num_positives, None, :]
    radius = torch.linalg.matrix_norm(pairs.flatten(2, 3), 2).amax(1)
    return Problems(features, num_positives, radius)


def run(problems: Problems, delta: float, steps: int, eta_factor: float = 1.0) -> Course:
    """The modified algorithm with step eta_factor * delta / R^2 from theta = 0."""
    features, p, radius = problems
    generator = torch.Generator().manual_seed(steps)
    every = torch.arange(len(features))
    theta = torch.zeros(len(features), features.shape[-1], dtype=torch.float64)
    eta = (eta_factor * delta / radius.square())[:, None]
    kept = []
    for _ in range(steps):
        drawn = torch.randint(features.shape[1], (len(features),), generator=generator)
        sample = features[every, drawn]  # [B, n, D]
        scores = (sample @ theta[..., None])[..., 0]
        x = scores[:, None, :] - scores[:, :p, None]  # [B, P, n]
        above = heaviside(x)
        rank = above.sum(-1)  # a score's own H(0) = 1 is the 1 + ...
        errors = piecewise(delta)(x[..., p:]) / rank[..., None] / p  # [B, P, N]
        loss = (above[..., p:].sum(-1) / rank).mean(-1)
        surrogate = (integral(x[..., p:], delta).sum(-1) / rank).mean(-1)
        kept.append((theta, drawn, rank, loss, surrogate, errors.square().sum((-2, -1))))
        pushes = torch.cat((-errors.sum(-1), errors.sum(-2)), dim=-1)  # dl/ds
        theta = theta - eta * (pushes[:, None] @ sample)[:, 0]
    return Course(*(torch.stack(column) for column in zip(*kept, strict=True)))


def comparators(course: Course, seed: int) -> list[Tensor]:
    """u of each problem, [B, D]: multiples of the average theta and of the first axis, the last theta, random ones."""
    generator = torch.Generator().manual_seed(seed)
    average, last = course.thetas.mean(0), course.thetas[-1]
    scales = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 3.0)
    random = [s * torch.randn(last.shape, generator=generator, dtype=torch.float64) for s in (0.1, 0.3, 1.0)]
    axis = torch.eye(last.shape[1], dtype=torch.float64)[0].expand_as(last)
    return [scale * u for u in (average, axis) for scale in scales] + [last, *random]


def losses_of(problems: Problems, course: Course, u: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """l_t(u) at every step, [T, B], and Z(u) over all samples of each problem, [B]."""
    p = problems.num_positives
    scores = (problems.features @ u[:, None, :, None])[..., 0]  # [B, K, n]
    sums = integral(scores[..., None, p:] - scores[..., :p, None], delta).sum(-1)  # A_i(u), [B, K, P]
    drawn = sums[torch.arange(len(u)), course.samples]  # [T, B, P]
    return (drawn / course.ranks).mean(-1), sums.amax((1, 2))


def integral(x: Tensor, delta: float) -> Tensor:
    """Q(x), the integral of f up to x (below Eq. 39): 0, (x + delta)^2 / (4 delta), x."""
    inside = (x + delta).square() / (4 * delta)
    return torch.where(x < -delta, 0, torch.where(x > delta, x, inside))
