"""The two heads of a single-stage detector: class scores and box deltas, shared by all pyramid levels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rankdet.errors import UserError
from rankdet.models.norm import norm_layer
from rankdet.models.output import by_anchor


class RetinaHeads(nn.Module):
    """RetinaNet's class and box subnets (ICCV 2017, Sec. 4): each `num_convs` 3x3 convs with ReLU and an output conv.

    num_channels: scores per anchor (C). prior_bias: float [C], the score layer's initial bias, the same for every
    anchor of a cell. Weights start as N(0, 0.01), the box output as N(0, 0.001), as in AP-loss's program. norm: null,
    or "gn" after every tower conv (a batch norm would mix the statistics of the levels that share it).
    """

    def __init__(
        self,
        in_channels: int,
        anchors_per_cell: int,
        num_channels: int,
        prior_bias: Tensor,
        num_convs: int = 4,
        channels: int = 256,
        norm: str | None = None,
    ) -> None:
        super().__init__()
        if norm not in (None, "gn"):
            raise UserError(f"model.heads.norm={norm!r} is unknown; choose null or gn")
        if prior_bias.shape != (num_channels,):
            raise ValueError(f"prior_bias must have shape [{num_channels}], not {list(prior_bias.shape)}")
        self.num_channels = num_channels
        self.class_tower = _tower(in_channels, channels, num_convs, norm)
        self.box_tower = _tower(in_channels, channels, num_convs, norm)
        width = channels if num_convs else in_channels
        self.class_output = nn.Conv2d(width, anchors_per_cell * num_channels, 3, padding=1)
        self.box_output = nn.Conv2d(width, anchors_per_cell * 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.box_output.weight, std=0.001)
        with torch.no_grad():
            self.class_output.bias.copy_(prior_bias.repeat(anchors_per_cell))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps [B, in_channels, H_l, W_l], finest first -> logits [B, A, C], deltas [B, A, 4], as DetectorOutput's."""
        logits = [self.class_output(self.class_tower(x)) for x in features]
        deltas = [self.box_output(self.box_tower(x)) for x in features]
        return by_anchor(logits, self.num_channels), by_anchor(deltas, 4)


def _tower(in_channels: int, channels: int, num_convs: int, norm: str | None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(num_convs):
        layers.append(nn.Conv2d(in_channels if i == 0 else channels, channels, 3, padding=1))
        if norm is not None:
            layers.append(norm_layer(norm)(channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
