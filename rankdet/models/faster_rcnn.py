"""Faster R-CNN on a feature pyramid: region proposals, then a second look at each of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.matching.anchors import AnchorGenerator
from rankdet.matching.boxes import BoxCoder
from rankdet.models.backbones import ResNetBackbone
from rankdet.models.fpn import FPN
from rankdet.models.norm import PixelNorm
from rankdet.models.output import DetectorOutput
from rankdet.models.proposals import Proposals, padded
from rankdet.models.roi_align import edges_repeated
from rankdet.models.roi_head import RoIHead
from rankdet.models.roi_sampler import RoISampler
from rankdet.models.rpn import RPNHead


class FasterRCNN(nn.Module):
    """Faster R-CNN (NeurIPS 2015) as Feature Pyramid Networks (CVPR 2017) has it, Sec. 4, with RoIAlign.

    fpn, rpn, anchors, roi_head: partial constructors, completed here with what they need from their predecessors. The
    RPN sees all levels, the second stage those of the backbone's maps. rpn_coder and coder say what the two stages'
    `deltas` mean. num_classes is K; num_channels, prior_bias and their rpn_ twins are the two stages' classification
    losses' to say. UserError without the latter.
    """

    def __init__(
        self,
        backbone: ResNetBackbone,
        fpn: Callable[..., FPN],
        rpn: Callable[..., RPNHead],
        anchors: Callable[..., AnchorGenerator],
        proposals: Proposals,
        roi_sampler: RoISampler,
        roi_head: Callable[..., RoIHead],
        rpn_coder: BoxCoder,
        coder: BoxCoder,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        num_channels: int,
        prior_bias: Tensor,
        num_classes: int = 0,
        rpn_num_channels: int = 0,
        rpn_prior_bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        if rpn_prior_bias is None:
            raise UserError("config: this model has to learn its proposals: set rpn=ce or rpn=alrp")
        self.pixel_norm = PixelNorm(pixel_mean, pixel_std)
        self.backbone = backbone
        self.fpn = fpn(in_channels=backbone.channels, in_strides=backbone.strides)
        self.anchors = anchors(strides=self.fpn.strides)
        self.rpn = rpn(
            in_channels=self.fpn.channels,
            anchors_per_cell=self.anchors.num_per_cell,
            num_channels=rpn_num_channels,
            prior_bias=rpn_prior_bias,
        )
        self.roi_strides = self.fpn.strides[: len(backbone.strides)]
        self.roi_head = roi_head(
            in_channels=self.fpn.channels,
            strides=self.roi_strides,
            num_classes=num_classes,
            num_channels=num_channels,
            prior_bias=prior_bias,
        )
        self.proposals, self.roi_sampler = proposals, roi_sampler
        self.rpn_coder, self.coder = rpn_coder, coder

    def forward(self, images: Tensor, targets: Sequence[Target]) -> tuple[DetectorOutput, DetectorOutput]:
        """Images [B, 3, H, W], RGB, uint8 or float in 0..255, any H and W -> the RPN's output and the second stage's.

        In training mode the latter's anchors are the sampled regions, of which the targets' objects are some; in eval
        mode all proposals, and of the targets only `shown` counts. Their number is the same for any image; where there
        are fewer, empty boxes that take no part fill up. A gradient reaches every weight, with any number of them.
        """
        features = self.fpn(self.backbone(self.pixel_norm(images)))
        logits, deltas = self.rpn(features)
        sizes = [(x.shape[-2], x.shape[-1]) for x in features]
        level_sizes = tuple(height * width * self.anchors.num_per_cell for height, width in sizes)
        first = DetectorOutput(logits, deltas, self.anchors(sizes, images.device), level_sizes)

        input_size = (images.shape[-2], images.shape[-1])
        shown = [target.shown or input_size for target in targets]
        rois, taking_part = self._rois(first, input_size, shown, targets)
        maps = features[: len(self.roi_strides)]
        if not self.training and any(size != input_size for size in shown):
            maps = [self._without_padding(x, stride, shown) for x, stride in zip(maps, self.roi_strides, strict=True)]
        logits, deltas = self.roi_head(maps, rois, taking_part)
        return first, DetectorOutput(logits, deltas, rois, (rois.shape[1],), taking_part)

    @torch.no_grad()
    def _rois(
        self,
        output: DetectorOutput,
        input_size: tuple[int, int],
        shown: Sequence[tuple[int, int]],
        targets: Sequence[Target],
    ) -> tuple[Tensor, Tensor]:
        """[B, R, 4] and bool [B, R]: see padded."""
        wanted = self.roi_sampler.num_samples or 0  # a sampler of many shall find as many
        found = self.proposals(output, self.rpn_coder, input_size, shown, self.training, wanted)
        most = self.proposals.most(self.training, wanted)
        if not self.training:
            return padded(found, most)
        return padded(self.roi_sampler(found, targets, most), self.roi_sampler.num_samples or most)

    @staticmethod
    def _without_padding(x: Tensor, stride: int, shown: Sequence[tuple[int, int]]) -> Tensor:
        return edges_repeated(x, [(-(-height // stride), -(-width // stride)) for height, width in shown])
