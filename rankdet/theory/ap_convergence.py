"""AP-loss (TPAMI 2020), Section 3.3.1 and A1: finitely many updates on separable data."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from rankdet.losses.ap import ap_loss
from rankdet.theory.claim import Finding, Plot, Verdict, agree, at_most, claim, difference
from rankdet.theory.pair_matrix import differences, heaviside, primary_terms, score_gradient
from rankdet.theory.probe import Loss, value_and_gradient

NUM_PROBLEMS, MAX_STEPS = 200, 1000
Direction = Callable[[Tensor, Tensor, Tensor], Tensor]  # (features [n, D], labels [n], theta [D]) -> update of theta


class Problem(NamedTuple):
    """Training samples that one theta* separates, with the constants of the proof."""

    samples: list[tuple[Tensor, Tensor]]  # features [n, D], labels [n]; n differs
    separator: Tensor  # theta*, [D]
    margin: float  # epsilon of Eq. 22
    num_boxes: int  # M, the most in a sample
    distance: float  # D, the largest between a positive's and a negative's features of one sample

    @property
    def growth(self) -> float:
        """C of Eq. 28 and 29: M^2 D^2."""
        return self.num_boxes**2 * self.distance**2

    @property
    def bound(self) -> float:
        """C / c^2 of Eq. 31: M^4 |theta*|^2 D^2 / epsilon^2."""
        return self.num_boxes**2 * self.separator.square().sum().item() / self.margin**2 * self.growth


class Course(NamedTuple):
    """How the algorithm went."""

    steps: int
    finished: bool  # no sample errs any more
    lower: float  # the least <theta, theta*> / (epsilon t / M): Eq. 26 says at least 1
    upper: float  # the largest |theta|^2 / (C t): Eq. 29 says at most 1
    theta: Tensor


def direction_of_paper(features: Tensor, labels: Tensor, theta: Tensor) -> Tensor:
    """sum_ij L_ij y_ij (f_i - f_j), Eq. 23, from the dense matrix: [D]."""
    terms = primary_terms(differences(features @ theta), labels, heaviside)
    return -score_gradient(terms, labels) @ features


@claim(
    "AP-P1",
    "Prop. 1 and 2, A1, Eq. 22-31",
    "A linear model on separable data is done after finitely many updates: t <= M^4 |theta*|^2 D^2 / epsilon^2.",
)
def finite_convergence(
    direction: Direction = direction_of_paper, loss: Loss = ap_loss, num_problems: int = NUM_PROBLEMS
) -> Verdict:
    """Random problems from theta = 0, a random erring sample at every step, no learning rate, no 1/P, H(0) = 1."""
    courses, problems, errors = [], [], [0.0, 0.0]
    for seed in range(num_problems):
        generator = torch.Generator().manual_seed(seed)
        problem = random_problem(generator)
        course = run(problem, direction, generator)
        for features, labels in problem.samples[:1]:
            for i, theta in enumerate((torch.zeros_like(course.theta), course.theta)):
                _, gradient = value_and_gradient(loss, features @ theta, labels, step="heaviside", interpolate=False)
                ours = -(labels == 1).sum() * gradient @ features
                errors[i] = max(errors[i], difference(ours, direction_of_paper(features, labels, theta)))
        courses.append(course)
        problems.append(problem)
    steps = sorted(course.steps for course in courses)
    shares = [course.steps / problem.bound for course, problem in zip(courses, problems, strict=True)]
    unfinished = sum(not course.finished for course in courses)
    return Verdict(
        (
            Finding(
                unfinished == 0,
                f"{num_problems} problems: {unfinished} not done after {MAX_STEPS} steps; steps to zero loss: "
                f"median {steps[len(steps) // 2]}, most {steps[-1]}",
            ),
            at_most("largest share of the bound t that was used up", max(shares), 1),
            Finding(
                min(course.lower for course in courses) >= 1 - 1e-9,
                "least <theta, theta*> over epsilon t / M at any step (Eq. 26: at least 1): "
                f"{min(course.lower for course in courses):.4g}",
            ),
            at_most("largest |theta|^2 over C t at any step (Eq. 29)", max(course.upper for course in courses), 1),
            agree("update by the library's gradient and by Eq. 23, at theta = 0 (all ties)", errors[0], 1e-9),
            agree("the same at the end", errors[1], 1e-9),
        ),
        reading="Eq. 22's second f is f_j; Eq. 28 has lost a line, 2 <sum L_ij (f_i - f_j), theta> <= 0; Eq. 25 prints "
        "its last one twice.",
        plots=(
            Plot(
                "steps",
                "Steps to zero loss of the random problems against the proof's bound (line: bound reached).",
                (5.2, 4),
                lambda figure: draw_steps(figure, courses, problems),
            ),
        ),
    )  # fmt: skip


def random_problem(generator: torch.Generator) -> Problem:
    """1 to 4 samples of 6 to 24 boxes in 2 to 6 dimensions; each sample has an offset of its own along theta*."""

    def uniform(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dim = uniform(2, 6)
    unit = normal(dim)
    unit /= unit.norm()
    separator = unit * 10 ** float(normal(1) / 2)
    width = 10 ** (-1.5 * torch.rand((), generator=generator).item())  # along theta* against other directions
    samples = []
    for _ in range(uniform(1, 4)):
        labels = torch.tensor([1] * uniform(2, 8) + [0] * uniform(4, 16))
        features = normal(len(labels), dim)
        side = width * (0.5 + (features @ unit).abs()) * (2 * labels - 1) + normal(1)
        samples.append((features + (side - features @ unit)[:, None] * unit, labels))
    gaps = [(f[y == 1] @ separator).min() - (f[y == 0] @ separator).max() for f, y in samples]
    distance = max(torch.cdist(f[y == 1], f[y == 0]).max().item() for f, y in samples)
    return Problem(samples, separator, min(gaps).item(), max(len(y) for _, y in samples), distance)


def run(problem: Problem, direction: Direction, generator: torch.Generator) -> Course:
    """Updates until no sample errs, or MAX_STEPS. A sample errs if a negative stands at or above a positive."""
    theta = torch.zeros_like(problem.separator)
    lower, upper, steps = math.inf, 0.0, 0
    while steps < MAX_STEPS:
        erring = [(f, y) for f, y in problem.samples if (f[y == 1] @ theta).min() <= (f[y == 0] @ theta).max()]
        if not erring:
            return Course(steps, True, lower, upper, theta)
        features, labels = erring[int(torch.randint(len(erring), (), generator=generator))]
        theta = theta + direction(features, labels, theta)
        steps += 1
        reached = (theta @ problem.separator).item()
        lower = min(lower, reached / (problem.margin * steps / problem.num_boxes))
        upper = max(upper, theta.square().sum().item() / (problem.growth * steps))
    return Course(steps, False, lower, upper, theta)


def draw_steps(figure: Figure, courses: list[Course], problems: list[Problem]) -> None:
    """A dot per problem, log-log."""
    axes = figure.add_subplot()
    bounds = [problem.bound for problem in problems]
    axes.loglog(bounds, [course.steps for course in courses], ls="", marker=".", color="#1d3f6e", alpha=0.7)
    ends = [min(bounds), max(bounds)]
    axes.loglog(ends, ends, color="#777777", lw=1)
    axes.set_xlabel("bound $M^4 |\\theta^*|^2 D^2 / \\epsilon^2$")
    axes.set_ylabel("steps to zero loss")
