"""Box deltas: the encoding of a box relative to its anchor. Boxes are xyxy, float, 0-based continuous pixels.

IoU and clipping are torchvision.ops.box_iou and clip_boxes_to_image.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

MAX_LOG_SIZE = math.log(1000.0 / 16)  # a decoded side is at most 62.5 times its anchor's


class Coder(Protocol):
    """What box deltas mean, given an anchor: BoxCoder, FoveaCoder."""

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """[..., 4] anchors and boxes, xyxy, to [..., 4] deltas."""

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """[..., 4] anchors, xyxy, and deltas to [..., 4] boxes, xyxy."""


class BoxCoder:
    """(dx / w, dy / h, log dw, log dh) over `stds`, with dx, dy from centre to centre: R-CNN (CVPR 2014), App. C.

    AP-loss's stds are 0.1, 0.1, 0.2, 0.2. Sides are x2 - x1, where its program adds a pixel.
    """

    def __init__(self, stds: Sequence[float] = (0.1, 0.1, 0.2, 0.2)) -> None:
        if len(stds) != 4 or min(stds) <= 0:
            raise ValueError(f"stds must be four positive numbers, not {list(stds)}")
        self.stds = tuple(stds)

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Anchors [..., 4] and boxes [..., 4], both of positive area -> deltas [..., 4] with decode(deltas) = boxes."""
        anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
        centres, sizes = _centres_and_sizes(boxes)
        deltas = torch.cat([(centres - anchor_centres) / anchor_sizes, (sizes / anchor_sizes).log()], dim=-1)
        return deltas / deltas.new_tensor(self.stds)

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Anchors [..., 4] and deltas [..., 4] -> boxes [..., 4], not clipped to the image; half types give float32.

        log dw and log dh are cut at log(1000 / 16), beyond which they take no gradient: an untrained network's exp
        would overflow. Boxes always have x2 >= x1 and y2 >= y1.
        """
        deltas = deltas.to(torch.promote_types(deltas.dtype, anchors.dtype))
        deltas = deltas * deltas.new_tensor(self.stds)
        anchor_centres, anchor_sizes = _centres_and_sizes(anchors)
        centres = anchor_centres + deltas[..., :2] * anchor_sizes
        half_sizes = 0.5 * anchor_sizes * deltas[..., 2:].clamp(max=MAX_LOG_SIZE).exp()
        return torch.cat([centres - half_sizes, centres + half_sizes], dim=-1)


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sizes, sizes
