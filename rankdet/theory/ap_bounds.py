"""AP-loss (TPAMI 2020), A3: what is guaranteed for a linear model when the data are not separable.

Here, as there, f stands in the numerator alone (Eq. 37) and the gradient is divided by the number of positives.
"""

import math
from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from rankdet.losses.ap import ap_loss
from rankdet.theory.ap_online import Problems, comparators, inseparable_problems, integral, losses_of, run
from rankdet.theory.claim import Finding, Plot, Verdict, agree, at_most, claim, difference
from rankdet.theory.pair_matrix import differences, heaviside, piecewise, primary_terms, score_gradient
from rankdet.theory.probe import Loss, random_batches

DELTAS = (0.5, 1.0, 2.0)
ONLINE_STEPS, OFFLINE_STEPS = 400, 3000
NUM_POSITIVES = (2, 8, 24)  # of the offline problems


@claim(
    "AP-P3", "A3.1, Eq. 37-40", "The surrogate l(x, x), with Q for H in the numerator, is at least delta/4 of AP-loss."
)
def surrogate_above(q: Callable[[Tensor, float], Tensor] = integral, loss: Loss = ap_loss) -> Verdict:
    """Random scores with and without ties, five deltas; Q against a numerical integral of f."""
    ratios, error, tied = [], 0.0, 0.0
    zero = torch.zeros(1, dtype=torch.float64)
    for delta in (0.25, 0.5, 1.0, 2.0, 4.0):
        x = torch.linspace(-2 * delta, 3 * delta, 50_001, dtype=torch.float64)
        error = max(error, difference(torch.cumulative_trapezoid(piecewise(delta)(x), x), q(x[1:], delta)))
        for scores, labels in random_batches():
            ap = loss(scores, labels, step="heaviside", interpolate=False).item()
            if ap > 0:
                above = primary_terms(differences(scores), labels, heaviside, lambda d, delta=delta: q(d, delta))
                wrong = above[labels == 1][:, labels == 0]
                ratios.append(wrong.sum().item() / (labels == 1).sum().item() / (delta / 4 * ap))
        tied = max(tied, abs(q(zero, delta).item() / (delta / 4) - 1))  # l over delta/4 AP-loss is Q(0) over delta/4
    return Verdict(
        (
            agree("Q and the integral of f by the trapezoid rule", error, 1e-6),
            Finding(
                min(ratios) >= 1 - 1e-12,
                f"least l(x, x) / (delta/4 AP-loss) over {len(ratios)} batches and deltas: {min(ratios):.4f}",
            ),
            agree("the same of a tied pair, and 1: the bound is reached", tied, 1e-12),
        )
    )  # fmt: skip


@claim(
    "AP-P4",
    "A3.2, Eq. 41-48",
    "With step delta/R^2: sum of AP-loss <= (8/delta) sum of l_t(u) + 4 R^2 |u - theta_1|^2 / delta^2, any u.",
)
def accumulated_loss(eta_factor: float = 1.0) -> Verdict:
    """60 inseparable problems of 5 samples, a random one at each step, theta_1 = 0; many u."""
    surrogate_ratio = loss_ratio = norm_ratio = error = 0.0
    num_comparators = 0
    for seed, delta in enumerate(DELTAS):
        problems = inseparable_problems(20, 5, 4, 16, 1.5, seed)
        error = max(error, gradient_error(problems, delta))
        course = run(problems, delta, ONLINE_STEPS, eta_factor)
        norm_ratio = max(norm_ratio, (course.squared_norms * delta / course.surrogates).max().item())
        total, total_ap = course.surrogates.sum(0), course.losses.sum(0)
        for u in comparators(course, seed):
            of_u, _ = losses_of(problems, course, u, delta)
            distance = problems.radius.square() * u.square().sum(-1)  # theta_1 is 0
            surrogate_ratio = max(surrogate_ratio, (total / (2 * of_u.sum(0) + distance / delta)).max().item())
            bound = 8 / delta * of_u.sum(0) + 4 * distance / delta**2
            loss_ratio = max(loss_ratio, (total_ap / bound).max().item())
            num_comparators += len(total)
    return Verdict(
        (
            agree("-(Eq. 14 with Eq. 37), over P, and the gradient of l by autograd", error, 1e-12),
            at_most("Eq. 44: largest |dl/dx|^2 over l / delta at any step", norm_ratio, 1 + 1e-9),
            at_most(f"Eq. 47: largest share of the bound, {num_comparators} problems and u", surrogate_ratio, 1),
            at_most("Eq. 48: the same", loss_ratio, 1),
        ),
        reading="R is the spectral norm of the differences f_j - f_i of positives i and negatives j, all that l "
        "contains. Each sample has a positive and a negative with equal features, so no weights separate it.",
    )


@claim(
    "AP-P5",
    "A3.3, Eq. 49-53",
    "Offline the average AP-loss is below both (ln P + 1)/P z and z/(1 + z), z = 8 Z(u)/delta, but for a term in 1/T.",
)
def offline_bounds(harmonic: Callable[[int], float] = lambda p: math.log(p) + 1, steps: int = OFFLINE_STEPS) -> Verdict:
    """50 inseparable problems with 2, 8 and 24 positives, each with the same data at every step; many u."""
    delta, shares = 1.0, [0.0] * 4  # of Eq. 49, 51, 50 and 52
    first_is_less, below_crossing, useful, panels = [], [], 0, {}
    for seed, p in enumerate(NUM_POSITIVES):
        problems = inseparable_problems(16 + (seed > 0), 1, p, 4, 0.3, 10 + seed)
        course = run(problems, delta, steps)
        factor, average, of_u = harmonic(p) / p, course.losses.mean(0), []
        for u in comparators(course, seed):
            losses, worst = losses_of(problems, course, u, delta)  # l_t(u) [T, B] and Z(u) [B]
            z = 8 / delta * worst
            rest = 4 * (problems.radius * u.norm(dim=-1) / delta).square() / steps
            first, second = factor * z, z / (1 + z)
            parts = (
                losses / (factor * worst), losses / ((1 - course.losses) * worst),
                average / (first + rest), average / (second + rest),
            )  # fmt: skip
            shares = [max(share, part.max().item()) for share, part in zip(shares, parts, strict=True)]
            first_is_less.append(first < second)
            below_crossing.append(z < 1 / factor - 1)
            of_u.append(torch.stack((z, average, torch.minimum(first, second) + rest)))
        panels[p] = torch.stack(of_u, dim=1)  # [3, U, B]
        useful += int((panels[p][2].amin(0) < 0.9).sum())
    less, below = torch.cat(first_is_less), torch.cat(below_crossing)
    crossings = ", ".join(f"{max(0, p / harmonic(p) - 1):.2f} for P = {p}" for p in (1, *NUM_POSITIVES))
    num_problems = sum(panel.shape[-1] for panel in panels.values())
    return Verdict(
        (
            at_most("Eq. 49: largest l_t(u) over (ln P + 1)/P Z(u), any step", shares[0], 1 + 1e-9),
            at_most("Eq. 51: largest l_t(u) over (1 - AP-loss) Z(u)", shares[1], 1 + 1e-9),
            at_most(f"Eq. 50: largest share of the bound, {len(less)} problems and u", shares[2], 1),
            at_most("Eq. 52: the same", shares[3], 1),
            Finding(
                torch.equal(less, below) and len(less.unique()) == 2,
                f"Eq. 50 is the smaller one exactly where z < P/(ln P + 1) - 1: in {int(less.sum())} of {len(less)}",
            ),
        ),
        exceptions=f"'Z(u) small' means z below {crossings}: with one positive Eq. 50 never says more. The bound at "
        f"its best u is under 0.9 for {useful} of {num_problems} problems; no average can exceed 1.",
        plots=(
            Plot(
                "bounds",
                "Eq. 50 and 52 without their term in 1/T (lines); each problem's average loss and bound at its best u.",
                (9.5, 3.4),
                lambda figure: draw_bounds(figure, panels),
            ),
        ),
    )  # fmt: skip


def gradient_error(problems: Problems, delta: float) -> float:
    """Between Eq. 14 with Eq. 37's terms, and autograd through l(X(theta), X(theta_t)), in the first sample of each."""
    error, p = 0.0, problems.num_positives
    theta = torch.linspace(-0.2, 0.3, problems.features.shape[-1], dtype=torch.float64).requires_grad_()
    for features in problems.features[:, 0]:
        labels = (torch.arange(len(features)) < p).long()
        x = differences(features @ theta)
        rank = heaviside(x).sum(1)
        (gradient,) = torch.autograd.grad((integral(x[:p, p:], delta).sum(1) / rank[:p]).mean(), theta)
        terms = primary_terms(x.detach(), labels, heaviside, piecewise(delta))
        error = max(error, difference(gradient, score_gradient(terms, labels) @ features / p))
    return error


def draw_bounds(figure: Figure, panels: dict[int, Tensor]) -> None:
    """A panel per number of positives; values [3, U, B]: z, average loss and bound of every u and problem."""
    for axes, (p, values) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        z = torch.logspace(-1, 2, 200)
        axes.semilogx(z, (math.log(p) + 1) / p * z, label="Eq. 50", color="#1d3f6e")
        axes.semilogx(z, z / (1 + z), label="Eq. 52", color="#7aa6d9")
        best = values[2].argmin(0)
        places, average, bound = values[:, best, torch.arange(len(best))]
        axes.semilogx(places, average, ls="", marker=".", color="#c0392b", label="average AP-loss")
        axes.semilogx(places, bound, ls="", marker="x", ms=4, color="black", label="bound with its term in 1/T")
        axes.set_title(f"P = {p}", fontsize=10)
        axes.set_ylim(0, 1.2)
        axes.set_xlabel("$z = 8 Z(u) / \\delta$")
        axes.axhline(1, color="#777777", lw=0.6)
    figure.axes[0].set_ylabel("AP-loss")
    figure.axes[-1].legend(frameon=False, fontsize=8)
