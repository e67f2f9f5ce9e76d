"""aLRP's self-balancing: the localisation part's weight follows the ratio of the parts (NeurIPS 2020, Sec. 4.2)."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SelfBalance(nn.Module):
    """The localisation part's weight: first `initial_weight`, then per epoch (mean cls + mean loc) / mean loc of it.

    initial_weight: > 0; the released program's 50. period: steps of an epoch, or None to be told by set_epoch_length.
    The new weight holds from the last step of the epoch on whose losses it is computed, as in the released program.
    Processes share the sums of all. The running means are buffers: a training that is resumed goes on where it was.
    """

    weight: Tensor
    sums: Tensor
    steps: Tensor

    def __init__(self, initial_weight: float = 50.0, period: int | None = None) -> None:
        super().__init__()
        if not initial_weight > 0:
            raise ValueError(f"initial_weight must be positive, got {initial_weight}")
        self.period: int | None = None
        if period is not None:
            self.set_epoch_length(period)
        self.register_buffer("weight", torch.tensor(initial_weight, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(2, dtype=torch.float64))  # of this epoch's cls and loc
        self.register_buffer("steps", torch.tensor(0))  # of this epoch

    def set_epoch_length(self, steps: int) -> None:
        """steps: of an epoch, >= 1."""
        if steps < 1:
            raise ValueError(f"period must be at least 1, got {steps}")
        self.period = steps

    @torch.no_grad()
    def forward(self, classification: Tensor, localisation: Tensor) -> Tensor:
        """This step's parts, unweighted scalars -> this step's weight, float64 scalar.

        An epoch whose localisation part is 0 (no positives) leaves the weight as it is. RuntimeError: no epoch length.
        """
        if self.period is None:
            raise RuntimeError("SelfBalance: the length of an epoch is not known: give period, or set_epoch_length()")
        parts = torch.stack((classification, localisation)).double()
        if dist.is_initialized():  # every step, so that each process has the state that a resumed one gets
            dist.all_reduce(parts)
        self.sums += parts
        self.steps += 1
        ends = self.steps >= self.period
        ratio = self.sums.sum() / self.sums[1]
        self.weight.copy_(torch.where(ends & (self.sums[1] > 0), ratio, self.weight))
        self.sums.mul_(~ends)
        self.steps.mul_(~ends)
        return self.weight.clone()
