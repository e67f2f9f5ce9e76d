"""DETR's box loss: L1 of the encoded boxes and GIoU of the decoded ones, added."""

from torch import nn

from rankdet.losses.box import GIoULoss, SmoothL1Loss
from rankdet.losses.inputs import LossInputs, LossOutput

NUM_COORDINATES = 4  # SmoothL1Loss takes their mean, DETR their sum


class L1GIoULoss(nn.Module):
    """l1_weight times the L1 distance of predicted and target deltas, summed over the four, plus giou_weight times
    1 - GIoU of the boxes, both means over the P positives: DETR (ECCV 2020), Eq. 10, whose deltas are shares of the
    image (matching/unit_boxes.py).

    weight: factor on the sum. No positives: 0, with a gradient path to the deltas.
    """

    def __init__(self, l1_weight: float = 5.0, giou_weight: float = 2.0, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.l1 = SmoothL1Loss(beta=0.0, weight=NUM_COORDINATES * l1_weight)
        self.giou = GIoULoss(giou_weight)

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The parts "l1" and "giou" are the two losses before any weight."""
        l1, giou = self.l1(inputs), self.giou(inputs)
        parts = {"l1": NUM_COORDINATES * l1.parts["box"], "giou": giou.parts["box"]}
        return LossOutput(self.weight * (l1.total + giou.total), parts)
