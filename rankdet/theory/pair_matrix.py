"""AP-loss as the paper writes it, over the dense matrix of all pairs: what the library's losses are held against.

Scores are float64 [..., n], labels [n] in {1, 0, -1}, pair matrices [..., n, n] with row i and column j.
"""

from collections.abc import Callable

import torch
from torch import Tensor

StepFunction = Callable[[Tensor], Tensor]


def heaviside(x: Tensor) -> Tensor:
    """H, Eq. 4: a tie counts 1."""
    return (x >= 0).to(x.dtype)


def piecewise(delta: float) -> StepFunction:
    """f, Eq. 21."""
    return lambda x: (x / (2 * delta) + 0.5).clamp(0, 1)


def sigmoid(k: float) -> StepFunction:
    """Eq. 54."""
    return lambda x: (x / k).sigmoid()


def differences(scores: Tensor) -> Tensor:
    """x_ij = s_j - s_i, Eq. 1."""
    return scores[..., None, :] - scores[..., :, None]


def pair_labels(labels: Tensor) -> Tensor:
    """y_ij, Eq. 2: float64 [n, n], 1 where i is positive and j negative."""
    return ((labels[:, None] == 1) & (labels == 0)).double()


def primary_terms(x: Tensor, labels: Tensor, step: StepFunction, numerator: StepFunction | None = None) -> Tensor:
    """L_ij = f(x_ij) / (1 + sum over k != i of f(x_ik)), Eq. 3, over the boxes that take part; 0 in ignored columns.

    numerator: a step of its own for the numerator alone, as in Eq. 37.
    """
    takes_part = (labels != -1).double()
    above = step(x) * takes_part
    others = above.sum(-1) - above.diagonal(dim1=-2, dim2=-1)
    top = above if numerator is None else numerator(x) * takes_part
    return top / (1 + others)[..., None]


def ap_loss_of(terms: Tensor, labels: Tensor) -> Tensor:
    """[...]: Eq. 5, third line: the sum of L_ij y_ij over the number of positives."""
    return (terms * pair_labels(labels)).sum((-2, -1)) / (labels == 1).sum()


def error_driven_update(terms: Tensor, labels: Tensor) -> Tensor:
    """The update of x_ij, Eq. 8 and 9: desired output 0 less L_ij where y_ij = 1, else 0."""
    return torch.where(pair_labels(labels) == 1, 0 - terms, torch.zeros_like(terms))


def score_gradient(terms: Tensor, labels: Tensor) -> Tensor:
    """g_i = sum_j L_ji y_ji - sum_j L_ij y_ij, Eq. 14: not divided by the number of positives."""
    wrong = terms * pair_labels(labels)
    return wrong.sum(-2) - wrong.sum(-1)


def algorithm_1(
    scores: Tensor, labels: Tensor, delta: float, interpolate: bool = True, drop_trivial: bool = True
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 line by line: gradient [n], and 1 - Prec of the positives in ascending order of their scores.

    Without `interpolate` lines 11 to 15 are left out, without `drop_trivial` all negatives stay in line 5. Without
    positives, which the text leaves open, the gradient is 0.
    """
    gradient, errors, step, max_prec = torch.zeros_like(scores), [], piecewise(delta), 0.0
    positives, negatives = (labels == 1).nonzero().squeeze(1), (labels == 0).nonzero().squeeze(1)
    if len(positives) == 0:
        return gradient, scores[:0]
    if drop_trivial:
        negatives = negatives[scores[negatives] > scores[positives].min() - delta]
    for i in positives[scores[positives].argsort()]:
        others = positives[positives != i]
        above = step(scores[negatives] - scores[i])
        terms = above / (1 + step(scores[others] - scores[i]).sum() + above.sum())
        prec = 1 - terms.sum().item()
        if interpolate and prec < max_prec:
            terms = terms * (1 - max_prec) / (1 - prec)
        max_prec = max(max_prec, prec)
        gradient[i] -= terms.sum()
        gradient[negatives] += terms
        errors.append(terms.sum())
    return gradient / len(positives), torch.stack(errors)
