"""Deformable DETR: a backbone's maps through a transformer, whose queries each end as one box."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.matching.unit_boxes import UnitBoxCoder
from rankdet.models.backbones import ResNetBackbone
from rankdet.models.deformable_transformer import DecoderLayer, EncoderLayer, Layers
from rankdet.models.level_tokens import LevelTokens
from rankdet.models.norm import PixelNorm
from rankdet.models.output import DetectorOutput
from rankdet.models.precision import full_precision, without_autocast

LOGIT_EPS = 1e-5  # coordinates are kept so far from 0 and 1 where a logit is taken of them
FIRST_SIZE = -2.0  # logit of a first box's width and height: 0.12 of the image's


class DeformableDETR(nn.Module):
    """Deformable DETR (ICLR 2021), Sec. 4, without its second stage of proposals.

    levels: a partial LevelTokens. num_queries (A): boxes an image can have, 1 or more. refine: each decoder layer moves
    the boxes of the one before and looks about them (Sec. 4.2 and A.4), with heads of its own; else all start from the
    query's reference point. coder says what `deltas` mean. num_channels (C) and prior_bias (float [C]) are the
    classification loss's to say.
    """

    def __init__(
        self,
        backbone: ResNetBackbone,
        levels: Callable[..., LevelTokens],
        layers: Layers,
        coder: UnitBoxCoder,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        num_channels: int,
        prior_bias: Tensor,
        num_queries: int = 300,
        refine: bool = False,
    ) -> None:
        super().__init__()
        if num_queries < 1:
            raise UserError(f"model.num_queries={num_queries}: must be 1 or more")
        self.pixel_norm = PixelNorm(pixel_mean, pixel_std)
        self.backbone = backbone
        self.levels = levels(in_channels=backbone.channels, in_strides=backbone.strides)
        channels, num_levels = self.levels.channels, len(self.levels.strides)
        self.encoder = nn.ModuleList(EncoderLayer(layers, channels, num_levels) for _ in range(layers.encoder))
        self.decoder = nn.ModuleList(DecoderLayer(layers, channels, num_levels) for _ in range(layers.decoder))
        self.queries = nn.Parameter(torch.randn(num_queries, 2 * channels))  # what tells them apart; what they begin as
        self.reference_points = nn.Linear(channels, 2)
        nn.init.xavier_uniform_(self.reference_points.weight)
        nn.init.zeros_(self.reference_points.bias)
        self.heads = DETRHeads(channels, num_channels, prior_bias, layers.decoder if refine else 1)
        self.refine, self.coder = refine, coder
        self.num_outputs = layers.decoder

    def forward(self, images: Tensor, targets: Sequence[Target]) -> tuple[DetectorOutput, ...]:
        """Images [B, 3, H, W], RGB, uint8 or float in 0..255, any H and W -> an output a decoder layer, the last last.

        Of the targets only `shown` counts. A query's anchor is its whole image: [B, A, 4] alike for all A.
        """
        input_size = (images.shape[-2], images.shape[-1])
        shown = [target.shown or input_size for target in targets]
        padded = any(size != input_size for size in shown)
        tokens = self.levels(self.backbone(self.pixel_norm(images)), shown if padded else None)
        memory = tokens.features
        for layer in self.encoder:
            memory = layer(memory, tokens)

        names, x = self.queries.expand(len(images), -1, -1).chunk(2, dim=2)
        references = full_precision(self.reference_points(names)).sigmoid()
        wholes = [(0.0, 0.0, width, height) for height, width in shown]
        anchors = torch.tensor(wholes, device=x.device)[:, None].expand(-1, len(self.queries), -1)
        outputs = []
        for index, layer in enumerate(self.decoder):
            x = layer(x, names, references, memory, tokens)
            logits, boxes = self.heads(index, x, references)
            outputs.append(DetectorOutput(logits, boxes, anchors, (len(self.queries),)))
            if self.refine:
                references = boxes.detach()
        return tuple(outputs)


class DETRHeads(nn.Module):
    """Scores by a linear layer, boxes by a perceptron of three, for all decoder layers or for each of num_sets layers.

    Boxes are sigmoids of what the perceptron adds to the logits of the references (A.3). It begins with adding nothing
    to the centres, and makes the first boxes FIRST_SIZE wide and high.
    """

    def __init__(self, channels: int, num_channels: int, prior_bias: Tensor, num_sets: int) -> None:
        super().__init__()
        if prior_bias.shape != (num_channels,):
            raise ValueError(f"prior_bias must have shape [{num_channels}], not {list(prior_bias.shape)}")
        self.class_output = nn.ModuleList(nn.Linear(channels, num_channels) for _ in range(num_sets))
        self.box_output = nn.ModuleList(_perceptron(channels) for _ in range(num_sets))
        with torch.no_grad():
            for layer in self.class_output:
                layer.bias.copy_(prior_bias)
            self.box_output[0][-1].bias[2:] = FIRST_SIZE

    def forward(self, layer: int, x: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
        """x float [B, A, channels] of a decoder layer, its references [B, A, 2] (x, y) or [B, A, 4] (and width, height)
        in [0, 1] -> logits [B, A, C] and boxes float32 [B, A, 4]: x, y, width and height in (0, 1)."""
        own = layer % len(self.class_output)
        logits = self.class_output[own](x)
        with without_autocast(x.device.type):  # a bfloat16 would tell 256 places apart
            moved = self.box_output[own](full_precision(x))
            known = torch.logit(references, LOGIT_EPS)
            boxes = torch.cat([moved[..., : known.shape[-1]] + known, moved[..., known.shape[-1] :]], dim=-1).sigmoid()
        return logits, boxes


def _perceptron(channels: int) -> nn.Sequential:
    layers = [
        nn.Linear(channels, channels),
        nn.ReLU(inplace=True),
        nn.Linear(channels, channels),
        nn.ReLU(inplace=True),
    ]
    last = nn.Linear(channels, 4)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
