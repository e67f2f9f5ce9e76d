"""AP-loss (TPAMI 2020), Sections 3.4.2 to 3.4.4 and A4.2.2: smoothed steps, interpolation and Algorithm 1."""

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from rankdet.losses.ap import ap_loss
from rankdet.theory.claim import Finding, Plot, Verdict, agree, at_most, claim, difference
from rankdet.theory.pair_matrix import (
    algorithm_1,
    differences,
    heaviside,
    pair_labels,
    piecewise,
    primary_terms,
    score_gradient,
    sigmoid,
)
from rankdet.theory.probe import Loss, random_batches, value_and_gradient

DELTAS = (0.25, 0.5, 1.0, 2.0, 4.0)  # Table 1
NARROWING = (1.0, 0.3, 0.1, 0.03, 0.001)
SCALES = (0.25, 0.5, 1.0, 2.0)  # Table 10


@claim(
    "AP-Q10",
    "Eq. 21, Fig. 4",
    "The piecewise step is 0 below -delta, x/(2 delta) + 0.5 inside, 1 above; as delta tends to 0 it tends to H.",
)
def piecewise_step(loss: Loss = ap_loss) -> Verdict:
    """The step that the library applies, read off its gradient, for the deltas of Table 1 and for small ones."""
    x = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    error = max(difference(step_of(loss, x, delta=delta), piecewise(delta)(x)) for delta in DELTAS)
    wrong = {delta: x[(step_of(loss, x, delta=delta) - heaviside(x)).abs() > 1e-9].abs() for delta in NARROWING}
    widths = ", ".join(f"{where.max().item():.3f} for {delta:g}" for delta, where in wrong.items())
    zero = torch.zeros(1, dtype=torch.float64)
    at_zero = {delta: step_of(loss, zero, delta=delta).item() for delta in (*DELTAS, 1e-6)}
    return Verdict(
        (
            agree(f"library's step and Eq. 21 at {len(x)} points, delta {', '.join(map(str, DELTAS))}", error, 1e-9),
            Finding(
                all(where.max() < delta for delta, where in wrong.items()),
                f"it differs from H only nearer to 0 than delta; the largest |x| where it does, by delta: {widths}",
            ),
            agree("f(0) and 0.5, any delta", max(abs(value - 0.5) for value in at_zero.values()), 1e-12),
        ),
        exceptions=f"at 0, where the limit is not H: f(0) = {at_zero[1e-6]:.1f} for every delta, H(0) = 1.",
        plots=(
            Plot(
                "steps",
                "The hard step and the piecewise step for the deltas of Table 1, as the library applies them.",
                (6.4, 3.8),
                lambda figure: draw_steps(figure, loss, "delta", DELTAS, True),
            ),
        ),
    )


@claim(
    "AP-Q11", "Eq. 54", "The sigmoid step has slope 1/(4k) at 0; the best k = 0.5 has the slope of f with delta = 1."
)
def sigmoid_step(loss: Loss = ap_loss) -> Verdict:
    """The step that the library applies, and its slope at 0 by central differences."""
    x = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    errors, slopes = [], []
    for k in SCALES:
        errors.append(difference(step_of(loss, x, step="sigmoid", k=k), sigmoid(k)(x)))
        slopes.append(slope_at_zero(loss, 1e-3 * k, step="sigmoid", k=k))
    wanted = [1 / (4 * k) for k in SCALES]
    linear = slope_at_zero(loss, 1e-3, delta=1.0)
    worst = max(abs(slope / want - 1) for slope, want in zip(slopes, wanted, strict=True))
    shown = ", ".join(f"{slope:.5f}" for slope in slopes)
    return Verdict(
        (
            agree(f"library's step and Eq. 54 at {len(x)} points, k {', '.join(map(str, SCALES))}", max(errors), 1e-6),
            agree(f"slopes at 0 ({shown}) and 1/(4k), relative", worst, 1e-5),
            agree(f"slope for k = 0.5 and for f with delta 1 ({linear:.5f})", abs(slopes[1] - linear), 1e-5),
        ),
        plots=(
            Plot(
                "sigmoid",
                "The sigmoid step for the k of Table 10, and the piecewise step with delta 1 (dashed).",
                (6.4, 3.8),
                lambda figure: draw_steps(figure, loss, "k", SCALES, False),
            ),
        ),
    )


@claim(
    "AP-Q12",
    "Sec. 3.4.3",
    "Scaling row i by (1 - MaxPrec)/(1 - Prec) makes precision its running maximum from the lowest positive up.",
)
def interpolation(loss: Loss = ap_loss) -> Verdict:
    """Precisions read off the library's gradient against the running maximum and the curve's upper envelope."""
    running = envelope = rise = lowered = 0.0
    for scores, labels in random_batches():
        chosen = (labels == 1).nonzero().squeeze(1)
        chosen = chosen[scores[chosen].argsort(stable=True)]  # positives, lowest first
        for step, settings in ((piecewise(1.0), {"delta": 1.0}), (heaviside, {"step": "heaviside"})):
            plain = 1 - (primary_terms(differences(scores), labels, step) * pair_labels(labels)).sum(1)[chosen]
            value, gradient = value_and_gradient(loss, scores, labels, **settings)
            interpolated = 1 + len(chosen) * gradient[chosen]
            running = max(running, difference(interpolated, plain.cummax(0).values))
            rise = max(rise, -interpolated.diff().min().item() if len(chosen) > 1 else 0.0)
            lowered = max(lowered, value - loss(scores, labels, interpolate=False, **settings).item())
        envelope = max(envelope, difference(interpolated, upper_envelope(scores, labels, chosen)))
    return Verdict(
        (
            agree("the library's row precisions and the running maximum of the dense ones", running, 1e-9),
            at_most("largest fall of precision from one positive to the next higher one", rise, 1e-9),
            agree("with H, and the upper envelope of the precision-recall curve", envelope, 1e-9),
            at_most("largest excess of the interpolated loss over the plain one", lowered, 1e-12),
        ),
        reading="Algorithm 1, not the text, which sums the precision over i and speaks of a smooth approximation.",
        plots=(
            Plot("envelope", "Precision and recall of one batch, plain and interpolated.", (5.6, 3.8), draw_envelope),
        ),
    )


@claim(
    "AP-Q13",
    "Algorithm 1",
    "The mini-batch algorithm: Eq. 14 with f for H over the negatives above s_min - delta, interpolated, over P.",
)
def minibatch_algorithm(loss: Loss = ap_loss, algorithm: Callable[..., tuple[Tensor, Tensor]] = algorithm_1) -> Verdict:
    """The library against Algorithm 1 line by line; dropped negatives, shifts and batches without positives."""
    errors = {"plain": 0.0, "matrix": 0.0, "interpolated": 0.0, "value": 0.0, "kept": 0.0, "dropped": 0.0, "shift": 0.0}
    trivial = negatives = 0

    def note(name: str, a: Tensor | float, b: Tensor | float) -> None:
        errors[name] = max(errors[name], difference(a, b))

    for original, labels in random_batches(18):
        for delta, lift in ((0.25, 0), (1.0, 0), (1.0, 3)):  # the last as late in training
            scores = original + lift * (labels == 1)
            terms = primary_terms(differences(scores), labels, piecewise(delta))
            _, plain = value_and_gradient(loss, scores, labels, delta=delta, interpolate=False)
            note("plain", plain, algorithm(scores, labels, delta, interpolate=False)[0])
            note("matrix", plain, score_gradient(terms, labels) / (labels == 1).sum())
            value, gradient = value_and_gradient(loss, scores, labels, delta=delta)
            expected, rows = algorithm(scores, labels, delta)
            note("interpolated", gradient, expected)
            note("value", value, rows.mean().item())
            note("kept", expected, algorithm(scores, labels, delta, drop_trivial=False)[0])
            low = (labels == 0) & (scores <= scores[labels == 1].min() - delta)
            _, without = value_and_gradient(loss, scores, torch.where(low, -1, labels), delta=delta)
            note("dropped", gradient, without)
            trivial, negatives = trivial + int(low.sum()), negatives + int((labels == 0).sum())
            note("shift", gradient, value_and_gradient(loss, scores + 8, labels, delta=delta)[1])
    scores = torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    empty = [value_and_gradient(loss, scores, torch.full((9,), label)) for label in (0, -1, 1)]
    nothing = max(max(abs(value), difference(gradient, 0 * gradient)) for value, gradient in empty)
    return Verdict(
        (
            agree("library and Algorithm 1 without lines 11-15", errors["plain"], 1e-12),
            agree("the same and Eq. 14 over all pairs with f for H, over P", errors["matrix"], 1e-12),
            agree("library and Algorithm 1 in full", errors["interpolated"], 1e-12),
            agree("library's value and the mean of 1 - MaxPrec", errors["value"], 1e-12),
            agree(f"Algorithm 1 with and without {trivial} trivial of {negatives} negatives", errors["kept"], 1e-15),
            agree("library with and without them", errors["dropped"], 1e-15),
            agree("gradient at all scores + 8", errors["shift"], 1e-12),
            agree("loss and gradient without positives, without any box, without negatives, and 0", nothing, 0),
        ),
        reading="without positives, where line 4 takes a minimum of nothing, the gradient is 0.",
    )  # fmt: skip


def step_of(loss: Loss, x: Tensor, **settings: object) -> Tensor:
    """f(x), float64 [n], as the loss applies it: of one positive at 0 the negative at x_j gets f(x_j) / rank."""
    scores = torch.cat((torch.zeros(1, dtype=torch.float64), x))
    labels = torch.zeros(len(scores), dtype=torch.int8)
    labels[0] = 1
    value, gradient = value_and_gradient(loss, scores, labels, interpolate=False, **settings)
    return gradient[1:] / (1 - value)  # precision is 1 / rank


def slope_at_zero(loss: Loss, h: float, **settings: object) -> float:
    """f'(0) by a central difference of half width h."""
    low, high = step_of(loss, torch.tensor([-h, h], dtype=torch.float64), **settings).tolist()
    return (high - low) / (2 * h)


def upper_envelope(scores: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    """At each chosen positive's recall, the best precision of any cut of the list with at least that recall."""
    cuts = scores[labels != -1]
    hits = ((scores >= cuts[:, None]) & (labels == 1)).sum(1)
    precision = hits.double() / ((scores >= cuts[:, None]) & (labels != -1)).sum(1)
    recall = (scores >= scores[chosen][:, None]).logical_and(labels == 1).sum(1)
    return torch.where(hits >= recall[:, None], precision, 0).amax(1)


def draw_steps(figure: Figure, loss: Loss, name: str, values: tuple[float, ...], hard: bool) -> None:
    """Steps of several sizes over the score difference."""
    axes = figure.add_subplot()
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    if hard:
        axes.plot(x, step_of(loss, x, step="heaviside"), color="black", lw=1.6, label="hard step H")
    for value in values:
        settings = {"delta": value} if name == "delta" else {"step": "sigmoid", "k": value}
        axes.plot(x, step_of(loss, x, **settings), lw=1.3, label=f"{name} = {value:g}")
    if not hard:
        axes.plot(x, step_of(loss, x, delta=1.0), color="black", lw=1.2, ls="--", label="f, delta = 1")
    axes.set_xlabel("score difference $x_{ij} = s_j - s_i$")
    axes.set_ylabel("step")
    axes.legend(frameon=False)


def draw_envelope(figure: Figure) -> None:
    """The plain and the interpolated curve of one batch of twelve positives and as many negatives."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.tensor([1] * 12 + [0] * 12)
    scores = torch.randn(24, generator=generator, dtype=torch.float64) + 0.8 * labels
    order = scores.argsort(descending=True)
    hits = labels[order].cumsum(0)
    precision = hits / torch.arange(1, 25)
    chosen = order[labels[order] == 1]
    axes = figure.add_subplot()
    axes.plot(hits / 12, precision, marker=".", lw=1, color="#777777", label="every cut of the list")
    axes.step(
        torch.arange(0, 13) / 12,
        torch.cat((upper_envelope(scores, labels, chosen)[:1], upper_envelope(scores, labels, chosen))),
        color="#1d3f6e", label="interpolated: the upper envelope",
    )  # fmt: skip
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_ylim(0, 1.05)
    axes.legend(frameon=False, loc="lower left")
