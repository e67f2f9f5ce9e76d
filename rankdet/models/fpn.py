"""Feature pyramid over a backbone's maps: torchvision's, with the levels that detectors add on top."""

from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from rankdet.errors import UserError


class FPN(nn.Module):
    """Feature Pyramid Networks (CVPR 2017), Sec. 3, with coarser levels for Faster R-CNN or RetinaNet.

    in_channels, in_strides: of the backbone's maps, finest first. A 1x1 lateral on each, coarser maps added after
    nearest upsampling to the finer map's size (cell i takes cell i // 2, also for odd sizes), a 3x3 output conv.
    extra_levels on top of P5: 0; 1 for P6 as every second cell of P5 (Sec. 4.1, for Faster R-CNN); 2 for P6 by
    a stride-2 3x3 conv on C5 and P7 by ReLU and another on P6 (RetinaNet, ICCV 2017, Sec. 4). Raises UserError for
    another number.
    """

    def __init__(
        self,
        in_channels: Mapping[str, int],
        in_strides: Mapping[str, int],
        channels: int = 256,
        extra_levels: int = 2,
    ) -> None:
        super().__init__()
        if extra_levels not in (0, 1, 2):
            raise UserError(
                f"model.fpn.extra_levels={extra_levels} must be 0 (up to P5), 1 (Faster R-CNN's P6) or 2 (RetinaNet's "
                "P6 and P7)"
            )
        extra = LastLevelMaxPool() if extra_levels == 1 else None
        if extra_levels == 2:
            extra = LastLevelP6P7(list(in_channels.values())[-1], channels)
            extra.use_P5 = False  # which torchvision would feed P6 from if C5 happened to have as many channels
        self.pyramid = FeaturePyramidNetwork(list(in_channels.values()), channels, extra)
        strides = list(in_strides.values())
        self.channels = channels
        self.strides = (*strides, *(strides[-1] * 2**i for i in range(1, extra_levels + 1)))

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """The backbone's maps -> [B, channels, H_l, W_l] per level, finest first, at self.strides."""
        return list(self.pyramid(features).values())
