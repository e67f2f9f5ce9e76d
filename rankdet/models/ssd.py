"""SSD: a backbone's maps, further ones from extra layers, and predictors and default boxes for each of them."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankdet.errors import UserError
from rankdet.matching.boxes import BoxCoder
from rankdet.matching.priors import PriorGenerator
from rankdet.models.norm import PixelNorm, norm_layer
from rankdet.models.output import DetectorOutput
from rankdet.models.ssd_heads import SSDHeads
from rankdet.models.vgg import VGGBackbone


class SSD(nn.Module):
    """SSD: Single Shot MultiBox Detector (ECCV 2016), Sec. 2 and 3, in the form that AP-loss (TPAMI 2020) trains.

    The backbone's finest map goes through L2Scale with the initial `scale`. extras: a partial constructor, completed
    with the channels of the backbone's last map, whose maps follow. priors: one stride, size and set of ratios a map.
    coder says what `deltas` mean and is kept for those who decode them. num_channels (C) and prior_bias (float [C]) are
    the classification loss's to say. Raises ValueError where the priors are for another number of maps.
    """

    def __init__(
        self,
        backbone: VGGBackbone,
        extras: Callable[..., "ExtraLayers"],
        priors: PriorGenerator,
        coder: BoxCoder,
        scale: float,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        num_channels: int,
        prior_bias: Tensor,
    ) -> None:
        super().__init__()
        self.pixel_norm = PixelNorm(pixel_mean, pixel_std)
        self.backbone = backbone
        first, *_, last = backbone.channels.values()
        self.scale = L2Scale(first, scale)
        self.extras = extras(in_channels=last)
        channels = (*backbone.channels.values(), *self.extras.channels)
        if len(priors.num_per_cell) != len(channels):
            raise ValueError(f"model.priors are for {len(priors.num_per_cell)} maps, the network has {len(channels)}")
        self.priors = priors
        self.heads = SSDHeads(channels, priors.num_per_cell, num_channels, prior_bias)
        self.coder = coder
        *_, stride = backbone.strides.values()
        self.least_side = (self.extras.least_side - 1) * stride + 1

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images [B, 3, H, W], RGB, uint8 or float in 0..255 -> A priors' scores and box deltas.

        Raises UserError where H or W is less than the least_side pixels that leave every map a cell.
        """
        height, width = images.shape[-2:]
        if min(height, width) < self.least_side:
            raise UserError(
                f"an input of {height} x {width} pixels is too small for this SSD, whose last map needs at least "
                f"{self.least_side} x {self.least_side}; set data.image_size or test_input, or fewer model.extras"
            )
        maps = list(self.backbone(self.pixel_norm(images)).values())
        maps += self.extras(maps[-1])
        maps[0] = self.scale(maps[0])
        logits, deltas = self.heads(maps)
        sizes = [(x.shape[-2], x.shape[-1]) for x in maps]
        level_sizes = tuple(h * w * n for (h, w), n in zip(sizes, self.priors.num_per_cell, strict=True))
        return DetectorOutput(logits, deltas, self.priors(sizes, images.device), level_sizes)


class ExtraLayers(nn.Module):
    """Maps beyond the backbone's: conv8_2, conv9_2, ... of SSD (ECCV 2016), Fig. 2, each from the one before.

    layers: (channels of the 1x1 convolution, channels, kernel, stride, padding of the next) for each map; both with
    ReLU, and before it `norm` (models/norm.py) unless that is null. Weights start by Xavier's rule, as in Sec. 3.
    """

    def __init__(self, in_channels: int, layers: Sequence[Sequence[int]], norm: str | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for squeezed, channels, kernel, stride, padding in layers:
            first = _conv(in_channels, squeezed, norm)
            second = _conv(squeezed, channels, norm, kernel, stride, padding)
            self.layers.append(nn.Sequential(*first, *second))
            in_channels = channels
        self.channels = tuple(layer[1] for layer in layers)
        self.least_side = 1  # cells of the input map, along either axis, that leave the last map one
        for _, _, kernel, stride, padding in reversed(layers):
            self.least_side = max(1, (self.least_side - 1) * stride + kernel - 2 * padding)

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, in_channels, h, w], h and w at least least_side -> as many maps as there are layers, finest first."""
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps


class L2Scale(nn.Module):
    """Each cell's vector of channels at length 1, times a learnt factor per channel; ParseNet (ICLR 2016), Sec. 3.3.

    SSD, Sec. 3.1, has it after conv4_3, whose features are larger than those of the other maps, with 20 as the initial
    factor. AP-loss (TPAMI 2020, Sec. 4.1.1) speaks of "an additional convolution layer" there "to scale the feature";
    without further word this is taken for the same factor, which is a 1x1 convolution of each channel by itself.
    """

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """float [B, channels, h, w] -> the same shape; a cell of zeros stays one."""
        return F.normalize(x, dim=1) * self.weight[:, None, None]


def _conv(
    in_channels: int, channels: int, norm: str | None, kernel: int = 1, stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=padding, bias=norm is None)
    nn.init.xavier_uniform_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return [conv, *([] if norm is None else [norm_layer(norm)(channels)]), nn.ReLU(inplace=True)]
