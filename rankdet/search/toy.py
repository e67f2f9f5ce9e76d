"""A search in seconds: synthetic anchors, a linear detector, and the loss's functions separate, shared or fixed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rankdet.losses.inputs import LossInputs
from rankdet.losses.overlap import paired_iou
from rankdet.losses.parameterized_ap import ParameterizedAPLoss
from rankdet.search.parameters import Shape, Space

FEATURES = 8
POSITIVES, NEGATIVES = 12, 240  # anchors of a set
SIDE = 10.0  # of an object, pixels
STEPS, LR, MOMENTUM = 30, 0.01, 0.9  # of a training: few enough that the loss's functions count
SETTINGS = ("FEATURES", "POSITIVES", "NEGATIVES", "SIDE", "STEPS", "LR", "MOMENTUM")  # what a reward depends on
THRESHOLDS = torch.arange(0.5, 0.96, 0.05, dtype=torch.float64)  # COCO's


class Anchors(NamedTuple):
    """A set of anchors, the positive ones first, each with an object of its own."""

    features: Tensor  # float64 [N, FEATURES]
    offsets: Tensor  # float64 [P, 2]: from an anchor's centre to its object's, in sides


def draw(seed: int) -> Anchors:
    """A set: features tell objects from background with noise, and, with other noise, where the object lies.

    A few negatives look like objects, as a crowded background does."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    features = normal(POSITIVES + NEGATIVES, FEATURES)
    features[:POSITIVES, 0] += 2.0
    features[POSITIVES : POSITIVES + POSITIVES, 0] += 1.5
    features[:, -1] = 1.0
    offsets = 0.15 * features[:POSITIVES, 1:3] + 0.1 * features[:POSITIVES, :1] + 0.04 * normal(POSITIVES, 2)
    return Anchors(features, offsets)


def trained_ap(shape: Shape, learnt: Anchors, judged: Anchors) -> float:
    """AP on one set of a linear detector that learnt another by Parameterized AP loss with these functions."""
    loss = ParameterizedAPLoss(shape.control_points, gradient_scale=shape.gradient_scale).double()
    scorer = torch.zeros(FEATURES, dtype=torch.float64, requires_grad=True)
    placer = torch.zeros(FEATURES, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([scorer, placer], lr=LR, momentum=MOMENTUM)
    labels = (torch.arange(len(learnt.features)) < POSITIVES).to(torch.int8).view(1, -1, 1)
    positives, target = torch.arange(POSITIVES), boxes(learnt.offsets)
    none = torch.zeros(POSITIVES, 4, dtype=torch.float64)
    for _ in range(STEPS):
        logits = (learnt.features @ scorer).view(1, -1, 1)
        found = boxes(learnt.features[:POSITIVES] @ placer)
        total = loss(LossInputs(logits, labels, positives, none, none, found, target)).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    with torch.no_grad():
        found = boxes(judged.features[:POSITIVES] @ placer)
        return average_precision(judged.features @ scorer, paired_iou(found, boxes(judged.offsets)))


def boxes(offsets: Tensor) -> Tensor:
    """xyxy [P, 4] of an object's size around these centres."""
    return torch.cat((offsets - 0.5, offsets + 0.5), 1) * SIDE


def average_precision(scores: Tensor, ious: Tensor) -> float:
    """Mean over thresholds of the AP of scores [N], whose first P anchors are true where their IoU [P] is enough.

    Of equal scores the later anchor's comes first, so that a detector that tells nothing gains nothing by it."""
    order = len(scores) - 1 - scores.flip(0).argsort(descending=True, stable=True)
    enough = torch.zeros(len(THRESHOLDS), len(scores), dtype=torch.float64)
    enough[:, : len(ious)] = (ious >= THRESHOLDS[:, None]).double()
    hits = enough[:, order]
    precision = hits.cumsum(1) / torch.arange(1, len(scores) + 1)
    return float((precision * hits).sum(1).mean() / len(ious))


def measure(space: Space, sets: Sequence[tuple[Anchors, Anchors]]) -> Callable[[int | None, Tensor], list[float]]:
    """Rewards for a search: mean AP over pairs of sets to learn and to be judged on."""

    def rewards(_: int | None, theta: Tensor) -> list[float]:
        return [score(space.shapes(row)["loss"], sets) for row in theta]

    return rewards


def score(shape: Shape, sets: Sequence[tuple[Anchors, Anchors]]) -> float:
    """Mean AP over pairs of sets."""
    return sum(trained_ap(shape, learnt, judged) for learnt, judged in sets) / len(sets)
