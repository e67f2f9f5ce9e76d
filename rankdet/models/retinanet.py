"""RetinaNet: backbone, feature pyramid, shared heads and anchors, put together."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from rankdet.matching.anchors import AnchorGenerator
from rankdet.matching.boxes import BoxCoder
from rankdet.models.backbones import ResNetBackbone
from rankdet.models.fpn import FPN
from rankdet.models.heads import RetinaHeads
from rankdet.models.norm import PixelNorm
from rankdet.models.output import DetectorOutput


class RetinaNet(nn.Module):
    """Focal Loss for Dense Object Detection (ICCV 2017), Sec. 4, with 6 anchors per cell as AP-loss has it.

    fpn, heads, anchors: partial constructors, completed here with what they need from their predecessors. coder says
    what `deltas` mean and is kept for those who decode them. num_channels (C) and prior_bias (float [C]) are the
    classification loss's to say; the model knows neither losses nor classes.
    """

    def __init__(
        self,
        backbone: ResNetBackbone,
        fpn: Callable[..., FPN],
        heads: Callable[..., RetinaHeads],
        anchors: Callable[..., AnchorGenerator],
        coder: BoxCoder,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        num_channels: int,
        prior_bias: Tensor,
    ) -> None:
        super().__init__()
        self.pixel_norm = PixelNorm(pixel_mean, pixel_std)
        self.backbone = backbone
        self.fpn = fpn(in_channels=backbone.channels, in_strides=backbone.strides)
        self.anchors = anchors(strides=self.fpn.strides)
        self.heads = heads(
            in_channels=self.fpn.channels,
            anchors_per_cell=self.anchors.num_per_cell,
            num_channels=num_channels,
            prior_bias=prior_bias,
        )
        self.coder = coder

    def forward(self, images: Tensor) -> DetectorOutput:
        """Images [B, 3, H, W], RGB, uint8 or float in 0..255, any H and W -> A anchors' scores and box deltas."""
        features = self.fpn(self.backbone(self.pixel_norm(images)))
        logits, deltas = self.heads(features)
        sizes = [(x.shape[-2], x.shape[-1]) for x in features]
        level_sizes = tuple(height * width * self.anchors.num_per_cell for height, width in sizes)
        return DetectorOutput(logits, deltas, self.anchors(sizes, images.device), level_sizes)
