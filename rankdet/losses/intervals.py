"""In which of the intervals between ascending edges each of many scores lies, exactly."""

import torch
from torch import Tensor

from rankdet.losses.blocks import blocks

LARGE = 1 << 16  # scores from which on the CPU takes a grid
CELLS_PER_EDGE = 32
MIN_CELLS, MAX_CELLS = 1 << 14, 1 << 20  # a table of so many entries stays in the processor's cache
SAMPLE = 1 << 14  # scores that are_few looks at
FEW = 0.25


def number_intervals(scores: Tensor, edges: Tensor) -> Tensor:
    """int32 [N]: how many of `edges` (ascending, [M], the dtype of the scores) are at most each of `scores` ([N]).

    As torch.bucketize does it. On the CPU bisection takes several times as long as a look into a uniform grid, whose
    cells without an edge have one answer each.
    """
    if scores.device.type != "cpu" or len(scores) < LARGE or len(edges) == 0:
        return torch.bucketize(scores.contiguous(), edges, right=True, out_int32=True)
    return (_one_node if torch.compiler.is_compiling() else by_grid)(scores, edges)


def by_grid(scores: Tensor, edges: Tensor) -> Tensor:
    """number_intervals by a uniform grid over the edges; scores in a cell with an edge are looked up by bisection.

    Exact whatever the rounding: `cell` never falls as its argument grows, and edges go through it like scores. M >= 1,
    all finite.
    """
    lowest, highest = edges[0].item(), edges[-1].item()
    cells = min(max(MIN_CELLS, 1 << (CELLS_PER_EDGE * len(edges) - 1).bit_length()), MAX_CELLS)
    # Cells narrower than the edges' own rounding would be no finer, and an infinite scale would make 0 * inf of it.
    width = max((highest - lowest) / (cells - 4), max(abs(lowest), abs(highest), 1e-30) * 2.0**-20)
    start = lowest - 2 * width

    def cell(values: Tensor) -> Tensor:
        """int32, 0..cells. Two operations: one fused multiply-add here and not there would round otherwise."""
        return (values - start).mul_(1 / width).clamp_(0, cells).int()

    counts = torch.bincount(cell(edges), minlength=cells + 1)
    table = torch.where(counts > 0, -1, counts.cumsum(0)).int()
    interval = torch.empty(len(scores), dtype=torch.int32)
    for some, found in blocks(scores, interval):
        torch.index_select(table, 0, cell(some), out=found)
        unsure = (found < 0).nonzero().squeeze(1)
        found[unsure] = torch.bucketize(some[unsure], edges, right=True, out_int32=True)
    return interval


def are_few(scores: Tensor, edge: Tensor) -> bool:
    """Whether it pays to sort out first the scores that lie right of an edge: on the CPU, judged by a sample.

    Speed alone depends on the answer.
    """
    if scores.device.type != "cpu" or len(scores) < LARGE or torch.compiler.is_compiling():
        return False
    sample = scores[:: -(-len(scores) // SAMPLE)]
    return int((sample >= edge).sum()) < FEW * len(sample)


# What a compiled graph calls: how many scores are unsure depends on values, for which a graph would have to break.
_one_node = torch.library.custom_op("rankdet::number_intervals", by_grid, mutates_args=())


@_one_node.register_fake
def _(scores: Tensor, edges: Tensor) -> Tensor:
    return scores.new_empty(len(scores), dtype=torch.int32)
