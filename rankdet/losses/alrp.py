"""aLRP loss: the mean localisation-recall-precision error of the positives, ranking and boxes in one (NeurIPS 2020)."""

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.overlap import paired_giou, paired_iou
from rankdet.losses.ranking import Ranking, named_step, rank, with_gradient
from rankdet.losses.scope import ranking_group
from rankdet.losses.scores import SigmoidScores
from rankdet.losses.self_balance import SelfBalance
from rankdet.losses.sums import running_sums

LEAST_FP = 1e-5  # false positives above a positive, below which it pushes nothing; the released program


def alrp_loss(
    logits: Tensor,
    labels: Tensor,
    localisation_errors: Tensor,
    delta: float = 1.0,
    soft_localisation: bool = False,
    *,
    positives: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """aLRP's classification and localisation parts (NeurIPS 2020, Eq. 9-14), two scalars with gradients of their own.

    logits: float, any shape; half types are computed in float32, float64 in float64. labels: signed integer, same
    shape, in {1, 0, -1}; -1 takes no part. localisation_errors: float [P], e_i >= 0 of the positives in order of
    appearance: (1 - IoU) / (1 - tau) (Eq. 6) or 1 - GIoU. delta: half width of the linear step, in logits, > 0.
    positives, group, waiting for a GPU: as in ranking.error_driven_loss.

    classification: mean of F_i / rank_i over the positives, AP-loss without interpolation. Its gradient, to the logits,
    is the error-driven one of Eq. 14, which counts the localisation errors above a positive too; errors are constants
    there. A positive with F_i <= 1e-5 pushes nothing, as in the released program.
    localisation: mean over i of (sum of e_k of the positives not below i) / rank_i, its gradient to the errors, with
    rank_i constant. "Not below" is a hard order as in the released program, in which of equally scored positives the
    earlier is the lower; soft_localisation: the linear step instead, e_i + sum_{k != i} e_k f(p_k - p_i), as in Eq. 11.

    No positives: both 0; no negatives: classification 0. Both keep a gradient path. O((P + N) log P) time, O(P + N)
    memory; no double backward. Raises ValueError as ap_loss does, and for a number of errors that is not P.
    """
    ranking = rank(logits, labels, named_step("linear", delta), positives=positives, group=group)
    if localisation_errors.shape != ranking.positives.shape:
        raise ValueError(
            f"localisation_errors must be [{len(ranking.positives)}], one for each positive, "
            f"got {tuple(localisation_errors.shape)}"
        )
    errors = localisation_errors.to(ranking.flat.dtype)
    with torch.no_grad():
        above = ranking.sum_above(ranking.scope.gather(errors.double()))
        current = ranking.num_fp / ranking.rank
        target = torch.where(ranking.num_fp > LEAST_FP, -above / ranking.rank, current)
    return ranking.loss(current, target), _localisation(errors, ranking, soft_localisation)


class ALRPLoss(SigmoidScores, nn.Module):
    """aLRP loss of all anchors, classes and boxes of the images on one GPU, or on all: it wants no box loss beside it.

    overlap: "giou", errors 1 - GIoU in [0, 2], or "iou", (1 - IoU) / (1 - tau) with tau = 0.5: both as the released
    program scales them (Eq. 6). localisation_weight: a number > 0, or None for self-balancing (Sec. 4.2), which starts
    at initial_weight. The other arguments are alrp_loss's; ranking_scope: "gpu", as the paper does, or "global".
    """

    has_box_loss = True

    def __init__(
        self,
        delta: float = 1.0,
        soft_localisation: bool = False,
        overlap: str = "giou",
        localisation_weight: float | None = None,
        initial_weight: float = 50.0,
        weight: float = 1.0,
        ranking_scope: str = "gpu",
    ) -> None:
        super().__init__()
        named_step("linear", delta)
        if overlap not in ("giou", "iou"):
            raise ValueError(f'overlap must be "giou" or "iou", got {overlap!r}')
        if localisation_weight is not None and not localisation_weight > 0:
            raise ValueError(f"localisation_weight must be positive, got {localisation_weight}")
        self.delta, self.soft_localisation, self.overlap, self.weight = delta, soft_localisation, overlap, weight
        self.localisation_weight, self.group = localisation_weight, ranking_group(ranking_scope)
        self.balance = SelfBalance(initial_weight) if localisation_weight is None else None

    def set_epoch_length(self, steps: int) -> None:
        """How many steps self-balancing averages over."""
        if self.balance is not None:
            self.balance.set_epoch_length(steps)

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The parts "alrp_cls" and "alrp_loc" are the losses before their weights; "alrp_weight" is the latter's."""
        pred, target = inputs.pred_boxes, inputs.target_boxes
        errors = 1 - paired_giou(pred, target) if self.overlap == "giou" else 2 * (1 - paired_iou(pred, target))
        classification, localisation = alrp_loss(
            inputs.logits, inputs.labels, errors, self.delta, self.soft_localisation,
            positives=inputs.positives, group=self.group,
        )  # fmt: skip
        parts = {"alrp_cls": classification.detach(), "alrp_loc": localisation.detach()}
        if self.balance is None:
            weight = torch.full_like(parts["alrp_loc"], self.localisation_weight)
        else:
            weight = self.balance(*parts.values()).to(localisation.dtype)
        total = self.weight * (classification + weight * localisation)
        return LossOutput(total, parts | {"alrp_weight": weight})


@torch.no_grad()
def _shares(ranking: Ranking, soft: bool) -> Tensor:
    """float64 [P]: the share of e_k in the localisation part, (1/P) sum over i of [k not below i] / rank_i."""
    weights = 1 / ranking.rank / max(1, len(ranking.rank))
    if soft:
        return weights * (1 - ranking.step.at_zero) + ranking.among.at_scores(weights)
    order = ranking.order()
    return torch.empty_like(weights).scatter_(0, order, running_sums(weights[order]))


def _localisation(errors: Tensor, ranking: Ranking, soft: bool) -> Tensor:
    scope = ranking.scope
    shares = scope.own(_shares(ranking, soft), len(errors))
    value = scope.total((shares * errors.detach()).sum()).to(errors.dtype)
    return with_gradient(errors, value, (shares * scope.size).to(errors.dtype))
