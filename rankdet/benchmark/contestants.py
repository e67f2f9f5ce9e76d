"""What trains in the benchmark: our RetinaNet under a loss and some options, and torchvision's with the same work."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from rankdet.benchmark.inputs import Setup
from rankdet.build import Detector, build_detector
from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.models.backbones import ARCHITECTURES, STAGE_PLANES
from rankdet.training.timing import Stopwatch

OURS, THEIRS = "rankdet", "torchvision"
NONE = "none"
LOSSES = (NONE, "focal", "ce_ohem", "auc", "ap")  # of AP-loss Figs. 9 and 11; Fig. 11 has no NONE, Fig. 9 no auc
SEED = 0


class Contestant(NamedTuple):
    """A detector and how it is trained. torchvision's knows neither another loss nor the options but two."""

    side: str  # OURS | THEIRS
    loss: str = "focal"
    channels_last: bool = True
    compiled: bool = False
    checkpoint: bool = False  # activations of the backbone are computed again in the backward pass
    precision: str = "fp32"
    micro_batch: int = 0

    def __str__(self) -> str:
        """The side and what is not as its users get it, the loss aside."""
        layouts = {(OURS, False): "channels first", (THEIRS, True): "channels last"}
        options = [
            layouts.get((self.side, self.channels_last)),
            "torch.compile" if self.compiled else None,
            "checkpointing" if self.checkpoint else None,
            self.precision if self.precision != "fp32" else None,
            f"micro-batches of {self.micro_batch}" if self.micro_batch else None,
        ]
        return ", ".join([self.side, *filter(None, options)])


OUR_DEFAULT = Contestant(OURS)
THEIR_DEFAULT = Contestant(THEIRS, channels_last=False)


class PlainSum(nn.Module):
    """No loss: the sum of the network's outputs, whose gradient is 1 at every score and at the positives' deltas."""

    def forward(self, inputs: LossInputs) -> LossOutput:
        """No parts."""
        return LossOutput(inputs.logits.sum() + inputs.pred_deltas.sum(), {})


class TimedRetinaNet(RetinaNet):
    """torchvision's, whose forward pass in training includes matching and loss, with laps between."""

    def __init__(self, watch: Stopwatch, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.watch = watch

    def compute_loss(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        """As torchvision's."""
        self.watch.lap("forward")
        losses = super().compute_loss(targets, head_outputs, anchors)
        self.watch.lap("loss")
        return losses


def our_detector(contestant: Contestant, setup: Setup) -> Detector:
    """The paper protocol's RetinaNet with random weights, and its stages."""
    named = "focal" if contestant.loss == NONE else contestant.loss
    options = ["model.backbone.checkpoint=true"] if contestant.checkpoint else []
    cfg = setup.config([f"loss={named}", *options])
    torch.manual_seed(SEED)
    detector = build_detector(cfg, setup.num_classes)
    if contestant.loss == NONE:
        for stage in detector.stages:
            stage.criterion = PlainSum()
    return detector


def their_detector(setup: Setup, watch: Stopwatch) -> TimedRetinaNet:
    """torchvision's RetinaNet as retinanet_resnet50_fpn makes it for ImageNet weights, but for three things.

    The weights are random. It has our 6 anchors a cell instead of 9. P6 is computed from C5, as ours and as that of its
    own second version, not from P5. Images that already have the size of the network's input are not resized.
    """
    torch.manual_seed(SEED)
    backbone = resnet_fpn_backbone(
        backbone_name=setup.backbone,
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(STAGE_PLANES[-1] * ARCHITECTURES[setup.backbone].block.expansion, 256),
    )
    sides = tuple((side, side * math.sqrt(2)) for side in (32, 64, 128, 256, 512))
    anchors = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * len(sides))
    return TimedRetinaNet(watch, backbone, setup.num_classes, anchor_generator=anchors, _skip_resize=True)
