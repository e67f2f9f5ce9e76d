"""Normalisation: of the network's input pixels, and of channels by a name from the config."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from rankdet.errors import UserError

MAX_GROUPS = 32  # Group Normalization (ECCV 2018), Table 3
MIN_CHANNELS_PER_GROUP = 4  # one channel per group would be instance norm, which loses the channels' relative scale


class PixelNorm(nn.Module):
    """Images [B, 3, H, W], RGB, uint8 or float in 0..255 -> float32 (images - mean) / std, channel by channel.

    The numbers of configs/model are those torchvision's weights were trained with. The papers' programs fed Caffe
    weights instead (BGR, mean 102.9801/115.9465/122.7717, no scaling); torchvision's weights want none of that.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Set by the config, not learnt: left out of the state dict.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", 1.0 / torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Same shape; see the class."""
        return (images - self.mean) * self.scale


class FrozenBatchNorm(FrozenBatchNorm2d):
    """torchvision's, whose float32 constants would make float32 of a half-precision input, and so of all that follows.

    Under autocast every activation of the backbone would be kept in float32 then, and cast again by each convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same, in the input's type."""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm over the most groups that divide `channels`: at most 32, of at least 4 channels (or one group)."""
    most = max(1, min(MAX_GROUPS, channels // MIN_CHANNELS_PER_GROUP))
    groups = next(groups for groups in range(most, 0, -1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "bn": nn.BatchNorm2d,  # statistics and affine trained
    "frozen_bn": FrozenBatchNorm,  # both constant, as loaded; only the backbone's weights file can fill them
    "gn": group_norm,  # no statistics across images: any batch size trains the same
}


def norm_layer(name: str) -> Callable[[int], nn.Module]:
    """channels -> layer, for a name of NORMS. Raises UserError for another name."""
    if name not in NORMS:
        raise UserError(f"norm={name!r} is unknown; choose one of {', '.join(NORMS)}")
    return NORMS[name]
