"""One batch on several processes, each with some of its images, and the losses of a process that has them all.

Losses rank, normalise and sample over a whole batch. So each process takes the outputs and targets of all, computes the
same losses from them, and takes the gradients of its own images back through its network: the gradient of one process
but for rounding, whatever the loss. What is sent is the outputs, some tens of megabytes a step; that the losses are
computed more than once costs nobody time.
"""

from collections.abc import Sequence
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.models.output import DetectorOutput
from rankdet.training.distributed import World


def whole_batch(
    outputs: Sequence[DetectorOutput], targets: list[Target], here: World
) -> tuple[list[DetectorOutput], list[Target]]:
    """This process's outputs, one a stage, and targets -> those of all, process by process; without gradients.

    UserError where the processes' images have unlike numbers of anchors: padded batches, regions of Faster R-CNN.
    """
    shapes = [tuple(output.logits.shape) for output in outputs]
    found = here.gather((shapes, targets))
    if any(others != shapes for others, _ in found):
        raise UserError(
            "runtime.split: the processes' images differ in size, or in their number of regions, and cannot be joined; "
            "use runtime.split=1, or gpus=<n>, a run of its own in which each process ranks its own images"
        )
    return [_of_all(output, here.size) for output in outputs], list(chain.from_iterable(given for _, given in found))


def own_share(gradient: Tensor, here: World) -> Tensor:
    """The gradient [B, ...] of a whole batch -> that of this process's images, times the number of processes.

    DistributedDataParallel takes the mean over them.
    """
    share = len(gradient) // here.size
    return gradient[here.rank * share : (here.rank + 1) * share] * here.size


def require_separate_images(model: nn.Module) -> None:
    """UserError where batch norm is trained: an image's output depends on which others the process has."""
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise UserError(
            "runtime.split: batch norm that is trained takes its statistics from a process's own images, which makes "
            "another run; use runtime.split=1 (several runs at once: GPUS=1 JOBS=<n>), or gpus=<n> for that other run"
        )


def _of_all(output: DetectorOutput, size: int) -> DetectorOutput:
    every = {name: value for name, value in output._asdict().items() if isinstance(value, Tensor)}
    if output.anchors.dim() == 2:
        del every["anchors"]  # the same for all images
    return output._replace(**{name: _gather(value.detach(), size) for name, value in every.items()})


def _gather(value: Tensor, size: int) -> Tensor:
    parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(size)]
    dist.all_gather(parts, value.contiguous())
    return torch.cat(parts)
