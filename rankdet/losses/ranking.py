"""Ranking losses from one sum over pairs, S(x) = sum_j u_j f(y_j - x), in both directions.

The steps f and their sums over pairs are in step_piecewise, step_sigmoid and step_direct. Here: where the positives
stand (Ranking), and a loss made of their errors (error_driven_loss).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.distributed import ProcessGroup

from rankdet.losses.checks import check_tensors, find_positives
from rankdet.losses.scope import Scope
from rankdet.losses.scores import full_precision
from rankdet.losses.step_piecewise import heaviside_step, linear_step
from rankdet.losses.step_sigmoid import SigmoidStep
from rankdet.losses.steps import PairSums, Step


def named_step(step: str, delta: float, k: float = 0.5) -> Step:
    """The step that a loss's arguments name; ValueError: unknown `step`, `delta` or `k` not positive and finite."""
    if step not in ("linear", "heaviside", "sigmoid"):
        raise ValueError(f'step must be "linear", "heaviside" or "sigmoid", got {step!r}')
    for name, value in (("delta", delta), ("k", k)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {value}")
    if step == "linear":
        return linear_step(delta)
    return SigmoidStep(k) if step == "sigmoid" else heaviside_step()


class Ranking:
    """Where P positives stand among all scores that are ranked together; float64 [P] unless said otherwise.

    Made by rank(); nothing of it is differentiable but the losses that it makes.
    """

    def __init__(
        self, flat: Tensor, positives: Tensor, points: Tensor, negatives: PairSums, step: Step, self_term: float,
        scope: Scope,
    ) -> None:  # fmt: skip
        self.flat, self.positives = flat, positives  # this process's scores [N]; int64, where its positives are
        self.scores = points  # p_i
        self.scope = scope
        self.num_fp = scope.total(negatives.at_points()).clamp_(min=0)  # F_i = sum over negatives of f(n - p_i)
        self.negatives, self.step = negatives, step
        self.among = step.pairs(points, points)
        self.rank_pos = self.among.at_points() + (self_term - step.at_zero)  # R_i: self term + sum of f(p_k - p_i)
        self.rank = self.rank_pos + self.num_fp

    def sum_above(self, values: Tensor) -> Tensor:
        """sum_{k != i} e_k f(p_k - p_i), e = `values` of all positives."""
        return self.among.at_points(values) - self.step.at_zero * values

    def order(self) -> Tensor:
        """int64 [P]: the positives by ascending score, equal ones in order of appearance."""
        return self.scores.argsort(stable=True)

    def loss(self, current: Tensor, target: Tensor | float = 0.0, normaliser: Tensor | float | None = None) -> Tensor:
        """sum_i l(i) / Z with the error-driven gradient, as error_driven_loss says; Z: None for P.

        current: l(i); target: l*(i); normaliser: Z, which must not be 0 where there are positives.
        """
        if len(self.scores) == 0:
            return self.flat[:0].sum()
        if normaliser is None:
            normaliser = len(self.scores)
        value = (current.sum() / normaliser).to(self.flat.dtype)
        with torch.no_grad():
            pushes = torch.where(self.num_fp > 0, (current - target) / normaliser, 0) * self.scope.size
            gradient = self.negatives.at_scores(torch.where(self.num_fp > 0, pushes / self.num_fp, 0))
            gradient[self.positives] = -self.scope.own(pushes, len(self.positives)).to(gradient.dtype)
        return with_gradient(self.flat, value, gradient)


def rank(
    logits: Tensor,
    labels: Tensor,
    step: Step,
    *,
    self_term: float = 1.0,
    positives: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Ranking:
    """Ranks the positives among all scores; arguments and errors as in error_driven_loss."""
    check_tensors(logits, labels)
    flat, labels = full_precision(logits.reshape(-1)), labels.reshape(-1)
    scope = Scope(group)
    positives = find_positives(flat.detach(), labels, positives)  # outside: a graph that asserts would leave no_grad on
    with torch.no_grad():
        points = scope.gather(flat[positives].double())
        return Ranking(flat, positives, points, step.pairs(points, flat, labels == 0), step, self_term, scope)


# -> (current error l(i), float64 [P]; its target l*(i), [P] or a number; Z, scalar or number or None for P)
Terms = Callable[[Ranking], tuple[Tensor, Tensor | float, Tensor | float | None]]


def error_driven_loss(
    logits: Tensor,
    labels: Tensor,
    terms: Terms,
    step: Step,
    *,
    self_term: float = 1.0,
    positives: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """sum_i l(i) / Z over the positives i, with the error-driven gradient (aLRP Alg. 1; AP-loss TPAMI 2020, Eq. 8-14).

    logits: float, any shape; computed in float32 (half types) or in its own type, sums over scores in float64. labels:
    signed integer, same shape, in {1 positive, 0 negative, -1 takes no part}. terms: from a Ranking to the error l(i)
    of each positive, its target l*(i) and Z. self_term: what a positive counts in its own rank. positives: int64 [P],
    the ascending flat indices of the labels that are 1, for callers that have them.
    Every (l(i) - l*(i)) / Z is pushed onto its positive and in equal total onto the negatives n, in the ratio
    f(n - p_i) / F_i, the uniform p(j|i); where F_i is 0 there is no push. This is not the derivative of the value, so
    there is no double backward.
    group: the processes whose scores are ranked together; each gets the loss of all, and a gradient times their number,
    since DistributedDataParallel takes the mean.
    Returns a scalar in the type of the computation; 0 with a gradient path without positives.
    Raises ValueError for shapes or devices that differ, wrong dtypes, labels out of range, NaN or infinite logits. On a
    GPU the device is waited for once, to find the positives and to check values; given `positives` nothing waits, and
    wrong values are asserted on the device. With a group the numbers of positives are exchanged besides.
    """
    ranking = rank(logits, labels, step, self_term=self_term, positives=positives, group=group)
    with torch.no_grad():
        current, target, normaliser = terms(ranking)
    return ranking.loss(current, target, normaliser)


def with_gradient(inputs: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """`value` (scalar), whose gradient to `inputs` is `gradient` (their shape) times the upstream one."""
    return _WithGradient.apply(inputs, value, gradient)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, inputs: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None
