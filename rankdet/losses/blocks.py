"""Long tensors piece by piece, where that is faster."""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 1 << 18  # elements: fewer would leave nothing to share among threads


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors ([N] each, one or more) in pieces, views of them, that belong together; none of N = 0.

    On the CPU they are so short that what is computed from them stays in its cache: fresh memory for N results costs
    more than the arithmetic. Elsewhere, and in a compiled graph, there is one piece.
    """
    count = len(tensors[0])
    all_at_once = tensors[0].device.type != "cpu" or torch.compiler.is_compiling()
    size = max(1, count) if all_at_once else BLOCK
    return zip(*(tensor.split(size) for tensor in tensors if count), strict=True)
