"""AUC-loss: the share of wrongly ordered (positive, negative) pairs, in AP-loss's framework (TPAMI 2020, Eq. 7)."""

from torch import Tensor, nn
from torch.distributed import ProcessGroup

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.ranking import Ranking, error_driven_loss, named_step
from rankdet.losses.scope import ranking_group
from rankdet.losses.scores import SigmoidScores


def auc_loss(
    logits: Tensor,
    labels: Tensor,
    delta: float = 1.0,
    *,
    positives: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Mean of f(n - p) over all positives p and negatives n: 1 - AUC as delta tends to 0 (AP-loss Eq. 7, 14, 21).

    logits: float, any shape; half types are computed in float32, float64 in float64. labels: signed integer, same
    shape, in {1, 0, -1}; -1 takes no part. delta: half width of the step, in logits, > 0; a tie counts 1/2.
    positives, group, waiting for a GPU: as in ranking.error_driven_loss.

    Returns a scalar in [0, 1]. No positives or no negatives: 0, with a gradient path. O((P + N) log P) time, O(P + N)
    memory. The gradient is the error-driven update, not the derivative of the value, so there is no double backward.
    Raises ValueError naming the argument: delta not positive, shapes that differ, labels of a wrong type or value,
    NaN or infinite logits (ignored ones too).
    """

    def terms(ranking: Ranking) -> tuple[Tensor, float, None]:
        num_negatives = ranking.scope.total((labels == 0).sum()).clamp(min=1)
        return ranking.num_fp / num_negatives, 0.0, None

    return error_driven_loss(logits, labels, terms, named_step("linear", delta), positives=positives, group=group)


class AUCLoss(SigmoidScores, nn.Module):
    """auc_loss of all anchors and classes of the images on one GPU, or on all, times `weight`; arguments as there.

    ranking_scope: "gpu", as the paper does, or "global".
    """

    def __init__(self, delta: float = 1.0, weight: float = 1.0, ranking_scope: str = "gpu") -> None:
        super().__init__()
        named_step("linear", delta)
        self.delta, self.weight, self.group = delta, weight, ranking_group(ranking_scope)

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "auc" is the loss before its weight."""
        loss = auc_loss(inputs.logits, inputs.labels, self.delta, positives=inputs.positives, group=self.group)
        return LossOutput(self.weight * loss, {"auc": loss.detach()})
