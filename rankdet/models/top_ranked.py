"""Imbalance on demand: only the anchors that a pre-trained proposal network ranks highest are trained on."""

from typing import Any

import torch
from torch import Tensor, nn

from rankdet.errors import UserError
from rankdet.models.output import DetectorOutput


class TopRanked:
    """A forward hook by which a detector in training sees `num` anchors an image: AP-loss (TPAMI 2020), Sec. 4.2.3.

    The highest-scored by `ranker`, a trained detector of one class with the same anchors, whose box regression plays no
    part; anchors that the matching makes positive take part in any case (matching/assign.py). The ranker is frozen, in
    eval mode, and no part of the detector's weights. In eval mode the detector is left alone. UserError where an image
    has fewer anchors than num, or the two detectors' anchors differ.
    """

    def __init__(self, ranker: nn.Module, num: int) -> None:
        if num < 1:
            raise UserError(f"candidates.num={num}: must be 1 or more")
        self.ranker, self.num = ranker.eval().requires_grad_(False), num

    @torch.no_grad()
    def __call__(self, model: nn.Module, inputs: tuple[Any, ...], output: DetectorOutput) -> DetectorOutput:
        """The detector's output with taking_part set."""
        if not model.training:
            return output
        self.ranker.to(output.logits.device)
        ranked = self.ranker(inputs[0])
        if ranked.anchors.shape != output.anchors.shape or not torch.equal(ranked.anchors, output.anchors):
            raise UserError(
                "candidates.rpn has other anchors than the detector that it ranks for: train it with the same model"
            )
        if self.num > ranked.logits.shape[1]:
            raise UserError(
                f"candidates.num={self.num}: an image has {ranked.logits.shape[1]} anchors; candidates=all takes all"
            )
        return output._replace(taking_part=highest(ranked.logits.amax(dim=2), self.num))


def highest(values: Tensor, num: int) -> Tensor:
    """bool [B, A]: the num greatest of each row of values, float [B, A]; of equal ones any."""
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, values.topk(num, dim=1).indices, True)
