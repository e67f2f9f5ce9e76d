"""Rank & Sort loss: positives above negatives, and among themselves by quality (ICCV 2021)."""

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from rankdet.losses.blocks import blocks_of_pairs
from rankdet.losses.checks import holds
from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.overlap import paired_iou
from rankdet.losses.ranking import Ranking, rank, with_gradient
from rankdet.losses.scope import ranking_group
from rankdet.losses.scores import SigmoidScores
from rankdet.losses.step_piecewise import heaviside_step, linear_step

QUALITY = "quality must be finite, and -1 or not negative"


def rank_sort_loss(
    logits: Tensor,
    quality: Tensor,
    delta: float = 0.5,
    *,
    positives: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """Rank & Sort's ranking and sorting parts (ICCV 2021, Eq. 4-9), two scalars with gradients of their own.

    logits: float, any shape; half types are computed in float32, float64 in float64. quality: float, same shape: > 0
    for a positive, usually its IoU (at most 1), 0 for a negative, -1 takes no part. delta: half width of the linear
    step, in logits; 0 is the hard step. A positive counts 1/2 in its own rank (1 for the hard step), not AP-loss's 1.
    positives, group, waiting for a GPU: as in ranking.error_driven_loss.

    ranking: mean of F_i / rank_i over the positives.
    sorting: mean over the positives of l_S(i) - l_S*(i): l_S is the mean of 1 - quality over the positives not below
    (weights f(p_k - p_i), i included), l_S* the same over those of them that are not of lower quality. The difference
    is pushed onto i and, in the ratio f, onto those of lower quality that are not below. The released program applies
    the ranking part's upstream gradient to both; here each part has its own.

    No positives: both 0; no negatives: ranking 0. Both keep a gradient path. O((P + N) log P + P^2) time, O(P + N)
    memory; no double backward. Raises ValueError as ap_loss does, and for delta < 0 and other values of quality.
    """
    if quality.shape != logits.shape:
        raise ValueError(f"quality must have the shape of logits, got {tuple(quality.shape)} for {tuple(logits.shape)}")
    if not 0 <= delta < float("inf"):
        raise ValueError(f"delta must be finite and not negative, got {delta}")
    quality = quality.detach()
    _check(quality)
    step = linear_step(delta) if delta > 0 else heaviside_step()
    labels = quality.sign().to(torch.int8)
    ranking = rank(logits, labels, step, self_term=step.at_zero, positives=positives, group=group)
    own = quality.reshape(-1)[ranking.positives].double()
    return ranking.loss(ranking.num_fp / ranking.rank), _sorting(ranking, ranking.scope.gather(own), delta)


class RankSortLoss(SigmoidScores, nn.Module):
    """rank_sort_loss of all anchors and classes of the images on one GPU, or on all, times `weight`.

    The quality of a positive is its predicted box's IoU with the target, or at least `min_quality` (> 0), so that a
    positive whose box misses stays one (the released program turns it into a negative). delta as in rank_sort_loss;
    ranking_scope: "gpu", as the paper does, or "global".
    """

    def __init__(
        self, delta: float = 0.5, min_quality: float = 1e-6, weight: float = 1.0, ranking_scope: str = "gpu"
    ) -> None:
        super().__init__()
        if not 0 <= delta < float("inf"):
            raise ValueError(f"delta must be finite and not negative, got {delta}")
        if not 0 < min_quality <= 1:
            raise ValueError(f"min_quality must lie in (0, 1], got {min_quality}")
        self.delta, self.min_quality, self.weight, self.group = delta, min_quality, weight, ranking_group(ranking_scope)

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The parts "ranking" and "sorting" are the losses before their weight."""
        iou = paired_iou(inputs.pred_boxes.detach(), inputs.target_boxes)
        quality = inputs.labels.to(iou.dtype).reshape(-1)
        quality = quality.index_copy(0, inputs.positives, iou.clamp(min=self.min_quality)).view(inputs.labels.shape)
        ranking, sorting = rank_sort_loss(
            inputs.logits, quality, self.delta, positives=inputs.positives, group=self.group
        )
        return LossOutput(self.weight * (ranking + sorting), {"ranking": ranking.detach(), "sorting": sorting.detach()})


def _check(quality: Tensor) -> None:
    """What QUALITY says: ValueError where `holds` can tell."""
    legal = ((quality >= 0) & (quality < torch.inf)) | (quality == -1)
    if not holds(legal.all(), QUALITY):
        raise ValueError(f"{QUALITY}: {int((~legal).sum())} of {legal.numel()} are not")


def _sorting(ranking: Ranking, quality: Tensor, delta: float) -> Tensor:
    """The sorting part; quality: float64 [P], of all positives that are ranked together."""
    count, scores = len(quality), ranking.scores
    value, gradient = torch.zeros_like(quality[:1]).sum(), torch.zeros_like(quality)
    for block in blocks_of_pairs(count, scores):
        x = scores - scores[block, None]
        above = (x >= 0).double() if delta == 0 else (x / (2 * delta) + 0.5).clamp_(0, 1)
        missorted = above * (quality < quality[block, None])
        sorted_mass, missorted_mass = (above - missorted).sum(1), missorted.sum(1)
        current = above @ (1 - quality) / (sorted_mass + missorted_mass)
        target = (above - missorted) @ (1 - quality) / sorted_mass
        error = torch.where(missorted_mass > 0, current - target, 0) / count
        value = value + error.sum()
        gradient[block] -= error
        gradient += torch.where(missorted_mass > 0, error / missorted_mass, 0) @ missorted
    scope, flat = ranking.scope, ranking.flat
    own = scope.own(gradient * scope.size, len(ranking.positives)).to(flat.dtype)
    return with_gradient(flat[ranking.positives], value.to(flat.dtype), own)
