"""Backbones: torchvision's ResNets, any width, behind one interface of feature maps with named strides."""

from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from rankdet.errors import UserError
from rankdet.models.norm import norm_layer
from rankdet.models.weights import load_backbone_weights

STEM_PLANES = 64
STAGE_PLANES = (64, 128, 256, 512)


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
}


class ResNetBackbone(nn.Module):
    """Normalised images [B, 3, H, W] -> {"c3", "c4", "c5"}: maps of stride 8, 16, 32, of size ceil(H / stride).

    name: one of ARCHITECTURES. width: factor on all channels (resnet18 at 0.25: 16, 32, 64, 128). norm: see
    models/norm.py. frozen_stages: 0 trains all, 1 freezes the stem and layer1, ... 4 everything; frozen parts take no
    gradient and stay in eval mode. weights: null (He initialisation), "imagenet" or a file: see models/weights.py.
    Parameters are named as in torchvision. Raises UserError for a value outside these.
    """

    def __init__(
        self,
        name: str,
        width: float = 1.0,
        norm: str = "frozen_bn",
        frozen_stages: int = 0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if name not in ARCHITECTURES:
            raise UserError(f"model.backbone.name={name!r} is unknown; choose one of {', '.join(ARCHITECTURES)}")
        if not 0 <= frozen_stages <= len(STAGE_PLANES):
            raise UserError(f"model.backbone.frozen_stages={frozen_stages} must lie in 0..{len(STAGE_PLANES)}")
        if not width > 0:
            raise UserError(f"model.backbone.width={width} must be positive")
        if weights == "imagenet" and width != 1.0:
            raise UserError(f"model.backbone.weights=imagenet needs model.backbone.width=1, not {width}")
        architecture = ARCHITECTURES[name]
        stem, *planes = (max(1, round(planes * width)) for planes in (STEM_PLANES, *STAGE_PLANES))
        layer = norm_layer(norm)
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = layer(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        outputs = [stem, *(count * architecture.block.expansion for count in planes)]
        self.layer1 = _stage(architecture, 0, outputs[0], planes[0], layer)
        self.layer2 = _stage(architecture, 1, outputs[1], planes[1], layer)
        self.layer3 = _stage(architecture, 2, outputs[2], planes[2], layer)
        self.layer4 = _stage(architecture, 3, outputs[3], planes[3], layer)
        self.strides = {"c3": 8, "c4": 16, "c5": 32}
        self.channels = dict(zip(self.strides, outputs[2:], strict=True))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if weights is not None:
            load_backbone_weights(self, name, weights)
        parts = [[self.conv1, self.bn1, self.layer1], [self.layer2], [self.layer3], [self.layer4]]
        self._frozen = list(chain.from_iterable(parts[:frozen_stages]))
        for module in self._frozen:
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """float [B, 3, H, W] -> maps [B, channels[key], ceil(H / strides[key]), ceil(W / strides[key])]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        c3 = self.layer2(self.layer1(x))
        c4 = self.layer3(c3)
        return {"c3": c3, "c4": c4, "c5": self.layer4(c4)}

    def train(self, mode: bool = True) -> "ResNetBackbone":
        """As nn.Module.train, except that frozen stages stay in eval mode, so that their BN keeps its statistics."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


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
