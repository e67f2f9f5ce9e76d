"""DeepFool (CVPR 2016) for any function of K + 1 values: the perturbation that changes which of them is largest."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

HALVINGS = 10

# (images [n, ...], their rows in the whole batch, int64 [n]) -> values [n, K + 1], each row of its own image alone.
Decision = Callable[[Tensor, Tensor], Tensor]


class Fooled(NamedTuple):
    """What DeepFool found for B images."""

    perturbations: Tensor  # [B, ...]
    norms: Tensor  # [B]: their L2 norms
    success: Tensor  # bool [B]: whether the decision changed; elsewhere the perturbation is where the search gave up


def deepfool(
    decide: Decision, images: Tensor, max_steps: int = 50, overshoot: float = 0.02, num_rivals: int = 4
) -> Fooled:
    """Perturbations of float images [B, ...] that change argmax decide(images), as small as DeepFool finds them.

    With F the values, c the first decision and w_k = grad F_k - grad F_c at the image so far, each step adds, for the
    rival k with the least |F_k - F_c| / |w_k|, the vector (|F_k - F_c| / |w_k|^2) w_k: the shortest way to that rival
    if F were linear (Alg. 2), until the decision changes at 1 + overshoot times the sum of the steps. As in the paper
    the perturbation is not held to the range of pixels. Where F bends towards the rival, the last step goes too far; so
    the perturbation is then shortened, by bisection along its own direction, to within 1/1000 of where the decision
    changes (the paper leaves it, overshoot included). For linear F the norm is min_k |F_k - F_c| / |w_k|, the least
    there is. Only the num_rivals largest other values are looked at in a step. Values of -inf are no rivals; a rival
    without gradient (w_k = 0) cannot be reached, and without any the search ends.
    """
    total = torch.zeros_like(images)
    success = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    with torch.no_grad():
        decided = decide(images, torch.arange(len(images), device=images.device)).argmax(1)
    active = torch.arange(len(images), device=images.device)
    for step in range(max_steps + 1):
        with torch.enable_grad():
            altered = (images[active] + (1 + overshoot) * total[active]).detach().requires_grad_()
            values = decide(altered, active)
        changed = values.detach().argmax(1) != decided[active]
        success[active[changed]] = True
        if changed.all() or step == max_steps:
            break
        steps = _nearest(values, altered, decided[active], num_rivals)
        going = ~changed & steps.flatten(1).any(1)
        total[active[going]] += steps[going]
        active = active[going]
        if len(active) == 0:
            break
    perturbations = (1 + overshoot) * total
    rows = success.nonzero().squeeze(1)
    perturbations[rows] *= _shortest(decide, images[rows], perturbations[rows], rows, decided[rows])
    return Fooled(perturbations, perturbations.flatten(1).norm(dim=1), success)


@torch.no_grad()
def _shortest(decide: Decision, images: Tensor, perturbations: Tensor, rows: Tensor, decided: Tensor) -> Tensor:
    """Factors [n, 1, ...] of perturbations that change the decision: still enough, and 1/1024 less is not."""
    shape = (-1, *[1] * (images.dim() - 1))
    enough = images.new_ones(len(images)).view(shape)
    too_little = torch.zeros_like(enough)
    for _ in range(HALVINGS if len(images) else 0):
        middle = (enough + too_little) / 2
        changed = (decide(images + middle * perturbations, rows).argmax(1) != decided).view(shape)
        enough, too_little = torch.where(changed, middle, enough), torch.where(changed, too_little, middle)
    return enough


def _nearest(values: Tensor, images: Tensor, decided: Tensor, num_rivals: int) -> Tensor:
    """The step [n, ...] to each image's nearest rival, were values [n, K + 1] linear in images; 0 without a rival."""
    rows = torch.arange(len(values), device=values.device)
    own = values[rows, decided]
    others = values.detach().clone()
    others[rows, decided] = -torch.inf
    rivals = others.topk(min(num_rivals, values.shape[1] - 1), dim=1).indices
    best = torch.zeros_like(images)
    least = torch.full_like(own.detach(), torch.inf)
    shape = (-1, *[1] * (images.dim() - 1))
    for place in range(rivals.shape[1]):
        # -inf, and its gradient, would make NaN of the difference.
        real = others[rows, rivals[:, place]] > -torch.inf
        difference = torch.where(real, values[rows, rivals[:, place]], 0) - torch.where(real, own, 0)
        (slope,) = torch.autograd.grad(difference.sum(), images, retain_graph=place + 1 < rivals.shape[1])
        norm = slope.flatten(1).norm(dim=1)
        gap = difference.detach().abs()
        distance = torch.where(norm > 0, gap / norm, torch.inf)
        nearer = (distance < least).view(shape)
        best = torch.where(nearer, (gap / norm**2).view(shape) * slope, best)
        least = torch.minimum(least, distance)
    return best.detach()
