"""The second stage's head: class scores and refined boxes of regions of interest."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rankdet.models.roi_align import PyramidRoIAlign


class RoIHead(nn.Module):
    """RoIAlign, num_fcs layers of `channels` with ReLU, then scores and boxes: FPN (CVPR 2017), Sec. 4.2.

    align: a partial PyramidRoIAlign. num_channels: scores per region (C); prior_bias: float [C], their initial bias.
    class_agnostic: one box per region instead of one for each of num_classes (K). Score weights start as N(0, 0.01),
    the boxes' as N(0, 0.001), the hidden ones uniform in +-sqrt(3 / inputs).
    """

    def __init__(
        self,
        in_channels: int,
        strides: Sequence[int],
        num_classes: int,
        num_channels: int,
        prior_bias: Tensor,
        align: Callable[..., PyramidRoIAlign],
        num_fcs: int = 2,
        channels: int = 1024,
        class_agnostic: bool = False,
    ) -> None:
        super().__init__()
        if prior_bias.shape != (num_channels,):
            raise ValueError(f"prior_bias must have shape [{num_channels}], not {list(prior_bias.shape)}")
        self.align = align(strides=strides)
        self.box_shape = (4,) if class_agnostic else (num_classes, 4)
        sizes = [in_channels * self.align.output_size**2, *(channels for _ in range(num_fcs))]
        self.hidden = nn.Sequential()
        for inputs, outputs in pairwise(sizes):
            self.hidden.extend([nn.Linear(inputs, outputs), nn.ReLU(inplace=True)])
        self.score_output = nn.Linear(sizes[-1], num_channels)
        self.box_output = nn.Linear(sizes[-1], 4 if class_agnostic else 4 * num_classes)
        for module in self.hidden[::2]:
            nn.init.kaiming_uniform_(module.weight, a=1)
            nn.init.zeros_(module.bias)
        nn.init.normal_(self.score_output.weight, std=0.01)
        nn.init.normal_(self.box_output.weight, std=0.001)
        nn.init.zeros_(self.box_output.bias)
        with torch.no_grad():
            self.score_output.bias.copy_(prior_bias)

    def forward(self, features: Sequence[Tensor], rois: Tensor, taking_part: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [B, in_channels, H_l, W_l] of the strides, rois [B, R, 4] (xyxy, pixels) and bool [B, R] -> logits
        [B, R, C] and deltas [B, R, K, 4], or [B, R, 4] if class-agnostic: 0 for rois that take no part."""
        places = taking_part.nonzero(as_tuple=True)
        hidden = self.hidden(self.align(features, rois[places], places[0]).flatten(1))
        scores, deltas = self.score_output(hidden), self.box_output(hidden)
        logits, deltas = (x.new_zeros(*taking_part.shape, x.shape[1]).index_put(places, x) for x in (scores, deltas))
        return logits, deltas.unflatten(2, self.box_shape)
