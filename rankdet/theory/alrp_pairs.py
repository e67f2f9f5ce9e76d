"""aLRP loss as its paper writes it, over all pairs of positives and negatives, and the batches to check it on."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rankdet.theory.pair_matrix import StepFunction, differences, heaviside, piecewise
from rankdet.theory.probe import random_batches

ALRP = Callable[..., tuple[Tensor, Tensor]]  # (logits, labels, errors, settings ...) -> classification, localisation


class Case(NamedTuple):
    """A batch, and the step of Sec. 2.1 both written down and as the library is asked for it."""

    scores: Tensor  # float64 [n]
    labels: Tensor  # int8 [n]
    errors: Tensor  # float64 [P]: E_loc in [0, 1]
    step: StepFunction
    delta: float
    hard: bool


def cases(count: int = 6) -> Iterator[Case]:
    """Each random batch with delta 1 and 0.25; and with H, which delta 0.25 is for scores that are whole and differ."""
    generator = torch.Generator().manual_seed(1)
    for scores, labels in random_batches(count):
        errors = torch.rand(int((labels == 1).sum()), generator=generator, dtype=torch.float64)
        for delta in (1.0, 0.25):
            yield Case(scores, labels, errors, piecewise(delta), delta, False)
        yield Case(scores.argsort().argsort().double(), labels, errors, heaviside, 0.25, True)


class Pairs(NamedTuple):
    """The steps of all pairs that Eq. 3 adds up; rows are the P positives in order of appearance."""

    positives: Tensor  # int64 [P]
    negatives: Tensor  # int64 [N]
    among: Tensor  # [P, P]: H(x_ik), 0 where k = i
    above: Tensor  # [P, N]: H(x_ij)

    @property
    def num_fp(self) -> Tensor:
        """N_FP(i): [P]."""
        return self.above.sum(1)

    @property
    def rank(self) -> Tensor:
        """rank(i), Eq. 3: [P]."""
        return 1 + self.among.sum(1) + self.num_fp

    @property
    def uniform(self) -> Tensor:
        """p(j|i) = H(x_ij) / N_FP(i): [P, N]; 0 where the paper's is 0/0."""
        num_fp = self.num_fp[:, None]
        return torch.where(num_fp > 0, self.above / num_fp, 0)


def pairs_of(case: Case) -> Pairs:
    """Eq. 3's steps of a case."""
    positives, negatives = ((case.labels == label).nonzero().squeeze(1) for label in (1, 0))
    x = differences(case.scores)
    steps = case.step(x) * (1 - torch.eye(len(x), dtype=x.dtype))
    return Pairs(positives, negatives, steps[positives][:, positives], steps[positives][:, negatives])


def lrp_of(pairs: Pairs, errors: Tensor) -> Tensor:
    """l(i) of aLRP, Eq. 10: [P]."""
    return (pairs.num_fp + errors + pairs.among @ errors) / pairs.rank


def algorithm_1(case: Case, pairs: Pairs, current: Tensor, target: Tensor | float, p: Tensor) -> Tensor:
    """Lines 1 to 4 from l(i), l*(i) (both [P]) and p(j|i) [P, N], with Z = P: the gradient to the scores [n]."""
    dx = (target - current)[:, None] * p
    gradient = torch.zeros_like(case.scores)
    gradient[pairs.positives] = dx.sum(1)
    gradient[pairs.negatives] = -dx.sum(0)
    return gradient / len(pairs.positives)


def part_and_gradients(
    loss: ALRP, case: Case, errors: Tensor | None = None, part: int = 0, **settings: object
) -> tuple[float, Tensor, Tensor]:
    """The classification part (0) or localisation part (1): its value, gradient to scores [n] and to errors [P]."""
    scores = case.scores.clone().requires_grad_()
    errors = (case.errors if errors is None else errors).clone().requires_grad_()
    value = loss(scores, case.labels, errors, case.delta, **settings)[part]
    to_scores, to_errors = torch.autograd.grad(value, (scores, errors), allow_unused=True)
    zeros = (torch.zeros_like(tensor.detach()) for tensor in (scores, errors))
    given = (to_scores, to_errors)
    return value.item(), *(zero if gradient is None else gradient for zero, gradient in zip(zeros, given, strict=True))


def lrp_from_counts(num_fp: int, num_fn: int, errors: Tensor) -> float:
    """Eq. 6; errors: E_loc of the true positives."""
    return (num_fp + num_fn + errors.sum().item()) / (num_fp + num_fn + len(errors))


def harder(case: Case, pairs: Pairs) -> Tensor:
    """p(j|i) ~ H(x_ij) e^(x_ij): [P, N]."""
    x = differences(case.scores)[pairs.positives][:, pairs.negatives]
    weights = pairs.above * (x - x.amax(1, keepdim=True)).exp()
    total = weights.sum(1, keepdim=True)
    return torch.where(total > 0, weights / total, 0)


def imbalance(gradient: Tensor, labels: Tensor) -> float:
    """The difference of both sides' summed magnitudes."""
    return abs(gradient[labels == 1].abs().sum() - gradient[labels == 0].abs().sum()).item()
