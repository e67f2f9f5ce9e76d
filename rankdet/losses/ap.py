"""AP-loss: 1 - average precision over all scores of a batch, optimised by an error-driven update (TPAMI 2020)."""

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.ranking import Ranking, error_driven_loss, named_step
from rankdet.losses.scope import ranking_group
from rankdet.losses.scores import SigmoidScores


def ap_loss(
    logits: Tensor,
    labels: Tensor,
    delta: float = 1.0,
    interpolate: bool = True,
    step: str = "linear",
    k: float = 0.5,
    *,
    positives: Tensor | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """1 - AP with its error-driven gradient (AP-loss, TPAMI 2020: value Eq. 5, update Eq. 14, step Eq. 21, Alg. 1).

    logits: float, any shape; half types are computed in float32, float64 in float64. labels: signed integer, same
    shape, in {1, 0, -1}; -1 takes no part. delta: half width of the "linear" step, in logits, > 0; its f(0) is 1/2.
    interpolate: precision becomes its running maximum from the lowest positive up (Sec. 3.4.3); the released program
    does the same. step: "linear", "heaviside" (Eq. 2, f(0) = 1) or "sigmoid" (Eq. 54) with scale k, in logits, > 0.
    positives, group, waiting for a GPU: as in ranking.error_driven_loss.

    Returns a scalar in [0, 1). No positives or no negatives: 0, with a gradient path. Cost O((P + N) log P) time and
    O(P + N) memory. The gradient is the error-driven update, not the derivative of the value, so there is no double
    backward. Raises ValueError naming the argument: delta or k not positive, an unknown step, shapes that differ,
    labels of a wrong type or value, NaN or infinite logits (ignored ones too).

    Positives at 4 and 0, a negative at 2: precisions 1 and 2/3, so the loss is (0 + 1/3) / 2.
    >>> ap_loss(torch.tensor([4.0, 0.0, 2.0]), torch.tensor([1, 1, 0]))
    tensor(0.1667)
    """

    def terms(ranking: Ranking) -> tuple[Tensor, float, None]:
        errors = ranking.num_fp / ranking.rank
        if interpolate:  # the least error of all positives not above it
            order = ranking.order()
            errors = torch.empty_like(errors).scatter_(0, order, errors[order].cummin(0).values)
        return errors, 0.0, None

    return error_driven_loss(logits, labels, terms, named_step(step, delta, k), positives=positives, group=group)


class APLoss(SigmoidScores, nn.Module):
    """ap_loss of all anchors and classes of the images on one GPU, or on all, times `weight`; arguments as there.

    ranking_scope: "gpu", as the paper does, or "global".
    """

    def __init__(
        self,
        delta: float = 1.0,
        interpolate: bool = True,
        step: str = "linear",
        k: float = 0.5,
        weight: float = 1.0,
        ranking_scope: str = "gpu",
    ) -> None:
        super().__init__()
        named_step(step, delta, k)
        self.delta, self.interpolate, self.step, self.k, self.weight = delta, interpolate, step, k, weight
        self.group = ranking_group(ranking_scope)

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "ap" is the loss before its weight."""
        arguments = (inputs.logits, inputs.labels, self.delta, self.interpolate, self.step, self.k)
        loss = ap_loss(*arguments, positives=inputs.positives, group=self.group)
        return LossOutput(self.weight * loss, {"ap": loss.detach()})
