"""Harmonic loss (ICCV 2021), supplement: the gradients, and where the loss is monotone."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from rankdet.losses.box import check_gamma, harmonic_iou
from rankdet.losses.harmonic import harmonic_loss
from rankdet.theory.claim import Finding, Verdict, agree, claim, difference

Harmonic = Callable[[Tensor, Tensor], Tensor]  # (cross entropies, box losses) -> mean harmonic loss
BoxLoss = Callable[[Tensor, float], Tensor]  # (IoU, gamma) -> loss
ROOT = 1.2784645  # of y = 1 + e^-y; as p, 1 + p + log p = 0 at its e^-y
GAMMAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def grid(num: int = 200) -> tuple[Tensor, Tensor]:
    """p in (0, 1) and box losses L in (0, 5], float64 [num, num] each."""
    p = torch.linspace(0.0025, 0.9975, num, dtype=torch.float64)
    return torch.meshgrid(p, torch.linspace(5 / num, 5, num, dtype=torch.float64), indexing="ij")


def gradients(loss: Harmonic, p: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The library's gradient to CE, L and p, by autograd."""
    p, box = p.clone().requires_grad_(), box.clone().requires_grad_()
    ce = -p.log()
    return tuple(gradient * p.numel() for gradient in torch.autograd.grad(loss(ce, box), (ce, box, p)))


def smooth_l1(t: Tensor) -> Tensor:
    """The box loss of Fig. 1, beta 1."""
    return functional.smooth_l1_loss(t, torch.zeros_like(t), reduction="none")


@claim("HL-Q1", "Eq. 1-5", "dL/dt = (1 + p + e^-L log p) times the gradient of the plain box loss.")
def gradient_to_offset(loss: Harmonic = harmonic_loss) -> Verdict:
    """Autograd through the library's loss and smooth L1, over p and t, both factors in the graph."""
    p, t = torch.meshgrid(grid(100)[0][:, 0], torch.linspace(-3, 3, 101, dtype=torch.float64), indexing="ij")
    moved = t.clone().requires_grad_()
    (loss(-p.log(), smooth_l1(moved)) * p.numel()).backward()
    box, plain = smooth_l1(t), t.clamp(-1, 1)
    expected = plain * (1 + p + (-box).exp() * p.log())
    constant = plain * (1 + p)  # with detached factors
    return Verdict(
        (agree(f"autograd and Eq. 5 at {p.numel()} (p, t)", difference(moved.grad, expected), 1e-10),),
        exceptions=f"with detached factors, when it is up to {difference(moved.grad, constant):.1f} different.",
    )


@claim("HL-Q2", "Eq. 7, 8", "F(x, y) = (1 + e^-y) x + (1 + e^-x) y has dF/dx = 1 + e^-y - y e^-x.")
def gradient_to_cross_entropy(loss: Harmonic = harmonic_loss) -> Verdict:
    """The library's mean against F, and autograd against Eq. 8, over p and L."""
    p, y = grid()
    x = -p.log()
    values = ((1 + (-y).exp()) * x + (1 + (-x).exp()) * y).mean()
    return Verdict(
        (
            agree(f"library and the mean of F at {p.numel()} (x, y)", difference(loss(x, y), values), 1e-10),
            agree("autograd and Eq. 8", difference(gradients(loss, p, y)[0], 1 + (-y).exp() - y * (-x).exp()), 1e-10),
        )
    )


@claim("HL-Q3", "Eq. 9", "F increases with x where x > ln y - ln(1 + e^-y), which is basically always true.")
def monotone_in_cross_entropy(loss: Harmonic = harmonic_loss) -> Verdict:
    """The sign of the library's gradient over p and L against Eq. 9; the L up to which it holds for every p."""
    p, y = grid()
    rising = gradients(loss, p, y)[0] > 0
    condition = -p.log() > y.log() - (1 + (-y).exp()).log()
    first = y[~rising].min().item() if not rising.all() else math.inf
    example = [gradient.item() for gradient in gradients(loss, *torch.tensor([[0.9], [3.0]], dtype=torch.float64))]
    return Verdict(
        (
            Finding(torch.equal(rising, condition), f"F rises with x exactly where Eq. 9 says, of {p.numel()} (p, L)"),
            Finding(
                bool(rising[y <= ROOT].all()) and first < 1.4,
                f"for L up to 1.27846, the root of y = 1 + e^-y, at every p; not from L = {first:.3f} on",
            ),
            Finding(
                bool(rising.all()),
                f"always: not at {(~rising).double().mean():.0%} of (p, L) in (0, 1) x (0, 5]; at p = 0.9, L = 3 "
                f"dF/dx = {example[0]:.3f}, dL/dp = {example[2]:+.3f}",
            ),
        ),
        exceptions="p above (1 + e^-L)/L, which takes L > 1.278: confident and badly placed positives, whose p "
        "is lowered.",
        reading="'basically always' as always.",
    )


@claim("HL-Q4", "Eq. 10", "dL/dp = L - (1 + e^-L)/p, negative where Eq. 9 holds.")
def gradient_to_probability(loss: Harmonic = harmonic_loss) -> Verdict:
    """Autograd through -log p against Eq. 10, and its sign."""
    p, y = grid()
    ours = gradients(loss, p, y)[2]
    condition = -p.log() > y.log() - (1 + (-y).exp()).log()
    expected = y - (1 + (-y).exp()) / p
    error = ((ours - expected) / (1 + expected.abs())).abs().max().item()
    return Verdict(
        (
            agree(f"autograd and Eq. 10 at {p.numel()} (p, L), relative", error, 1e-10),
            Finding(
                torch.equal(ours < 0, condition),
                f"negative exactly where Eq. 9 holds: {(ours < 0).double().mean():.1%}",
            ),
        )
    )


@claim("HL-Q5", "Sec. 2", "The convergence for regression is similar: the loss decreases with the box loss.")
def monotone_in_box_loss(loss: Harmonic = harmonic_loss) -> Verdict:
    """The sign of the library's gradient to L, over p and L."""
    p, y = grid()
    factor = gradients(loss, p, y)[1]
    condition = y > (-p.log()).log() - (1 + p).log()  # Eq. 9 with x and y exchanged
    falling = factor < 0
    highest = p[falling].max().item() if falling.any() else 0.0
    example = gradients(loss, *torch.tensor([[0.1], [0.05]], dtype=torch.float64))[1].item()
    return Verdict(
        (
            Finding(
                torch.equal(~falling, condition),
                f"it rises with L exactly where L > ln CE - ln(1 + p), of {p.numel()} (p, L)",
            ),
            Finding(0.26 < highest < math.exp(-ROOT), f"for every L where p > 0.27846; fails up to p = {highest:.3f}"),
            Finding(
                not falling.any(),
                f"always: not at {falling.double().mean():.1%} of (p, L); at p = 0.1, L = 0.05 "
                f"the factor 1 + p + e^-L log p is {example:.3f}",
            ),
        ),
        exceptions="small L and p < 0.27846, a box in place whose class is not yet known: its box is pushed away. "
        "Every positive of a head that starts at p = 0.01 is there while L < 1.517.",
        reading="Eq. 9 with classification and regression exchanged.",
    )


@claim(
    "HL-Q6",
    "Eq. 11-13",
    "dHIoU/dIoU = (1 + IoU)^(gamma - 1) (gamma - 1 - (gamma + 1) IoU), <= 0 on [0, 1] iff gamma <= 1.",
)
def harmonic_iou_gradient(box_loss: BoxLoss = harmonic_iou, refuse: Callable[[float], None] = check_gamma) -> Verdict:
    """Autograd against Eq. 12 for gammas from -1 to 3; monotony; the ends; and which gammas the library refuses."""
    iou = torch.linspace(0, 1, 1001, dtype=torch.float64)
    error = ends = peaks = 0.0
    right, gammas = True, (-3.0, -1.0, *GAMMAS, 1.01, 1.5, 2.0, 3.0)
    for gamma in gammas:
        slope = slopes(box_loss, iou, gamma)
        error = max(error, difference(slope, (1 + iou) ** (gamma - 1) * ((gamma - 1) - (gamma + 1) * iou)))
        ends = max(ends, difference(slope[0], gamma - 1), difference(slope[-1], -(2.0**gamma)))
        right &= bool((slope <= 1e-12).all()) == (gamma <= 1)
        if gamma > 1:
            peaks = max(peaks, difference(iou[box_loss(iou, gamma).argmax()], (gamma - 1) / (gamma + 1)))
    refused = []
    for gamma in gammas:
        try:
            refuse(gamma)
        except ValueError:
            refused.append(gamma)
    return Verdict(
        (
            agree(f"autograd and Eq. 12, gamma {', '.join(f'{gamma:g}' for gamma in gammas)}", error, 1e-10),
            Finding(right, "it falls with IoU on all of [0, 1] for those up to 1 and for no other"),
            agree("IoU of the highest loss and (gamma - 1)/(gamma + 1) for gamma > 1", peaks, 1e-3),
            agree("slopes at IoU 0 and 1, and gamma - 1 and -2^gamma", ends, 1e-10),
            Finding(
                refused == [gamma for gamma in gammas if gamma > 1],
                f"refused by the loss: {', '.join(f'{gamma:g}' for gamma in refused)}",
            ),
        ),
        exceptions="gamma < -1, where Eq. 13's division turns the inequality; the loss still falls there, as -3 shows.",
    )


def slopes(box_loss: BoxLoss, iou: Tensor, gamma: float) -> Tensor:
    """d loss / d IoU by autograd."""
    iou = iou.clone().requires_grad_()
    box_loss(iou, gamma).sum().backward()
    return iou.grad
