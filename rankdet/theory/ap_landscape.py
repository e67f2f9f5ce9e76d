"""AP-loss (TPAMI 2020), Sections 3.3.1 and 3.3.2: the shape of the loss, and a field that is no gradient."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from rankdet.losses.ap import ap_loss
from rankdet.losses.auc import auc_loss
from rankdet.theory.ap_counterexample import FEATURES, LABELS
from rankdet.theory.claim import Finding, Plot, Verdict, agree, at_most, claim, difference
from rankdet.theory.pair_matrix import (
    StepFunction,
    ap_loss_of,
    differences,
    heaviside,
    piecewise,
    primary_terms,
    sigmoid,
)
from rankdet.theory.probe import Loss, value_and_gradient

REACH, NUM_SEGMENTS = 6.0, 20_000
FORMS: dict[str, tuple[StepFunction, dict[str, object]]] = {  # name -> the step, and ap_loss's settings for it
    "hard step": (heaviside, {"step": "heaviside"}),
    "piecewise step, delta 1": (piecewise(1.0), {"delta": 1.0}),
    "sigmoid, k 1": (sigmoid(1.0), {"step": "sigmoid", "k": 1.0}),
}


@claim(
    "AP-P6",
    "Sec. 3.3.1",
    "AP-loss is neither convex nor quasi-convex, even for a linear model on linearly separable data.",
)
def no_convexity(loss: Loss = ap_loss) -> Verdict:
    """On A2's data: of random segments of weights, the one whose inner points exceed both ends most."""
    findings, segments = [], {}
    separated = loss(FEATURES @ torch.tensor([1.0, 4.0], dtype=torch.float64), LABELS, step="heaviside").item()
    findings.append(Finding(separated == 0, f"the data are separable: loss {separated:g} at theta = (1, 4)"))
    for name, (step, settings) in FORMS.items():
        low, inner, high = segments[name] = worst_segment(step)
        ends_and_inner = [
            loss(FEATURES @ theta, LABELS, interpolate=False, **settings).item() for theta in (low, inner, high)
        ]
        first, middle, last = ends_and_inner
        where = " to ".join(f"({theta[0]:.2f}, {theta[1]:.2f})" for theta in (low, inner, high))
        findings.append(
            Finding(
                middle > max(first, last) + 1e-6,
                f"{name}: from {where} the library's loss is {first:.4f}, {middle:.4f}, {last:.4f}",
            )
        )
    return Verdict(
        tuple(findings),
        plots=(
            Plot(
                "segment",
                "AP-loss over the weights with the segment found for the hard step, and three forms along it.",
                (9, 3.8),
                lambda figure: draw_segment(figure, segments["hard step"]),
            ),
        ),
    )


@claim(
    "AP-P7",
    "Sec. 3.3.2",
    "The field of AP-loss's updates, unlike softmax's, is not conservative, so no surrogate loss has it for gradient.",
)
def no_surrogate(loss: Loss = ap_loss) -> Verdict:
    """A gradient's Jacobian is symmetric: the library's by central differences, the pairs' by autograd."""
    scores = torch.tensor([0.3, -0.2, 0.55, 0.1, -0.4], dtype=torch.float64)
    labels = torch.tensor([1, 1, 0, 0, 0])

    def asymmetry_of(loss: Loss, scores: Tensor, labels: Tensor, **settings: object) -> tuple[float, float]:
        columns = []
        for axis in torch.eye(len(scores), dtype=torch.float64) * 1e-4:
            up, down = (value_and_gradient(loss, scores + sign * axis, labels, **settings)[1] for sign in (1, -1))
            columns.append((up - down) / 2e-4)
        jacobian = torch.stack(columns, dim=1)
        return difference(jacobian, jacobian.T), jacobian.abs().max().item()

    smooth = {"step": "sigmoid", "interpolate": False}
    ours, size = asymmetry_of(loss, scores, labels, **smooth)
    two, two_size = asymmetry_of(loss, scores[[0, 2]], labels[[0, 2]], **smooth)
    three, three_size = asymmetry_of(loss, scores[[0, 2, 3]], labels[[0, 2, 3]], **smooth)
    auc, auc_size = asymmetry_of(auc_loss, scores, labels)
    pairs = torch.autograd.functional.jacobian(ap_errors, torch.tensor([0.25, -0.2], dtype=torch.float64))
    softmax = torch.autograd.functional.jacobian(lambda x: x.softmax(0), scores)
    return Verdict(
        (
            Finding(
                ours > 1e-3 * size,
                f"library, 2 positives and 3 negatives, sigmoid step: the Jacobian's elements differ from their mirror "
                f"images by up to {ours:.4f}; the largest is {size:.4f}",
            ),
            Finding(three > 1e-3 * three_size, f"1 positive and 2 negatives: {three:.4f} of {three_size:.4f}"),
            Finding(
                difference(pairs, pairs.T) > 1e-3,
                f"errors L_ij of two pairs of one positive, by autograd: {difference(pairs, pairs.T):.4f}",
            ),
            agree("softmax less the label: the Jacobian and its mirror image", difference(softmax, softmax.T), 1e-12),
            at_most(f"AUC-loss, whose field is the gradient of a sum over pairs (largest {auc_size:.3f})", auc, 1e-6),
        ),
        exceptions=f"one positive and one negative, whose field depends on one difference: asymmetry {two:.1g} of "
        f"{two_size:.3f}.",
    )  # fmt: skip


def ap_errors(x: Tensor) -> Tensor:
    """L_1j of one positive and len(x) negatives at differences x, sigmoid step with k = 0.5."""
    above = sigmoid(0.5)(x)
    return above / (1 + above.sum())


def losses_over(thetas: Tensor, step: StepFunction) -> Tensor:
    """AP-loss on A2's data at weights [..., 2]: [...]."""
    return ap_loss_of(primary_terms(differences(thetas @ FEATURES.T), LABELS, step), LABELS)


def worst_segment(step: StepFunction) -> tuple[Tensor, Tensor, Tensor]:
    """Both ends and the inner point [2] that exceeds the higher end most, of NUM_SEGMENTS random ones."""
    generator = torch.Generator().manual_seed(6)
    first, last = (2 * torch.rand(2, NUM_SEGMENTS, 2, generator=generator, dtype=torch.float64) - 1) * REACH
    shares = torch.arange(0, 11, dtype=torch.float64)[:, None, None] / 10
    points = first + shares * (last - first)  # [11, segments, 2]
    losses = losses_over(points, step)
    excess = losses[1:-1] - torch.maximum(losses[0], losses[-1])
    inner, segment = divmod(int(excess.argmax()), NUM_SEGMENTS)
    return first[segment], points[inner + 1, segment], last[segment]


def draw_segment(figure: Figure, segment: tuple[Tensor, Tensor, Tensor]) -> None:
    """Left the hard loss with the segment, right three forms along it."""
    left, right = figure.subplots(1, 2)
    first, inner, last = segment
    places = torch.linspace(-REACH, REACH, 481, dtype=torch.float64)
    thetas = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=-1)
    extent = (-REACH, REACH, -REACH, REACH)
    shades = left.imshow(losses_over(thetas, heaviside).numpy(), origin="lower", extent=extent, cmap="Blues", vmax=0.8)
    figure.colorbar(shades, ax=left, label="AP-loss (hard step)")
    points = torch.stack((first, inner, last))
    left.plot(points[:, 0], points[:, 1], color="#c0392b", marker="o", ms=4)
    left.set_xlabel("$\\theta_1$")
    left.set_ylabel("$\\theta_2$")
    shares = torch.linspace(0, 1, 401, dtype=torch.float64)
    for name, (step, _) in FORMS.items():
        right.plot(shares, losses_over(first + shares[:, None] * (last - first), step), label=name)
    right.set_xlabel("place on the segment")
    right.set_ylabel("AP-loss")
    right.legend(frameon=False)
