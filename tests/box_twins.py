"""Boxes written by hand, xyxy, and the slow twin of their IoU in exact arithmetic."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor


def boxes(*rows: tuple[float, float, float, float]) -> Tensor:
    """float32 [N, 4]."""
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def exact_iou(a: Sequence[int], b: Sequence[int]) -> Fraction:
    """IoU of two boxes with whole coordinates."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return Fraction(shared, (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
