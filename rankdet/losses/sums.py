"""Sums in a fixed order: of values by interval, and running sums; the same bits in every run on one device."""

import torch
from torch import Tensor

from rankdet.losses.blocks import blocks

COPIES = 64  # of the histogram that a GPU adds into, so that equal intervals do not all wait for one address
BLOCK = 64  # of a running sum


def interval_sums(interval: Tensor, values: Tensor | None, size: int) -> Tensor:
    """float64 [size]: the sum of `values` ([N], finite; None: 1 each) over every interval (integer [N], 0..size-1).

    The CPU adds in order. Elsewhere float additions would come in any order: values are rounded to 64-bit integers
    there, whose sums have no order, with a unit so small that N of them just do not overflow.
    """
    return (_one_node if torch.compiler.is_compiling() else _interval_sums)(interval, values, size)


def fixed_point_sums(interval: Tensor, values: Tensor | None, size: int) -> Tensor:
    """interval_sums by integer additions, whose order does not matter.

    Off by at most max|value| N^2 / 2^60, and the rounding of the sums to float64.
    """
    count = len(interval)
    if count == 0:
        return torch.zeros(size, dtype=torch.float64, device=interval.device)
    if values is None:
        units, unit_exponent = torch.ones_like(interval, dtype=torch.int64), None
    else:
        largest = values.abs().amax().double()
        unit_exponent = torch.frexp(largest).exponent.long() - (61 - count.bit_length())
        units = torch.ldexp(values.double(), -unit_exponent).round().long()
    copies = max(1, min(COPIES, count // size))  # never more memory than the values take
    copy = torch.arange(count, device=interval.device).remainder_(copies).mul_(size)
    totals = torch.zeros(copies * size, dtype=torch.int64, device=interval.device)
    sums = totals.scatter_add_(0, copy.add_(interval), units).view(copies, size).sum(0).double()
    return sums if unit_exponent is None else torch.ldexp(sums, unit_exponent)


def bounded(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`values` for interval_sums, where those beyond low and high lie in intervals whose sums are not used.

    fixed_point_sums' unit is as coarse as the largest of all values; on the CPU each interval keeps its own precision.
    """
    return values if values.device.type == "cpu" else values.clamp(low, high)


def running_sums(values: Tensor) -> Tensor:
    """float64 [M] -> [M]: entry i is the sum of the values 0..i. A GPU's cumsum would add in an order of its own."""
    if values.device.type == "cpu":
        return values.cumsum(0)
    return blockwise_running_sums(values)


def blockwise_running_sums(values: Tensor) -> Tensor:
    """running_sums by sums over the lower triangle of every block, and of the blocks' totals: O(M BLOCK)."""
    blocks = torch.nn.functional.pad(values, (0, -len(values) % BLOCK)).view(-1, BLOCK)
    sums = (blocks[:, None] * torch.ones(BLOCK, BLOCK, dtype=values.dtype, device=values.device).tril()).sum(-1)
    if len(blocks) > 1:
        sums[1:] += blockwise_running_sums(sums[:-1, -1])[:, None]
    return sums.reshape(-1)[: len(values)]


def sums_from_the_right(bins: Tensor) -> Tensor:
    """[M] -> [M + 1]: entry b is the sum of bins b, b + 1, ...; the last is 0."""
    return torch.cat((running_sums(bins.flip(0)).flip(0), bins.new_zeros(1)))


def _interval_sums(interval: Tensor, values: Tensor | None, size: int) -> Tensor:
    if interval.device.type != "cpu":
        return fixed_point_sums(interval, values, size)
    if values is None:
        return torch.bincount(interval, minlength=size).double()
    total = torch.zeros(size, dtype=torch.float64)
    for some, weights in blocks(interval, values):
        total.index_add_(0, some, weights.double())
    return total


# What a compiled graph calls: bincount's size depends on values, for which a graph would have to break. Calling it
# without a graph would load the compiler, which takes seconds.
_one_node = torch.library.custom_op("rankdet::interval_sums", _interval_sums, mutates_args=())


@_one_node.register_fake
def _(interval: Tensor, values: Tensor | None, size: int) -> Tensor:
    return interval.new_empty(size, dtype=torch.float64)
