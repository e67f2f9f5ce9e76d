"""What every single-stage detector returns."""

from typing import NamedTuple

from torch import Tensor


class DetectorOutput(NamedTuple):
    """B images, A anchors (finest level first; within one row-major over cells, then over the cell's anchors)."""

    logits: Tensor  # float [B, A, C]
    deltas: Tensor  # float [B, A, 4]: dx, dy, log dw, log dh over the coder's stds
    anchors: Tensor  # float32 [A, 4]: xyxy, pixels of the network's input
    level_sizes: tuple[int, ...]  # anchors per pyramid level; sums to A
