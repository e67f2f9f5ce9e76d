"""What a detector returns: one output of a single-stage detector, one per stage or decoder layer of another."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class DetectorOutput(NamedTuple):
    """B images, A anchors (finest level first; within one row-major over cells, then over the cell's anchors).

    The anchors of a second stage are the first one's proposals: other boxes in each image, and where one has fewer than
    A, the rest of its rows are empty boxes that take no part. DETR's queries have their whole image as their anchor.
    C score channels; K classes.
    """

    logits: Tensor  # float [B, A, C]
    deltas: Tensor  # float [B, A, 4]: dx, dy, log dw, log dh over the coder's stds; [B, A, K, 4]: a box per class
    anchors: Tensor  # float32 [A, 4] or [B, A, 4]: xyxy, pixels of the network's input
    level_sizes: tuple[int, ...]  # anchors per pyramid level; sums to A
    taking_part: Tensor | None = None  # bool [B, A]: which anchors may be negatives or detections; None: all

    def anchors_of(self, image: int) -> Tensor:
        """float32 [A, 4]: the anchors of one image of the batch."""
        return self.anchors if self.anchors.dim() == 2 else self.anchors[image]


def by_anchor(maps: Sequence[Tensor], size: int) -> Tensor:
    """Maps [B, anchors_per_cell * size, H_l, W_l], finest first -> [B, A, size], in DetectorOutput's order of anchors.

    The only copy is the joining of the levels where the maps are channels-last.
    """
    return torch.cat([x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size) for x in maps], dim=1)
