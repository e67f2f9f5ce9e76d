"""Backbones: torchvision's ResNets, any width, behind one interface of feature maps with named strides."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from rankdet.errors import UserError
from rankdet.models.deformable import DeformableConv2d
from rankdet.models.norm import norm_layer
from rankdet.models.recompute import recomputed
from rankdet.models.weights import load_backbone_weights

STEM_PLANES = 64
STAGE_PLANES = (64, 128, 256, 512)
STRIDES = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}  # of the maps that the stages give


class Architecture(NamedTuple):
    """One row of Deep Residual Learning (CVPR 2016), Table 1, or of ResNeXt (CVPR 2017), Table 1."""

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]  # blocks per stage
    groups: int = 1
    width_per_group: int = 64


ARCHITECTURES = {
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Architecture(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Architecture(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Architecture(Bottleneck, (3, 4, 23, 3)),
    "resnext101_32x8d": Architecture(Bottleneck, (3, 4, 23, 3), groups=32, width_per_group=8),
    "resnext101_64x4d": Architecture(Bottleneck, (3, 4, 23, 3), groups=64, width_per_group=4),
}


class ResNetBackbone(nn.Module):
    """Normalised images [B, 3, H, W] -> maps by name, c2 to c5 of stride 4, 8, 16, 32, of size ceil(H / stride).

    name: one of ARCHITECTURES. width: factor on all channels (resnet18 at 0.25: 16, 32, 64, 128). norm: see
    models/norm.py. frozen_stages: 0 trains all, 1 freezes the stem and layer1, ... 4 everything; frozen parts take no
    gradient and stay in eval mode. weights: null (He initialisation), "imagenet" or a file: see models/weights.py.
    outputs: the maps wanted, finest first, c5 last. deformable: stages (2 to 5, that of c5) whose 3x3 convolutions
    become DeformableConv2d; DCNv2 takes [3, 4, 5]. checkpoint: compute the stages' activations again in the backward
    pass, which saves memory and changes no bit: see models/recompute.py.
    Parameters are named as in torchvision; deformable convolutions add `offset.weight` and `offset.bias`, which weights
    may lack. Raises UserError for a value outside these.
    """

    def __init__(
        self,
        name: str,
        width: float = 1.0,
        norm: str = "frozen_bn",
        frozen_stages: int = 0,
        weights: str | None = None,
        outputs: Sequence[str] = ("c3", "c4", "c5"),
        deformable: Sequence[int] = (),
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        _require_valid(name, width, frozen_stages, weights)
        _require_valid_maps(name, frozen_stages, outputs, deformable)
        architecture = ARCHITECTURES[name]
        stem, *planes = (max(1, round(planes * width)) for planes in (STEM_PLANES, *STAGE_PLANES))
        layer = norm_layer(norm)
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = layer(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = [stem, *(count * architecture.block.expansion for count in planes)]
        self.layer1 = _stage(architecture, 0, channels[0], planes[0], layer)
        self.layer2 = _stage(architecture, 1, channels[1], planes[1], layer)
        self.layer3 = _stage(architecture, 2, channels[2], planes[2], layer)
        self.layer4 = _stage(architecture, 3, channels[3], planes[3], layer)
        self.strides = {key: STRIDES[key] for key in outputs}
        self.channels = {key: count for key, count in zip(STRIDES, channels[1:], strict=True) if key in outputs}
        self.checkpoint = checkpoint
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for stage in deformable:
            for block in self._stages()[stage - 2]:
                block.conv2 = DeformableConv2d(block.conv2)
        if weights is not None:
            load_backbone_weights(self, name, weights, new=".offset.")
        parts = [[self.conv1, self.bn1, self.layer1], [self.layer2], [self.layer3], [self.layer4]]
        self._frozen = list(chain.from_iterable(parts[:frozen_stages]))
        for module in self._frozen:
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """float [B, 3, H, W] -> maps [B, channels[key], ceil(H / strides[key]), ceil(W / strides[key])]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = {}
        for key, stage in zip(STRIDES, self._stages(), strict=True):
            x = recomputed(stage, x) if self.checkpoint else stage(x)
            if key in self.strides:
                maps[key] = x
        return maps

    def train(self, mode: bool = True) -> "ResNetBackbone":
        """As nn.Module.train, except that frozen stages stay in eval mode, so that their BN keeps its statistics."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def _stages(self) -> tuple[nn.Sequential, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4


def _require_valid(name: str, width: float, frozen_stages: int, weights: str | None) -> None:
    if name not in ARCHITECTURES:
        raise UserError(f"model.backbone.name={name!r} is unknown; choose one of {', '.join(ARCHITECTURES)}")
    if not 0 <= frozen_stages <= len(STAGE_PLANES):
        raise UserError(f"model.backbone.frozen_stages={frozen_stages} must lie in 0..{len(STAGE_PLANES)}")
    if not width > 0:
        raise UserError(f"model.backbone.width={width} must be positive")
    least = 1 / ARCHITECTURES[name].width_per_group
    if ARCHITECTURES[name].groups > 1 and width < least:
        raise UserError(f"model.backbone.width={width} leaves the groups of {name} no channel; take {least} or more")
    if weights == "imagenet" and width != 1.0:
        raise UserError(f"model.backbone.weights=imagenet needs model.backbone.width=1, not {width}")


def _require_valid_maps(name: str, frozen_stages: int, outputs: Sequence[str], deformable: Sequence[int]) -> None:
    if list(outputs) != [key for key in STRIDES if key in outputs] or "c5" not in outputs:
        raise UserError(f"model.backbone.outputs={list(outputs)} must be some of c2, c3, c4, c5 in this order, c5 last")
    wrong = [stage for stage in deformable if stage not in (2, 3, 4, 5)]
    if wrong or len(set(deformable)) < len(deformable):
        raise UserError(
            f"model.backbone.deformable={list(deformable)} must be some of the stages 2, 3, 4, 5, each once"
        )
    if deformable and ARCHITECTURES[name].block is not Bottleneck:
        raise UserError(f"model.backbone.deformable={list(deformable)} needs a bottleneck's 3x3 convs; {name} has none")
    if any(stage - 1 <= frozen_stages for stage in deformable):
        raise UserError(
            f"model.backbone.deformable={list(deformable)} would never learn where to look in the stages that "
            f"model.backbone.frozen_stages={frozen_stages} freezes"
        )


def _stage(
    architecture: Architecture, index: int, in_channels: int, planes: int, norm: Callable[[int], nn.Module]
) -> nn.Sequential:
    """Stage `index` (0..3): the first block changes channels and, from the second stage on, halves the resolution."""
    block, stride = architecture.block, 1 if index == 0 else 2
    out_channels = planes * block.expansion
    shortcut = None
    if stride != 1 or in_channels != out_channels:
        conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        shortcut = nn.Sequential(conv, norm(out_channels))
    shape = {"groups": architecture.groups, "base_width": architecture.width_per_group, "norm_layer": norm}
    blocks = [block(in_channels, planes, stride, shortcut, **shape)]
    blocks += [block(out_channels, planes, **shape) for _ in range(1, architecture.depths[index])]
    return nn.Sequential(*blocks)
