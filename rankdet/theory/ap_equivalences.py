"""AP-loss (TPAMI 2020), Section 3.3.2: which losses the error-driven update is the gradient of."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from rankdet.theory.claim import Finding, Verdict, agree, at_most, claim, difference
from rankdet.theory.pair_matrix import heaviside

Activation = Callable[[Tensor], Tensor]


@claim(
    "AP-Q8",
    "Eq. 15-17",
    "With softmax for the activation, output less desired output is the gradient of the cross entropy.",
)
def softmax_gives_cross_entropy(activation: Activation = lambda x: x.softmax(-1)) -> Verdict:
    """L_i - 1[y = i] against autograd through torch's cross entropy, 2 to 20 classes, scores up to 1e3."""
    generator = torch.Generator().manual_seed(8)
    error, count = 0.0, 0
    for num_classes in (2, 3, 20):
        for scale in (0.1, 1.0, 10.0, 1e3):
            x = scale * torch.randn(50, num_classes, generator=generator, dtype=torch.float64)
            y = torch.randint(num_classes, (50,), generator=generator)
            x.requires_grad_()
            functional.cross_entropy(x, y, reduction="sum").backward()
            driven = activation(x.detach()) - functional.one_hot(y, num_classes)
            error, count = max(error, difference(driven, x.grad)), count + 50
    return Verdict((agree(f"L_i - 1[y = i] and the gradient of {count} cross entropies", error, 1e-12),))


@claim(
    "AP-Q9",
    "Eq. 18-20",
    "With the loss-augmented step H(x_i - 1) for the activation, the update is a subgradient of the hinge loss.",
)
def augmented_step_gives_hinge(activation: Activation = lambda x: heaviside(x - 1)) -> Verdict:
    """1[y = i] (L_i - 1) against autograd away from the kink, and the subgradient inequality at it."""
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    error, least_gap = 0.0, float("inf")
    for y in (0, 1):
        pair = torch.stack((-x, x), dim=1)  # (x_1, x_2)
        driven = functional.one_hot(torch.tensor(y), 2) * (activation(pair) - 1)
        smooth = (pair[:, y] - 1).abs() > 1e-9
        error = max(error, difference(driven[smooth], hinge_gradient(pair, y)[smooth]))
        points = pair[:, y]
        hinge = (1 - points).clamp(min=0)
        gaps = hinge - hinge[:, None] - driven[:, y, None] * (points - points[:, None])  # all pairs of points
        least_gap = min(least_gap, gaps.min().item())
    at_kink = activation(torch.ones(1, dtype=torch.float64)).item() - 1
    return Verdict(
        (
            agree("1[y = i] (L_i - 1) and the hinge loss's derivative, 600 scores off the kink, both y", error, 0),
            at_most("furthest that a tangent with this slope lies above the hinge loss", max(0, -least_gap), 1e-12),
            Finding(-1 <= at_kink <= 0, f"at the kink x_i = 1 the update is {at_kink:g}, a subgradient (-1 to 0)"),
        )
    )


def hinge_gradient(pair: Tensor, y: int) -> Tensor:
    """The derivative of max(1 - x_y, 0) by autograd: [n, 2]."""
    pair = pair.clone().requires_grad_()
    (1 - pair[:, y]).clamp(min=0).sum().backward()
    return pair.grad
