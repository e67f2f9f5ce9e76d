"""AP-loss (TPAMI 2020), A2: three boxes on which gradient descent fails and the update does not."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from matplotlib.figure import Figure
from torch import Tensor

from rankdet.losses.ap import ap_loss
from rankdet.theory.claim import Finding, Plot, Table, Verdict, agree, claim, difference
from rankdet.theory.pair_matrix import ap_loss_of, differences, heaviside, primary_terms, sigmoid
from rankdet.theory.probe import Loss, value_and_gradient

FEATURES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-3.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1])
STARTS = ("0 0", "1 1/2", "2 1", "3 1", "5 1", "10 1")  # of theta
HARD = {"step": "heaviside", "interpolate": False}
DESCENT_STEPS, CLOSE = 250_000, 5e-6  # within CLOSE of 1/6 five decimals of the loss are 0.16667
Point = tuple[float, float]  # theta_1, theta_2


def smoothed_loss(theta1: float, theta2: float) -> tuple[float, float, float]:
    """F of Eq. 35 and its derivatives by theta_1 and theta_2."""
    a, b, c = logistic(-theta1), logistic(theta2 - 4 * theta1), logistic(3 * theta1 - theta2)
    d = logistic(4 * theta1 - theta2)  # 1 - b, but exact where b is small
    da, db, dc = a * logistic(theta1), b * d, c * logistic(theta2 - 3 * theta1)
    upper, lower = (1 + a + b) ** 2, (1 + d + c) ** 2
    by_theta1 = (-da * (1 + b) + 4 * a * db) / upper + (3 * dc * (1 + d) - 4 * c * db) / lower
    by_theta2 = -a * db / upper + (-dc * (1 + d) + c * db) / lower
    return (a / (1 + a + b) + c / (1 + d + c)) / 2, by_theta1 / 2, by_theta2 / 2


@claim(
    "AP-P2",
    "A2, Eq. 32-36",
    "Gradient descent of the smoothed loss can tend to 1/6 on separable data; the error-driven update reaches 0.",
)
def descent_fails(
    smoothed: Callable[[float, float], tuple[float, float, float]] = smoothed_loss, loss: Loss = ap_loss
) -> Verdict:
    """Eq. 35 against Eq. 32; Eq. 36 on a grid; descent with step 1 and the library's update, both from (2, 1)."""
    errors = [difference(torch.tensor(smoothed(*at)), torch.tensor(by_autograd(*at))) for at in grid(3.0)]
    reached = least_theta1(smoothed)
    at_start = smoothed(2.0, 1.0)[1:]
    path, value = descend(smoothed, (2.0, 1.0))
    end = path[-1]
    hard = loss(FEATURES @ torch.tensor(end, dtype=torch.float64), LABELS, **HARD).item()
    driven = error_driven(loss, (2.0, 1.0))
    final = loss(FEATURES @ torch.tensor(driven[-1], dtype=torch.float64), LABELS, **HARD).item()
    return Verdict(
        (
            agree("Eq. 35 with its derivatives, and Eq. 32 over all pairs by autograd", max(errors), 1e-12),
            Finding(
                math.isfinite(reached),
                f"Eq. 36, dF/dtheta1 < dF/dtheta2 < 0, holds for all sampled theta2 in (0, theta1) from theta1 = "
                f"{reached:.2f} on (sampled to 30)",
            ),
            Finding(at_start[0] < at_start[1] < 0, f"at (2, 1) they are {at_start[0]:.5f} and {at_start[1]:.5f}"),
            Finding(
                abs(value - 1 / 6) <= CLOSE and all(theta1 > theta2 for theta1, theta2 in path),
                f"descent from (2, 1): F = {value:.6f} after {len(path) - 1} steps at ({end[0]:.3f}, {end[1]:.3f}), "
                "theta1 > theta2 all the way",
            ),
            agree("AP-loss there, and 1/6", abs(hard - 1 / 6), 1e-12),
            Finding(final == 0, f"error-driven update from (2, 1): AP-loss {final:g} after {len(driven) - 1} steps"),
        ),
        exceptions=f"below theta1 = {reached:.2f} Eq. 36 does not hold for every theta2, as the text's 'sufficiently "
        "large' grants.",
        plots=(
            Plot(
                "paths",
                "AP-loss over the weights, and the two paths from (2, 1).",
                (6.4, 4.6),
                lambda figure: draw_paths(figure, path, driven),
            ),
        ),
    )


@claim(
    "AP-P2b",
    "A2, Eq. 23",
    "On A2's data the error-driven update ends at AP-loss 0 from any start (exact fractions, H(0) = 1).",
)
def exact_paths(ties_count: bool = True, loss: Loss = ap_loss) -> Verdict:
    """Fraction arithmetic from six starts, and the library's float64 from the same."""
    rows, exact_ends, float_ends, agreeing = [], 0, 0, 0
    for start in STARTS:
        theta = tuple(Fraction(part) for part in start.split())
        path = exact_run(theta, ties_count)
        floats = error_driven(loss, (float(theta[0]), float(theta[1])))
        exact_ends += sum(map(sum, exact_terms(path[-1], True))) == 0
        float_ends += loss(FEATURES @ torch.tensor(floats[-1], dtype=torch.float64), LABELS, **HARD).item() == 0
        agreeing += len(path) == len(floats)
        end = ", ".join(map(str, path[-1]))
        rows.append((f"({', '.join(start.split())})", len(path) - 1, f"({end})", len(floats) - 1))
    num = len(STARTS)
    return Verdict(
        (
            Finding(exact_ends == num, f"AP-loss 0 in exact arithmetic from {exact_ends} of {num} starts"),
            Finding(float_ends == num, f"the same by the library's gradient in float64: {float_ends} of {num}"),
        ),
        exceptions=f"exact and float64 arithmetic take as many steps from {agreeing} of {num} starts: exact ties occur "
        "on the way, and rounding breaks them.",
        tables=(Table("steps", ("start", "steps", "end", "steps in float64"), rows),),
    )  # fmt: skip


def exact_terms(theta: Sequence[Fraction], ties_count: bool) -> list[list[Fraction]]:
    """L_ij y_ij of Eq. 24 on A2's data: [3][3]."""
    rows = [[Fraction(int(value)) for value in row] for row in FEATURES.tolist()]
    scores = [sum(f * t for f, t in zip(row, theta, strict=True)) for row in rows]
    above = [[scores[j] > s or (ties_count and scores[j] == s) for j in range(3)] for s in scores]
    labels = LABELS.tolist()
    return [
        [
            Fraction(above[i][j] and labels[i] > labels[j], 1 + sum(above[i][k] for k in range(3) if k != i))
            for j in range(3)
        ]
        for i in range(3)
    ]


def exact_run(theta: Sequence[Fraction], ties_count: bool, max_steps: int = 100) -> list[tuple[Fraction, ...]]:
    """The thetas that Eq. 23 visits until nothing is wrong, the start among them."""
    rows = [[Fraction(int(value)) for value in row] for row in FEATURES.tolist()]
    path = [tuple(theta)]
    while len(path) <= max_steps and any(map(any, terms := exact_terms(path[-1], ties_count))):
        move = [sum(terms[i][j] * (rows[i][d] - rows[j][d]) for i in range(3) for j in range(3)) for d in range(2)]
        path.append(tuple(t + m for t, m in zip(path[-1], move, strict=True)))
    return path


def error_driven(loss: Loss, theta: Point, max_steps: int = 100) -> list[Point]:
    """Eq. 23 by a loss's gradient, times P, until it is 0."""
    path = [theta]
    while len(path) <= max_steps:
        scores = FEATURES @ torch.tensor(path[-1], dtype=torch.float64)
        _, gradient = value_and_gradient(loss, scores, LABELS, **HARD)
        if not gradient.any():
            break
        move = -(LABELS == 1).sum() * gradient @ FEATURES
        path.append((path[-1][0] + move[0].item(), path[-1][1] + move[1].item()))
    return path


def descend(smoothed: Callable[[float, float], tuple[float, float, float]], theta: Point) -> tuple[list[Point], float]:
    """Gradient descent with step 1 until F is within CLOSE of 1/6, or DESCENT_STEPS; the path, and F at its end."""
    path = [theta]
    value, by_theta1, by_theta2 = smoothed(*theta)
    while abs(value - 1 / 6) > CLOSE and len(path) <= DESCENT_STEPS:
        path.append((path[-1][0] - by_theta1, path[-1][1] - by_theta2))
        value, by_theta1, by_theta2 = smoothed(*path[-1])
    return path, value


def least_theta1(smoothed: Callable[[float, float], tuple[float, float, float]]) -> float:
    """The least sampled theta_1 from which on, up to 30, Eq. 36 holds at 99 theta_2 evenly in (0, theta_1)."""
    least = math.inf
    for i in range(3000, 0, -5):
        theta1 = i / 100
        derivatives = [smoothed(theta1, theta1 * share / 100)[1:] for share in range(1, 100)]
        if not all(first < second < 0 for first, second in derivatives):
            break
        least = theta1
    return least


def by_autograd(theta1: float, theta2: float) -> tuple[float, float, float]:
    """F of Eq. 32 over all pairs, and its derivatives."""
    theta = torch.tensor([theta1, theta2], dtype=torch.float64, requires_grad=True)
    value = ap_loss_of(primary_terms(differences(FEATURES @ theta), LABELS, sigmoid(1.0)), LABELS)
    value.backward()
    return value.item(), *theta.grad.tolist()


def grid(reach: float) -> list[Point]:
    """49 points of [-reach, reach]^2."""
    places = [reach * i / 3 for i in range(-3, 4)]
    return [(theta1, theta2) for theta1 in places for theta2 in places]


def logistic(x: float) -> float:
    """S of Eq. 33."""
    return 1 / (1 + math.exp(-x))


def draw_paths(figure: Figure, descent: list[Point], driven: list[Point]) -> None:
    """The hard loss in shades, descent as a line, the updates as dots."""
    axes = figure.add_subplot()
    first, second = torch.meshgrid(torch.linspace(-2, 12, 561), torch.linspace(-2, 6, 321), indexing="xy")
    losses = hard_losses(torch.stack((first, second), dim=-1).double())
    shades = axes.imshow(losses.numpy(), origin="lower", extent=(-2, 12, -2, 6), aspect="auto", cmap="Blues", vmax=0.8)
    figure.colorbar(shades, label="AP-loss (hard step)")
    for place in ((0.4, 5.0), (8.0, 3.5), (-1.4, 2.0), (-0.25, -1.6)):
        value = hard_losses(torch.tensor(place, dtype=torch.float64)).item()
        axes.text(*place, f"{value:.3f}", ha="center", fontsize=8)
    axes.plot(*zip(*descent, strict=True), color="#c0392b", lw=2, label=f"gradient descent, {len(descent) - 1} steps")
    updates = f"error-driven, {len(driven) - 1} steps"
    axes.plot(*zip(*driven, strict=True), color="black", marker="o", ms=4, lw=1, label=updates)
    axes.set_xlabel("$\\theta_1$")
    axes.set_ylabel("$\\theta_2$")
    axes.legend(loc="lower right")


def hard_losses(thetas: Tensor) -> Tensor:
    """AP-loss with the hard step on A2's data at weights [..., 2]: [...]."""
    return ap_loss_of(primary_terms(differences(thetas @ FEATURES.T), LABELS, heaviside), LABELS)
