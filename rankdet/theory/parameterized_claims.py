"""Parameterized AP loss (NeurIPS 2021), supplement: the blocked denominator, the functions for the step, the scale."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from rankdet.losses.curves import FORMS, control_points
from rankdet.losses.inputs import LossInputs
from rankdet.losses.parameterized_ap import ParameterizedAPLoss, parameterized_ap_loss
from rankdet.theory.claim import Finding, Plot, Verdict, agree, claim, difference
from rankdet.theory.pair_matrix import differences
from rankdet.theory.probe import Loss, random_batches

Function = Callable[[Tensor], Tensor]
NAMES = ("H2", "I2", "I3", "I1", "H1")  # the order of the control points
# theta of the identity's four points: where the search starts
IDENTITY = control_points(torch.tensor([0.2, 0.2, 0.25, 0.25, 1 / 3, 1 / 3, 0.5, 0.5], dtype=torch.float64))


class Functions(NamedTuple):
    """The five functions, each of what the formula gives it: score differences (h) or IoUs."""

    h2: Function
    i2: Function
    i3: Function
    i1: Function
    h1: Function


def drawn_points(seed: int, rows: int = 5) -> Tensor:
    """[rows, 12]: control points from random theta."""
    theta = torch.rand(rows, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return control_points(0.1 + 0.8 * theta)


def functions_of(form: str, points: Tensor | None = None) -> Functions:
    """Table 3's substitutions, written down."""
    if form == "sigmoid":
        return Functions(torch.sigmoid, *[sigmoid_of_iou] * 3, torch.sigmoid)
    exponents = {"linear": 1.0, "square": 2.0, "sqrt": 0.5}
    made = []
    for row, name in enumerate(NAMES):
        inner = through(points[row]) if form == "searched" else power(exponents[form])
        made.append(mapped(inner) if name.startswith("H") else inner)
    return Functions(*made)


def formula(scores: Tensor, ious: Tensor, labels: Tensor, f: Functions, block: bool) -> Tensor:
    """Mean over i of 1 - I1(o_i) + I3(o_i) sum_j H2(s_j - s_i) (1 - I2(o_j)) / sum_j H1(s_j - s_i), j not ignored."""
    positives, kept = labels == 1, labels != -1
    x = differences(scores)[positives][:, kept]
    overlaps = torch.zeros_like(scores).masked_scatter(positives, ious)[kept]
    ranks = f.h1(x).sum(1)
    errors = (f.h2(x) * (1 - f.i2(overlaps))).sum(1) / (ranks.detach() if block else ranks)
    return (1 - f.i1(ious) + f.i3(ious) * errors).mean()


@claim(
    "PA-Q1", "A.1", "The gradient of f(s_j - s_i; theta_4), the denominator, is blocked: only the numerator's flows."
)
def blocked_denominator(loss: Loss = parameterized_ap_loss) -> Verdict:
    """Autograd through the formula, its denominator detached or not, against the library's gradients and values."""
    errors, kept, apart, count = [0.0, 0.0], 0.0, [], 0
    for scores, labels, ious in batches():
        points = drawn_points(count)
        functions = functions_of("searched", points)
        found = []
        for block in (True, False):
            expected = gradients_of(lambda s, o, rest=(labels, functions, block): formula(s, o, *rest), scores, ious)
            settings = {"labels": labels, "control_points": points, "block_gradient": block}
            ours = gradients_of(lambda s, o, settings=settings: loss(s, ious=o, **settings), scores, ious)
            errors[block] = max(errors[block], *(difference(a, b) for a, b in zip(ours, expected, strict=True)))
            found.append(ours)
        kept = max(kept, difference(found[0][0], found[1][0]), difference(found[0][2], found[1][2]))
        apart.append(difference(found[0][1], found[1][1]))
        count += 1
    return Verdict(
        (
            agree(
                f"blocked: library and the numerator's gradient alone, to scores and IoUs, {count} batches",
                errors[1],
                1e-7,
            ),
            agree("not blocked: library and the formula's whole gradient", errors[0], 1e-7),
            agree("value, and gradient to the IoUs, with and without", kept, 1e-12),
            Finding(max(apart) > 0.01, f"the gradients to the scores differ by up to {max(apart):.3f}"),
        ),
        exceptions="the IoUs, which the denominator does not contain: their gradient is the same.",
        reading="the formula is the released program's, which divides by P + 1e-8: hence the tolerance.",
    )


@claim(
    "PA-Q2",
    "Table 3, Fig. 1",
    "Sigmoid, root, linear, square or searched functions for the step, shared or separate.",
)
def substitutions(
    loss: Loss = parameterized_ap_loss, points_of: Callable[[Tensor], Tensor] = control_points
) -> Verdict:
    """Every form against the formula; one row repeated against five; the search's start against the linear form."""
    errors, identity, between, count = dict.fromkeys((*FORMS, "shared"), 0.0), 0.0, [], 0
    start = points_of(torch.tensor([0.2, 0.2, 0.25, 0.25, 1 / 3, 1 / 3, 0.5, 0.5], dtype=torch.float64))
    for scores, labels, ious in batches():
        separate = drawn_points(count)
        shared = separate[:1].expand(5, 12).contiguous()
        values = {form: loss(scores, labels, ious, separate, form).item() for form in FORMS}
        values["shared"] = loss(scores, labels, ious, shared).item()
        for name, value in values.items():
            points = shared if name == "shared" else separate
            functions = functions_of("searched" if name == "shared" else name, points)
            errors[name] = max(errors[name], difference(value, formula(scores, ious, labels, functions, True)))
        from_start = loss(scores, labels, ious, start.expand(5, 12).contiguous()).item()
        identity = max(identity, difference(from_start, values["linear"]))
        between.append(abs(values["shared"] - values["searched"]))
        count += 1
    apart = torch.tensor([9.0, -9.0], dtype=torch.float64)
    perfect = loss(apart, torch.tensor([1, 0]), torch.ones(1, dtype=torch.float64), form="sigmoid").item()
    return Verdict(
        (
            *(
                agree(f"{name}: library and the formula, {count} batches", error, 1e-6)
                for name, error in errors.items()
            ),
            agree("searched from its start, the identity, and linear", identity, 1e-12),
            Finding(max(between) > 0.01, f"shared and separate parameters: values up to {max(between):.3f} apart"),
        ),
        exceptions=f"with the sigmoid form, 0 is out of reach: of perfect scores and boxes its value is {perfect:.3f}.",
        reading="shared: one row of control points for all five functions.",
        plots=(
            Plot(
                "functions",
                "Table 3's forms, and five functions through drawn control points (dots).",
                (9, 3.6),
                draw_functions,
            ),
        ),
    )


@claim("PA-Q3", "Table 3", "The gradient scale between the branches changes gradients and not the value.")
def gradient_scale(module: Callable[..., nn.Module] = ParameterizedAPLoss) -> Verdict:
    """The module with scales 1 and others: value, and gradients to the scores and to the boxes."""
    inner = drawn_points(3)[:, 2:-2].tolist()
    value, to_scores, to_boxes = module_gradients(module(inner, gradient_scale=1.0))
    values = scores = boxes = 0.0
    scales = (0.1, 4.1231, 10.0)
    for scale in scales:
        found = module_gradients(module(inner, gradient_scale=scale))
        values, scores = max(values, difference(found[0], value)), max(scores, difference(found[1], to_scores))
        boxes = max(boxes, difference(found[2] / scale, to_boxes))
    return Verdict(
        (
            agree(f"value with scales {', '.join(f'{scale:g}' for scale in scales)} and with 1", values, 1e-12),
            agree("gradient to the scores", scores, 1e-12),
            agree("gradient to the boxes, over the scale", boxes, 1e-12),
            Finding(bool(to_boxes.abs().max() > 1e-3), f"which is not 0: up to {to_boxes.abs().max():.4f}"),
        ),
        reading="the scale multiplies the gradient to the boxes, as in the released program.",
    )


def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Random batches without ties, so that no difference is at a knot, with an IoU for every positive."""
    generator = torch.Generator().manual_seed(7)
    for scores, labels in random_batches(12, ties=False):
        yield scores, labels, torch.rand(int((labels == 1).sum()), generator=generator, dtype=torch.float64)


def gradients_of(
    form: Callable[[Tensor, Tensor], Tensor], scores: Tensor, ious: Tensor
) -> tuple[float, Tensor, Tensor]:
    """Value, gradient to the scores and to the IoUs."""
    scores, ious = scores.clone().requires_grad_(), ious.clone().requires_grad_()
    value = form(scores, ious)
    return value.item(), *torch.autograd.grad(value, (scores, ious))


def module_gradients(module: nn.Module) -> tuple[float, Tensor, Tensor]:
    """Value, gradient to the scores and to the boxes, of a made-up image."""
    generator = torch.Generator().manual_seed(8)
    labels = (torch.arange(30) % 6 == 0).to(torch.int8).view(1, 10, 3)
    positives = labels.reshape(-1).nonzero().squeeze(1)
    logits = torch.randn(1, 10, 3, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.tensor([0.0, 0.0, 10.0, 10.0], dtype=torch.float64).expand(len(positives), 4)
    boxes = (target + torch.rand(len(positives), 4, generator=generator, dtype=torch.float64)).requires_grad_()
    deltas = torch.zeros(len(positives), 4, dtype=torch.float64)
    total = module.double()(LossInputs(logits, labels, positives, deltas, deltas, boxes, target)).total
    return total.item(), *torch.autograd.grad(total, (logits, boxes))


def sigmoid_of_iou(iou: Tensor) -> Tensor:
    """sigmoid(2 o - 1)."""
    return (2 * iou - 1).sigmoid()


def mapped(inner: Function) -> Function:
    """Of u = clamp(x/2 + 1/2, 0, 1) of a score difference x."""
    return lambda x: inner((x / 2 + 0.5).clamp(0, 1))


def power(exponent: float) -> Function:
    """x^exponent."""
    return lambda x: x**exponent


def through(points: Tensor) -> Function:
    """Linear between the points (x, y pairs), as a sum of ramps."""
    xs, ys = points[0::2], points[1::2]
    return lambda x: ((x[..., None] - xs[:-1]).clamp(min=0).minimum(xs.diff()) * (ys.diff() / xs.diff())).sum(-1)


def draw_functions(figure: Figure) -> None:
    """The handcrafted forms over the score difference; drawn searched functions over their inputs in [0, 1]."""
    left, right = figure.subplots(1, 2)
    x, u, points = (
        torch.linspace(-1.5, 1.5, 301, dtype=torch.float64),
        torch.linspace(0, 1, 201).double(),
        drawn_points(0),
    )
    for form in FORMS[1:]:
        left.plot(x, functions_of(form).h2(x), lw=1.3, label=form)
    left.set_xlabel("score difference")
    for row, name in enumerate(NAMES):
        (line,) = right.plot(u, through(points[row])(u), lw=1.2, label=name)
        right.plot(points[row][0::2], points[row][1::2], ls="", marker=".", color=line.get_color())
    right.set_xlabel("score difference mapped to [0, 1], or IoU")
    for axes in (left, right):
        axes.legend(frameon=False)
