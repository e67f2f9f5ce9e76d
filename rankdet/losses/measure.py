"""What is watched beside a training: one and the same quantity, whatever loss is minimised."""

from functools import partial

from torch import Tensor, nn, no_grad, stack, where

from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.ranking import rank
from rankdet.losses.step_piecewise import heaviside_step


@no_grad()
def ap_value(logits: Tensor, labels: Tensor, *, positives: Tensor | None = None) -> Tensor:
    """The AP-loss 1 - AP of a batch's scores, exact: step H with H(0) = 1, not interpolated (TPAMI 2020, Eq. 2 to 5).

    logits, labels, positives: as in ap_loss, and refused alike. All classes and images are ranked together. Returns a
    detached scalar in [0, 1); without positives 0. Unlike ap_loss's own value it depends on no delta, so that trainings
    by other losses compare.

    A positive at 0 and negatives at 0 and -1: the tie counts against it, so AP = 1/2.
    >>> ap_value(torch.tensor([0.0, 0.0, -1.0]), torch.tensor([1, 0, 0]))
    tensor(0.5000)
    """
    ranking = rank(logits.detach(), labels, heaviside_step(), positives=positives)
    if len(ranking.positives) == 0:
        return ranking.flat.new_zeros(())
    return (ranking.num_fp / ranking.rank).mean().to(ranking.flat.dtype)


class APValue(nn.Module):
    """A criterion's term that adds nothing to it and reports the part "ap_value"."""

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The total is 0, without a gradient."""
        value = ap_value(inputs.logits, inputs.labels, positives=inputs.positives)
        return LossOutput(inputs.logits.new_zeros(()), {"ap_value": value})


class GradientBalance(nn.Module):
    """A criterion's term that adds nothing to it and reports how hard the criterion pushes negatives and positives.

    The parts "gradient_negatives" and "gradient_positives" are the summed magnitudes of its gradient to the scores of
    either kind (aLRP, NeurIPS 2020, Theorem 2 and Fig. 4). They are 0 until the criterion has been differentiated,
    which fills them in. ValueError for a loss that has other scores than one a class, as a softmax with background has.
    """

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The total is 0, without a gradient."""
        if inputs.logits.shape != inputs.labels.shape:
            raise ValueError(
                f"logits must be one score a class, {tuple(inputs.labels.shape)}, got {tuple(inputs.logits.shape)}"
            )
        sides = inputs.logits.new_zeros(2)
        if inputs.logits.requires_grad:
            inputs.logits.register_hook(partial(_fill, sides, inputs.labels))
        return LossOutput(inputs.logits.new_zeros(()), {"gradient_negatives": sides[0], "gradient_positives": sides[1]})


def _fill(sides: Tensor, labels: Tensor, gradient: Tensor) -> None:
    magnitudes = gradient.detach().abs().double()
    sides.copy_(stack([where(labels == label, magnitudes, 0).sum() for label in (0, 1)]))
