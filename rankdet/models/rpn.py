"""The region proposal network's head: one score and one box per anchor, shared by all pyramid levels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rankdet.errors import UserError
from rankdet.models.output import by_anchor


class RPNHead(nn.Module):
    """A 3x3 conv with ReLU, then 1x1 convs for scores and box deltas (Faster R-CNN, NeurIPS 2015, Sec. 3.1).

    prior_bias: float [1], the score layer's initial bias. Weights start as N(0, 0.01). Proposals are ranked by one
    score each, so num_channels is 1; UserError for what a loss with more wants.
    """

    def __init__(self, in_channels: int, anchors_per_cell: int, num_channels: int, prior_bias: Tensor) -> None:
        super().__init__()
        if num_channels != 1:
            raise UserError(
                f"rpn.loss wants {num_channels} score channels an anchor, but proposals are ranked by one: choose a "
                "loss by the sigmoid, e.g. rpn=ce or rpn=alrp"
            )
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.score_output = nn.Conv2d(in_channels, anchors_per_cell, 1)
        self.box_output = nn.Conv2d(in_channels, anchors_per_cell * 4, 1)
        for module in (self.conv, self.score_output, self.box_output):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.score_output.bias.copy_(prior_bias.expand(anchors_per_cell))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps [B, in_channels, H_l, W_l], finest first -> logits [B, A, 1], deltas [B, A, 4], as DetectorOutput's."""
        hidden = [self.conv(x).relu() for x in features]
        scores, deltas = ([output(x) for x in hidden] for output in (self.score_output, self.box_output))
        return by_anchor(scores, 1), by_anchor(deltas, 4)
