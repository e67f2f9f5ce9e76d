"""DETR's boxes: centre and size as shares of the image's."""

import torch
from torch import Tensor


class UnitBoxCoder:
    """(x, y, width, height) of a box, x and y of its centre, in units of the anchor's sides and from its top left
    corner: DETR (ECCV 2020), Sec. 3.1, where each query's anchor is the whole image.

    Both ways are linear, so that a plain L1 loss of the deltas is DETR's (in shares of the image).
    """

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Anchors [..., 4] of positive area and boxes [..., 4] -> deltas [..., 4] with decode(deltas) = boxes."""
        centres, sizes = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
        sides = anchors[..., 2:] - anchors[..., :2]
        return torch.cat([(centres - anchors[..., :2]) / sides, sizes / sides], dim=-1)

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Anchors [..., 4] and deltas [..., 4] -> boxes [..., 4], not clipped to the image; half types give float32.

        Boxes have x2 >= x1 and y2 >= y1 where the deltas' sizes are not negative.
        """
        deltas = deltas.to(torch.promote_types(deltas.dtype, anchors.dtype))
        sides = anchors[..., 2:] - anchors[..., :2]
        centres, halves = anchors[..., :2] + deltas[..., :2] * sides, deltas[..., 2:] * sides / 2
        return torch.cat([centres - halves, centres + halves], dim=-1)
