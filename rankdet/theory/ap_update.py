"""AP-loss (TPAMI 2020), Section 3.2: the error-driven update, and how it reaches weights and scores."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from rankdet.losses.ap import ap_loss
from rankdet.theory.claim import Verdict, agree, at_most, claim, difference
from rankdet.theory.pair_matrix import (
    ap_loss_of,
    differences,
    error_driven_update,
    heaviside,
    pair_labels,
    primary_terms,
    score_gradient,
)
from rankdet.theory.probe import STEPS, Loss, random_batches, value_and_gradient

PLAIN = {"interpolate": False}


@claim("AP-Q5", "Eq. 8-9", "The update of x_ij is its desired output less its output: -L_ij where y_ij = 1, else 0.")
def update_of_pairs(loss: Loss = ap_loss, update: Callable[[Tensor, Tensor], Tensor] = error_driven_update) -> Verdict:
    """Element by element: with one positive the library's gradient at negative j is -dx_1j itself."""
    element = forms = 0.0
    count = 0
    for scores, labels in random_batches():
        single = torch.where(labels == 1, -1, labels)
        single[0] = 1
        for step, settings in STEPS.values():
            terms = primary_terms(differences(scores), single, step)
            _, gradient = value_and_gradient(loss, scores, single, **settings, **PLAIN)
            expected = -update(terms, single)[0]
            expected[0] = -expected.sum()
            element = max(element, difference(gradient, expected))
            terms = primary_terms(differences(scores), labels, step)
            forms = max(forms, difference(update(terms, labels), -terms * pair_labels(labels)))
            count += 1
    return Verdict(
        (
            agree(f"library and -dx_1j, one positive, {count} batches and steps, element by element", element, 1e-9),
            agree("desired output 0 less L_ij where y_ij = 1, else 0, and -L_ij y_ij", forms, 0),
        )
    )


@claim(
    "AP-Q6",
    "Eq. 10-13",
    "The weights move by J^T dx / (2 lambda), the minimiser of -<dx, J dtheta> + lambda |dtheta|^2.",
)
def update_of_weights(loss: Loss = ap_loss) -> Verdict:
    """Back-propagation through the library's loss against a numerical minimiser, for a linear model and a net."""
    errors = {"linear model": 0.0, "two-layer net": 0.0}
    for (scores, labels), (name, num_weights, model) in (
        (batch, model) for batch in random_batches(6, seed=6) for model in small_models()
    ):
        features = torch.stack((scores, scores.flip(0), scores.cos()), dim=1)  # [n, 3]
        theta = torch.linspace(-0.7, 0.9, num_weights, dtype=torch.float64)
        for strength in (0.5, 2.0):
            expected = numerical_minimiser(model, features, labels, theta, strength)
            weights = theta.clone().requires_grad_()
            loss(model(features, weights), labels, step="heaviside", **PLAIN).backward()
            move = -(labels == 1).sum() * weights.grad / (2 * strength)
            errors[name] = max(errors[name], difference(move, expected) / expected.abs().max().clamp(min=1).item())
    return Verdict(
        tuple(
            agree(f"{name}: -P/(2 lambda) times the library's gradient and the minimiser, relative", error, 1e-5)
            for name, error in errors.items()
        ),
        reading="the objective is Eq. 12's, linearised; the factor P undoes the 1/P of Algorithm 1, line 19.",
    )


@claim(
    "AP-Q7",
    "Eq. 14",
    "g_i = sum_j L_ji y_ji - sum_j L_ij y_ij: dx sent back through x_ij = s_j - s_i; each side's total is the loss.",
)
def gradient_of_scores(loss: Loss = ap_loss) -> Verdict:
    """The library's gradient against the dense sums and against autograd through Eq. 1; its sum, signs and totals."""
    dense = backward = total = wrong_side = sides = 0.0
    count = 0
    for scores, labels in random_batches():
        num_positives = (labels == 1).sum()
        for step, settings in STEPS.values():
            value, gradient = value_and_gradient(loss, scores, labels, **settings, **PLAIN)
            terms = primary_terms(differences(scores), labels, step)
            dense = max(dense, difference(gradient, score_gradient(terms, labels) / num_positives))
            through = scores.clone().requires_grad_()
            differences(through).backward(-error_driven_update(terms, labels))
            backward = max(backward, difference(gradient, through.grad / num_positives))
            total = max(total, abs(gradient.sum().item()))
            positives, negatives = gradient[labels == 1], gradient[labels == 0]
            wrong_side = max(wrong_side, positives.max().item(), -negatives.min().item())
            magnitudes = -positives.sum().item(), negatives.sum().item()
            sides = max(sides, *(difference(side, value) for side in magnitudes))
            sides = max(sides, difference(value, ap_loss_of(terms, labels).item()))
            count += 1
    return Verdict(
        (
            agree(f"library and Eq. 14 over all pairs, divided by P, {count} batches and steps", dense, 1e-9),
            agree("library and -dx sent back through x_ij = s_j - s_i by autograd, divided by P", backward, 1e-9),
            agree("sum of the gradient, and 0", total, 1e-12),
            at_most("furthest that a positive's g is above 0 or a negative's below", wrong_side, 0),
            agree("total magnitude of either side, and the loss", sides, 1e-9),
        )
    )


def small_models() -> list[tuple[str, int, Callable[[Tensor, Tensor], Tensor]]]:
    """Name, number of weights, and scores [n] of features [n, 3] under the weights."""

    def net(features: Tensor, weights: Tensor) -> Tensor:
        return (features @ weights[:6].view(3, 2)).tanh() @ weights[6:]

    return [("linear model", 3, lambda features, weights: features @ weights), ("two-layer net", 8, net)]


def numerical_minimiser(
    model: Callable[[Tensor, Tensor], Tensor], features: Tensor, labels: Tensor, theta: Tensor, strength: float
) -> Tensor:
    """The dtheta that BFGS with numerical derivatives finds for Eq. 12, with J of all x_ij by autograd."""
    of_scores = torch.autograd.functional.jacobian(lambda weights: model(features, weights), theta)  # [n, weights]
    jacobian = of_scores - of_scores[:, None]  # [n, n, weights], as in Eq. 1
    terms = primary_terms(differences(model(features, theta)), labels, heaviside)
    dx = error_driven_update(terms, labels)

    def objective(move: np.ndarray) -> float:
        move = torch.from_numpy(move)
        return (-(dx * (jacobian @ move)).sum() + strength * move.square().sum()).item()

    return torch.from_numpy(minimize(objective, np.zeros(len(theta))).x)
