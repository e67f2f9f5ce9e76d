"""SSD's predictors: one convolution for the scores and one for the boxes, on each of its maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rankdet.models.output import by_anchor


class SSDHeads(nn.Module):
    """SSD (ECCV 2016), Sec. 2.1: a 3x3 convolution per map and kind of output, none shared between maps.

    in_channels and priors_per_cell: of each map, finest first. num_channels: scores per prior (C). prior_bias: float
    [C], the score layers' initial bias, the same for every prior and map. Weights start as RetinaNet's outputs do: the
    scores' as N(0, 0.01), the boxes' as N(0, 0.001) ("similar to that for RetinaNet", AP-loss TPAMI 2020, Sec. 4.1.1).
    """

    def __init__(
        self, in_channels: Sequence[int], priors_per_cell: Sequence[int], num_channels: int, prior_bias: Tensor
    ) -> None:
        super().__init__()
        if prior_bias.shape != (num_channels,):
            raise ValueError(f"prior_bias must have shape [{num_channels}], not {list(prior_bias.shape)}")
        self.num_channels = num_channels
        self.class_output, self.box_output = nn.ModuleList(), nn.ModuleList()
        for channels, priors in zip(in_channels, priors_per_cell, strict=True):
            self.class_output.append(nn.Conv2d(channels, priors * num_channels, 3, padding=1))
            self.box_output.append(nn.Conv2d(channels, priors * 4, 3, padding=1))
            nn.init.normal_(self.class_output[-1].weight, std=0.01)
            nn.init.normal_(self.box_output[-1].weight, std=0.001)
            nn.init.zeros_(self.box_output[-1].bias)
            with torch.no_grad():
                self.class_output[-1].bias.copy_(prior_bias.repeat(priors))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps [B, in_channels[l], H_l, W_l] -> logits [B, A, C], deltas [B, A, 4], in DetectorOutput's order."""
        logits = [conv(x) for conv, x in zip(self.class_output, features, strict=True)]
        deltas = [conv(x) for conv, x in zip(self.box_output, features, strict=True)]
        return by_anchor(logits, self.num_channels), by_anchor(deltas, 4)
