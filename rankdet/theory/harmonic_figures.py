"""Harmonic loss (ICCV 2021), supplement: its Figures 1, 2 and 4."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from rankdet.losses.box import harmonic_iou
from rankdet.losses.harmonic import harmonic_loss
from rankdet.theory.claim import Finding, Plot, Verdict, agree, at_most, claim, difference
from rankdet.theory.harmonic_claims import GAMMAS, ROOT, BoxLoss, Harmonic, gradients, grid, slopes, smooth_l1


def plain_loss(ce: Tensor, box: Tensor) -> Tensor:
    """The standard loss of Fig. 1 (b): the mean of cross entropy and smooth L1, neither weighing the other."""
    return (ce + box).mean()


def offset_gradients(loss: Harmonic, p: Tensor, t: Tensor) -> Tensor:
    """dL/dt of each positive of score p and offset t, by autograd through smooth L1; all float64 of one shape."""
    moved = t.clone().requires_grad_()
    (loss(-p.log(), smooth_l1(moved)) * p.numel()).backward()
    assert moved.grad is not None
    return moved.grad


@claim(
    "HL-F1", "Fig. 1", "|dL/dt| over (p, t): in proportion to p for harmonic loss, constant in p for CE + smooth L1."
)
def figure_1(loss: Harmonic = harmonic_loss, plain: Harmonic = plain_loss) -> Verdict:
    """Both surfaces, of smooth L1 with beta 1; where the harmonic one rises with p."""
    p, t = torch.meshgrid(grid(100)[0][:, 0], torch.linspace(-3, 3, 121, dtype=torch.float64), indexing="ij")
    harmonic, standard = offset_gradients(loss, p, t), offset_gradients(plain, p, t)
    change = harmonic.abs().diff(dim=0)
    moving = t[:-1].abs() > 1e-9
    falls = (change < 0) & moving
    highest = p[:-1][falls].max().item() if falls.any() else 0.0
    signed = harmonic * t.sign()
    expected = t.clamp(-1, 1) * (1 + p + (-smooth_l1(t)).exp() * p.log())
    return Verdict(
        (
            agree("(b): change of |dL/dt| with p", difference(standard, standard[:1].expand_as(standard)), 1e-12),
            agree("(a): dL/dt and Eq. 5", difference(harmonic, expected), 1e-10),
            Finding(
                bool((signed.diff(dim=0)[moving] > 0).all()), "(a): the signed factor of dL/dt rises with p at every t"
            ),
            Finding(
                not falls.any(),
                f"(a): |dL/dt| rises with p: not at {falls.double().mean():.1%} of (p, t), up to p = {highest:.3f}",
            ),
        ),
        exceptions="p < 0.27846 and small t: there the factor 1 + p + e^-L log p is negative (HL-Q5), and its size "
        "grows as p falls: low scores are not suppressed, they push boxes away.",
        reading="smooth L1 with beta 1; 'a proportional correlation' as rising.",
        plots=(
            Plot(
                "surfaces",
                "|dL/dt| of harmonic loss (a) and of CE + smooth L1 (b), and (a) signed.",
                (11, 3.6),
                lambda figure: draw_surfaces(figure, p, t, harmonic, standard),
            ),
        ),
    )


@claim("HL-F2", "Fig. 2", "dL/dp over (p, L).")
def figure_2(loss: Harmonic = harmonic_loss) -> Verdict:
    """The surface by autograd; its line of zeros against p = (1 + e^-L)/L."""
    p, y = grid()
    surface = gradients(loss, p, y)[2]
    zeros = (1 + (-y[0]).exp()) / y[0]
    crossing = torch.where(surface >= 0, p, 1).amin(0)
    return Verdict(
        (
            agree(
                "p of the change of sign and (1 + e^-L)/L, or 1, on a grid of 0.005",
                difference(crossing, zeros.clamp(max=1)),
                0.006,
            ),
            at_most("largest dL/dp for L below 1.278", surface[y < ROOT].max().item(), 0),
        ),
        plots=(
            Plot(
                "surface",
                "dL/dp of harmonic loss, cut off at -20; black: 0.",
                (5.6, 4),
                lambda figure: draw_probability(figure, p, y, surface),
            ),
        ),
    )


@claim("HL-F4", "Fig. 4", "HIoU loss over IoU for five gammas: upwards convex, so that high IoUs get more weight.")
def figure_4(box_loss: BoxLoss = harmonic_iou, gammas: tuple[float, ...] = GAMMAS) -> Verdict:
    """Second derivatives and slopes for gammas from 0 to 1, which the paper does not list."""
    iou = torch.linspace(0, 1, 501, dtype=torch.float64)
    values = torch.stack([box_loss(iou, gamma) for gamma in gammas])
    ends = torch.tensor([1.0, 0.0]).expand(len(gammas), 2)
    bends = values.diff(dim=1).diff(dim=1).max().item()
    steeper = torch.stack([-slopes(box_loss, iou, gamma) for gamma in gammas]).diff(dim=1).min().item()
    return Verdict(
        (
            at_most(f"largest second difference, gamma {', '.join(f'{gamma:g}' for gamma in gammas)}", bends, 1e-12),
            at_most("largest fall of the slope's size as IoU rises", -steeper, 1e-12),
            agree("ends of the curves and 1 and 0", difference(values[:, [0, -1]], ends), 1e-12),
        ),
        exceptions="gamma < 0, whose curves bend the other way, and gamma = 0, which is 1 - IoU, a line.",
        reading="upwards convex means concave.",
        plots=(
            Plot(
                "hiou",
                "Harmonic IoU loss for five gammas.",
                (5.2, 3.8),
                lambda figure: draw_hiou(figure, box_loss, gammas),
            ),
        ),
    )


def draw_surfaces(figure: Figure, p: Tensor, t: Tensor, harmonic: Tensor, standard: Tensor) -> None:
    """Three surfaces over p and t."""
    panels = (
        ("(a) $|dL/dt|$", harmonic.abs()),
        ("(b) CE + smooth L1", standard.abs()),
        ("(a) signed", harmonic * t.sign()),
    )
    for number, (title, surface) in enumerate(panels, 1):
        axes = figure.add_subplot(1, 3, number, projection="3d")
        axes.plot_surface(p.numpy(), t.numpy(), surface.numpy(), cmap="viridis", rcount=50, ccount=60)
        axes.set_xlabel("p")
        axes.set_ylabel("t")
        axes.set_title(title, fontsize=10, y=0.94)
        axes.view_init(25, -125)


def draw_probability(figure: Figure, p: Tensor, y: Tensor, surface: Tensor) -> None:
    """dL/dp as colour, with its line of zeros."""
    axes = figure.add_subplot()
    image = axes.pcolormesh(p.numpy(), y.numpy(), surface.clamp(min=-20).numpy(), cmap="RdBu_r", vmin=-20, vmax=20)
    axes.contour(p.numpy(), y.numpy(), surface.numpy(), levels=[0.0], colors="black", linewidths=1.2)
    axes.set_xlabel("p")
    axes.set_ylabel("box loss L")
    figure.colorbar(image, label="$dL/dp$")


def draw_hiou(figure: Figure, box_loss: BoxLoss, gammas: tuple[float, ...]) -> None:
    """A curve for each gamma."""
    axes = figure.add_subplot()
    iou = torch.linspace(0, 1, 201, dtype=torch.float64)
    for gamma in gammas:
        axes.plot(iou, box_loss(iou, gamma), lw=1.3, label=f"$\\gamma$ = {gamma:g}")
    axes.set_xlabel("IoU")
    axes.set_ylabel("HIoU loss")
    axes.legend(frameon=False)
