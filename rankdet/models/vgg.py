"""VGG-16 as SSD reduces it: a fully convolutional network whose first two dense layers became convolutions."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from rankdet.errors import UserError
from rankdet.models.norm import norm_layer
from rankdet.models.weights import read_weights, require_fit

ARCHITECTURES = {"vgg16": (2, 2, 3, 3, 3)}  # 3x3 convolutions per stage; VGG (ICLR 2015), Table 1, column D
STAGE_PLANES = (64, 128, 256, 512, 512)
REDUCED_PLANES = 1024  # of conv6 and conv7, where VGG-16 has 4096
KEPT_PLANES = 4  # every fourth output of fc6 and fc7
KEPT_CELLS = 3  # every third of fc6's 7 x 7 inputs, along both axes: 3 x 3
LAST_DENSE = "classifier.6."  # ImageNet's 1000 scores


class VGGBackbone(nn.Module):
    """Normalised images [B, 3, H, W] -> {"conv4_3", "conv7"}: maps of stride 8 and 16, of size ceil(H / stride).

    SSD (ECCV 2016), Sec. 3: fc6 and fc7 are convolutions, conv6 3x3 with dilation 6 and conv7 1x1, and pool5 is 3x3
    with stride 1; no dropout. name: vgg16. width: factor on all channels. norm: null, as in VGG, or the name of a norm
    (models/norm.py) after every convolution. weights: null (He initialisation), "imagenet" or a
    file in the form of torchvision's vgg16, which want width 1 and no norm; see reduced_vgg16. Raises UserError for a
    value outside these.
    """

    def __init__(self, name: str, width: float = 1.0, norm: str | None = None, weights: str | None = None) -> None:
        super().__init__()
        if name not in ARCHITECTURES:
            raise UserError(f"model.backbone.name={name!r} is unknown; choose one of {', '.join(ARCHITECTURES)}")
        if not width > 0:
            raise UserError(f"model.backbone.width={width} must be positive")
        if weights is not None and (width != 1.0 or norm is not None):
            raise UserError(
                f"model.backbone.weights={weights} needs model.backbone.width=1 and norm=null, not {width} and {norm}"
            )
        *planes, top = (max(1, round(count * width)) for count in (*STAGE_PLANES, REDUCED_PLANES))
        stages = zip(pairwise((3, *planes)), ARCHITECTURES[name], strict=True)
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = (
            nn.Sequential(*(_layer(first if i == 0 else last, last, norm) for i in range(depth)))
            for (first, last), depth in stages
        )
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.pool5 = nn.MaxPool2d(3, stride=1, padding=1)
        self.conv6 = _layer(planes[-1], top, norm, dilation=6)
        self.conv7 = _layer(top, top, norm, kernel=1)
        self.strides = {"conv4_3": 8, "conv7": 16}
        self.channels = {"conv4_3": planes[3], "conv7": top}
        if weights is not None:
            self.load_state_dict(reduced_vgg16(self, name, weights))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """float [B, 3, H, W] -> maps [B, channels[key], ceil(H / strides[key]), ceil(W / strides[key])]."""
        x = images
        for stage in (self.conv1, self.conv2, self.conv3):
            x = self.pool(stage(x))
        conv4_3 = self.conv4(x)
        x = self.pool5(self.conv5(self.pool(conv4_3)))
        return {"conv4_3": conv4_3, "conv7": self.conv7(self.conv6(x))}


def reduced_vgg16(model: VGGBackbone, name: str, source: str) -> dict[str, Tensor]:
    """torchvision's weights of `name` (source as in models/weights.py) under the names of `model`, which has no norm.

    The convolutions are taken over. fc6 keeps every fourth of its 4096 outputs and every third row and column of its
    7 x 7 inputs; fc7 every fourth output of those inputs that fc6 kept: the subsampling of SSD, Sec. 3, as in DeepLab.
    All keys and shapes of torchvision's model must be there, but for the ImageNet scores, else UserError.
    """
    with torch.device("meta"):
        theirs = get_model(name, weights=None).state_dict()
    expected, found = (
        {key: value for key, value in state.items() if not key.startswith(LAST_DENSE)}
        for state in (theirs, read_weights(name, source))
    )
    require_fit(expected, found, source)
    tensors = [found[key] for key in expected]  # weight and bias of each layer, in the network's order
    *features, fc6_weight, fc6_bias, fc7_weight, fc7_bias = tensors
    window = fc6_weight.unflatten(1, (STAGE_PLANES[-1], 7, 7))
    reduced = [
        *features,
        window[::KEPT_PLANES, :, ::KEPT_CELLS, ::KEPT_CELLS],
        fc6_bias[::KEPT_PLANES],
        fc7_weight[::KEPT_PLANES, ::KEPT_PLANES, None, None],
        fc7_bias[::KEPT_PLANES],
    ]
    return dict(zip(model.state_dict(), reduced, strict=True))


def _layer(in_channels: int, channels: int, norm: str | None, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    """A convolution that keeps the map's size, `norm` where there is one, and ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, channels, kernel, padding=padding, dilation=dilation, bias=norm is None)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    layers = [conv] if norm is None else [conv, norm_layer(norm)(channels)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True))
