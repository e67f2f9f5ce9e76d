"""AUC-loss: the share of wrongly ordered (positive, negative) pairs, in AP-loss's framework (TPAMI 2020, Eq. 7)."""

from torch import Tensor, nn

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.ranking import Step, error_driven_loss
from rankdet.losses.scores import SigmoidScores


def auc_loss(logits: Tensor, labels: Tensor, delta: float = 1.0, *, positives: Tensor | None = None) -> Tensor:
    """Mean of f(n - p) over all positives p and negatives n: 1 - AUC as delta tends to 0 (AP-loss Eq. 7, 14, 21).

    logits: float, any shape; half types are computed in float32, float64 in float64. labels: signed integer, same
    shape, in {1, 0, -1}; -1 takes no part. delta: half width of the step, in logits, > 0; a tie counts 1/2.
    positives: int64 [P], the ascending flat indices of labels == 1, for callers that have them.

    Returns a scalar in [0, 1]. No positives or no negatives: 0, with a gradient path. O((P + N) log P) time, O(P + N)
    memory. The gradient is the error-driven update, not the derivative of the value, so there is no double backward.
    Raises ValueError naming the argument: delta not positive, shapes that differ, labels of a wrong type or value,
    NaN or infinite logits (ignored ones too).
    """
    num_negatives = (labels == 0).sum().clamp(min=1)
    return error_driven_loss(
        logits, labels, lambda rank_pos, num_fp, scores: num_fp / num_negatives, Step.of("linear", delta), positives
    )


class AUCLoss(SigmoidScores, nn.Module):
    """auc_loss of all anchors and classes of the images on one GPU, times `weight`; arguments as there."""

    def __init__(self, delta: float = 1.0, weight: float = 1.0) -> None:
        super().__init__()
        Step.of("linear", delta)
        self.delta, self.weight = delta, weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "auc" is the loss before its weight."""
        loss = auc_loss(inputs.logits, inputs.labels, self.delta, positives=inputs.positives)
        return LossOutput(self.weight * loss, {"auc": loss.detach()})
