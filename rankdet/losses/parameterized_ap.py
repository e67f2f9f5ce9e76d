"""Parameterized AP loss: AP with its steps replaced by searched functions of scores and IoUs (NeurIPS 2021)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from rankdet.losses.checks import check_tensors, find_positives
from rankdet.losses.curves import NUM_COORDINATES, Functions, functions
from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.overlap import paired_giou
from rankdet.losses.ranking import with_gradient
from rankdet.losses.scope import Scope, ranking_group
from rankdet.losses.scores import SigmoidScores, full_precision


def parameterized_ap_loss(
    logits: Tensor,
    labels: Tensor,
    ious: Tensor,
    control_points: Tensor | None = None,
    form: str = "searched",
    block_gradient: bool = True,
    num_topk: int = 100_000,
    *,
    positives: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Mean over the positives i of 1 - I1(o_i) + I3(o_i) sum_j H2(s_j - s_i) (1 - I2(o_j)) / sum_j H1(s_j - s_i).

    As released; j runs over the num_topk (>= 1) highest logits that take part, i itself included, with o_j = 0 for
    negatives. All is differentiated as written, except H1's sum where block_gradient.
    logits: float, any shape; half types are computed in float32, float64 in float64. labels: signed integer, same
    shape, in {1, 0, -1}; -1 takes no part. ious: float [P] in [0, 1] (clamped to it), of the positives in order of
    appearance; heads pass (GIoU + 1) / 2. control_points, form: as in curves.functions. positives, group: as in
    ranking.error_driven_loss; of a group each process sends its num_topk highest logits.

    Returns a scalar, which may exceed 1 with searched curves. No positives: 0, with a gradient path; no negatives: not
    0. Slopes at a knot: as in curve_step. O(N + (P + num_topk) log P) time and O(P + N) memory; "square" and "sqrt"
    take O(P num_topk) time. No double backward. Raises ValueError as ap_loss does, and for ious that are not [P],
    num_topk < 1, an unknown form and control points that functions refuses; waits for a GPU as ap_loss does, and to
    bring control points there that lie elsewhere.
    """
    check_tensors(logits, labels)
    if num_topk < 1:
        raise ValueError(f"num_topk must be at least 1, got {num_topk}")
    flat, labels = full_precision(logits.reshape(-1)), labels.reshape(-1)
    shapes = functions(form, control_points, flat.device)
    positives = find_positives(flat.detach(), labels, positives)
    if ious.shape != positives.shape:
        raise ValueError(f"ious must be [{len(positives)}], one for each positive, got {tuple(ious.shape)}")
    scope = Scope(group)
    points = scope.gather(flat.detach()[positives].double())
    if len(points) == 0:
        return flat[:0].sum() + ious.sum().to(flat.dtype)
    here = _candidates(flat.detach(), labels, positives, num_topk, scope)
    gathered_ious = scope.gather(ious.detach().double().clamp(0, 1))
    value, to_candidates, to_points, to_ious = _value_and_gradients(
        points, gathered_ious, here, shapes, block_gradient, scope
    )
    to_logits = torch.zeros_like(flat).scatter_(0, here.index, to_candidates * scope.size)
    to_logits[positives] += (scope.own(to_points, len(positives)) * scope.size).to(flat.dtype)
    to_ious = scope.own(to_ious, len(positives)) * scope.size
    value = value.to(flat.dtype)
    # one value, two gradients: each input's path carries its own, and the second adds nothing to the value
    through_ious = with_gradient(ious, torch.zeros_like(value), to_ious.to(ious.dtype))
    return with_gradient(flat, value, to_logits) + through_ious


class ParameterizedAPLoss(SigmoidScores, nn.Module):
    """parameterized_ap_loss of all anchors, classes and boxes of the images on one GPU, or on all; box_loss=none.

    The IoU of a positive is (GIoU + 1) / 2 of its predicted box. control_points: five or four rows of x_1, y_1, ...,
    x_4, y_4 between (0, 0) and (1, 1), in the order H2, I2, I3, I1, H1; no handcrafted form looks at them.
    gradient_scale: > 0, factor of the gradient to the boxes, not of the value. ranking_scope: "gpu" or "global". The
    other arguments are parameterized_ap_loss's.
    """

    has_box_loss = True
    control_points: Tensor | None

    def __init__(
        self,
        control_points: Sequence[Sequence[float]] | None = None,
        form: str = "searched",
        block_gradient: bool = True,
        num_topk: int = 100_000,
        gradient_scale: float = 1.0,
        weight: float = 1.0,
        ranking_scope: str = "gpu",
    ) -> None:
        super().__init__()
        points = None if control_points is None else _with_ends(control_points)
        functions(form, points, torch.device("cpu"))
        if num_topk < 1:
            raise ValueError(f"num_topk must be at least 1, got {num_topk}")
        if not gradient_scale > 0:
            raise ValueError(f"gradient_scale must be positive, got {gradient_scale}")
        self.register_buffer("control_points", points)
        self.form, self.block_gradient, self.num_topk = form, block_gradient, num_topk
        self.gradient_scale, self.weight, self.group = gradient_scale, weight, ranking_group(ranking_scope)

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "pap" is the loss before its weight."""
        overlap = (paired_giou(inputs.pred_boxes, inputs.target_boxes) + 1) / 2
        scaled = overlap.detach() + self.gradient_scale * (overlap - overlap.detach())
        loss = parameterized_ap_loss(
            inputs.logits, inputs.labels, scaled, self.control_points, self.form, self.block_gradient, self.num_topk,
            positives=inputs.positives, group=self.group,
        )  # fmt: skip
        return LossOutput(self.weight * loss, {"pap": loss.detach()})


def _with_ends(rows: Sequence[Sequence[float]]) -> Tensor:
    """float64 [4 or 5, 12]: rows of a config between (0, 0) and (1, 1). ValueError for other numbers of them."""
    lengths = [len(row) if isinstance(row, Sequence) else 1 for row in rows]
    if len(lengths) not in (4, 5) or set(lengths) != {NUM_COORDINATES - 4}:
        raise ValueError(
            "control_points must be five rows of 8 numbers, x_1, y_1, ..., x_4, y_4 (or four rows, without H1), got "
            f"{len(lengths)} of {', '.join(map(str, lengths))}"
        )
    return torch.tensor([[0.0, 0.0, *row, 1.0, 1.0] for row in rows], dtype=torch.float64)


class _Candidates(NamedTuple):
    """This process's scores over which j runs, and what takes part among them."""

    index: Tensor  # int64 [T]: flat indices
    scores: Tensor  # float [T]
    takes_part: Tensor  # bool [T]
    positive: Tensor  # bool [P]: whether a positive, of any process, is one of them


def _candidates(flat: Tensor, labels: Tensor, positives: Tensor, num_topk: int, scope: Scope) -> _Candidates:
    """The num_topk highest scores that take part; of several processes all those at or above the last of them."""
    valid = torch.where(labels >= 0, flat, -torch.inf)
    top, index = valid.topk(min(num_topk, len(flat)), sorted=False)
    takes_part = top > -torch.inf
    if scope.group is not None:
        everywhere = scope.gather(top)
        takes_part &= top >= everywhere.topk(min(num_topk, len(everywhere))).values[-1]
    chosen = torch.zeros_like(labels, dtype=torch.bool).scatter_(0, index, takes_part)
    return _Candidates(index, top, takes_part, scope.gather(chosen[positives].double()) > 0)


@torch.no_grad()
def _value_and_gradients(
    points: Tensor, ious: Tensor, here: _Candidates, shapes: Functions, block: bool, scope: Scope
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """points, ious: float64 [P], of all processes.

    Returns the loss (float64) and its gradients: to this process's candidates, as if all were negatives ([T] in their
    dtype); to the points, what is missing from that (float64 [P]); to the IoUs (float64 [P]).
    """
    count = len(points) + 1e-8  # the released program's guard
    i1, i1_slope = shapes.i1(ious)
    i2, i2_slope = shapes.i2(ious)
    i3, i3_slope = shapes.i3(ious)
    # j counts 1 - I2(o_j): a negative 1 - I2(0), which is not 1 for "sigmoid", and a positive `lower` less than that.
    of_negatives = 1 - shapes.i2(torch.zeros_like(ious[:1]))[0]
    lower = i2 - 1 + of_negatives
    over_all = shapes.h2.pairs(points, here.scores, here.takes_part)
    among = shapes.h2.pairs(points, points, here.positive)
    ranks = shapes.h1.pairs(points, here.scores, here.takes_part)
    numerator = of_negatives * scope.total(over_all.at_points()) - among.at_points(lower)
    denominator = scope.total(ranks.at_points())
    ratio = numerator / denominator
    value = (1 - i1 + i3 * ratio).sum() / count

    pull = i3 / denominator / count
    to_points = -pull * (of_negatives * scope.total(over_all.slopes_at_points()) - among.slopes_at_points(lower))
    to_points -= lower * among.slopes_at_scores(pull)
    to_candidates = over_all.slopes_at_scores(of_negatives * pull)
    if not block:
        to_points += pull * ratio * scope.total(ranks.slopes_at_points())
        to_candidates -= ranks.slopes_at_scores(pull * ratio)
    to_ious = (i3_slope * ratio - i1_slope) / count - i2_slope * among.at_scores(pull)
    return value, to_candidates, to_points, to_ious
