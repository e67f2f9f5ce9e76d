"""nDCG-loss: what the false positives above each positive cost in discounted cumulative gain (aLRP NeurIPS 2020)."""

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.ranking import Ranking, error_driven_loss, named_step
from rankdet.losses.scope import ranking_group
from rankdet.losses.scores import SigmoidScores


def ndcg_loss(
    logits: Tensor,
    labels: Tensor,
    delta: float = 1.0,
    *,
    positives: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """1 - nDCG within the error-driven framework (aLRP Alg. 1): our reading, since its supplement is not at hand.

    A positive's gain is 1 / log2(1 + rank) and would be 1 / log2(1 + R) without false positives above it, R its rank
    among the positives; l(i) is the difference, its target 0, and Z the gain of the P first ranks.
    logits: float, any shape; half types are computed in float32, float64 in float64. labels: signed integer, same
    shape, in {1, 0, -1}; -1 takes no part. delta: half width of the linear step, in logits, > 0.
    positives, group, waiting for a GPU: as in ranking.error_driven_loss.

    Returns a scalar, 1 - nDCG for scores further than delta apart. No positives or no negatives: 0, with a gradient
    path. O((P + N) log P) time, O(P + N) memory; no double backward. Raises ValueError as ap_loss does.

    A positive at 0 below a negative at 2: its rank is 2, so 1 - 1 / log2(3) is lost of Z = 1.
    >>> ndcg_loss(torch.tensor([0.0, 2.0]), torch.tensor([1, 0]))
    tensor(0.3691)
    """

    def terms(ranking: Ranking) -> tuple[Tensor, float, Tensor]:
        ranks = torch.arange(len(ranking.rank), dtype=torch.float64, device=ranking.rank.device) + 1
        return _gain(ranking.rank_pos) - _gain(ranking.rank), 0.0, _gain(ranks).sum()

    return error_driven_loss(logits, labels, terms, named_step("linear", delta), positives=positives, group=group)


class NDCGLoss(SigmoidScores, nn.Module):
    """ndcg_loss of all anchors and classes of the images on one GPU, or on all, times `weight`; arguments as there.

    ranking_scope: "gpu" or "global".
    """

    def __init__(self, delta: float = 1.0, weight: float = 1.0, ranking_scope: str = "gpu") -> None:
        super().__init__()
        named_step("linear", delta)
        self.delta, self.weight, self.group = delta, weight, ranking_group(ranking_scope)

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "ndcg" is the loss before its weight."""
        loss = ndcg_loss(inputs.logits, inputs.labels, self.delta, positives=inputs.positives, group=self.group)
        return LossOutput(self.weight * loss, {"ndcg": loss.detach()})


def _gain(rank: Tensor) -> Tensor:
    return 1 / torch.log2(1 + rank)
