"""Long tensors, and pairs of their entries, piece by piece."""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1 << 18  # elements: fewer would leave nothing to share among threads
PAIRS = 1 << 20  # held at a time
PAIRS_IN_CACHE = 1 << 17  # held at a time on the CPU, where eight times as many take two to four times as long each


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors ([N] each, one or more) in pieces, views of them, that belong together; none of N = 0.

    On the CPU they are so short that what is computed from them stays in its cache: fresh memory for N results costs
    more than the arithmetic. Elsewhere, and in a compiled graph, there is one piece.
    """
    count = len(tensors[0])
    all_at_once = tensors[0].device.type != "cpu" or torch.compiler.is_compiling()
    size = max(1, count) if all_at_once else BLOCK
    return zip(*(tensor.split(size) for tensor in tensors if count), strict=True)


def blocks_of_pairs(count: int, points: Tensor) -> Iterator[slice]:
    """Slices of `count` values whose pairs with all points ([P]) are held at a time."""
    pairs = PAIRS_IN_CACHE if points.device.type == "cpu" else PAIRS
    size = max(1, pairs // max(1, len(points)))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
