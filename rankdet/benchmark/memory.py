"""The most memory that a contestant's training needs."""

import gc
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from rankdet.benchmark.contestants import Contestant
from rankdet.benchmark.inputs import Setup, batches
from rankdet.benchmark.steps import make_step
from rankdet.profiling.memory import peak_bytes

WARM_UP = (64, 1)  # size and images of the step after which weights, gradients and momentum are there


def peaks(
    contestant: Contestant, setup: Setup, places: Sequence[tuple[int, int]], device: torch.device
) -> list[int | None]:
    """For every (size, images), smallest first: bytes of weights, momentum and all that a step adds at its worst.

    On the CPU only in a gauge_process() (see profiling.memory); None where it cannot be told.
    """
    gc.collect()  # the contestant before
    step = make_step(contestant, setup, device)
    if not contestant.compiled:
        step(batches(setup, *WARM_UP))
    found = []
    for size, images in places:
        stream = batches(setup, size, images)
        if contestant.compiled:
            step(stream)  # compiles for this size, which takes memory that training does not
        gc.collect()
        added = peak_bytes(partial(step, stream), device)
        found.append(None if added is None else resident(step.model, step.optimizer) + added)
    return found


def resident(model: nn.Module, optimizer: Optimizer) -> int:
    """Bytes that stay between two steps: weights, buffers, gradients, the optimiser's state."""
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [each.grad for each in model.parameters() if each.grad is not None]
    for state in optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    return sum(tensor.nbytes for tensor in tensors)
