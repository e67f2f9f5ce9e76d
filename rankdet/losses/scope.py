"""Whose scores are ranked together: one process's, or those of all processes of a group."""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class Scope(NamedTuple):
    """Sums and lists over the processes that rank together; group None is this process alone.

    Every process must make the same calls in the same order, one without positives too.
    """

    group: dist.ProcessGroup | None = None

    @property
    def size(self) -> int:
        """Number of processes."""
        return 1 if self.group is None else dist.get_world_size(self.group)

    def gather(self, values: Tensor) -> Tensor:
        """[n of this process] -> [n of all], rank by rank; sends the longest list's length from each process."""
        if self.group is None:
            return values
        lengths = self.lengths(len(values))
        padded = values.new_zeros(max(lengths))
        padded[: len(values)] = values
        lists = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(lists, padded, group=self.group)
        return torch.cat([each[:length] for each, length in zip(lists, lengths, strict=True)])

    def total(self, values: Tensor) -> Tensor:
        """The elementwise sum over all processes."""
        if self.group is None:
            return values
        total = values.clone()
        dist.all_reduce(total, group=self.group)
        return total

    def own(self, values: Tensor, length: int) -> Tensor:
        """[n of all] -> the `length` that this process gave to gather()."""
        if self.group is None:
            return values
        start = sum(self.lengths(length)[: dist.get_rank(self.group)])
        return values[start : start + length]

    def lengths(self, length: int) -> list[int]:
        """`length` of every process; waits for all of them."""
        device = torch.device("cuda", torch.cuda.current_device()) if self._on_gpus() else torch.device("cpu")
        mine = torch.tensor([length], device=device)
        lists = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(lists, mine, group=self.group)
        return torch.cat(lists).tolist()

    def _on_gpus(self) -> bool:
        return dist.get_backend(self.group) == "nccl"


def ranking_group(ranking_scope: str) -> dist.ProcessGroup | None:
    """The group for a loss module's `ranking_scope`: "gpu" ranks inside each process (as the papers do), "global" over
    all processes of the training. ValueError for another word.
    """
    if ranking_scope not in ("gpu", "global"):
        raise ValueError(f'ranking_scope must be "gpu" or "global", got {ranking_scope!r}')
    return dist.group.WORLD if ranking_scope == "global" and dist.is_initialized() else None
