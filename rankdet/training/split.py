"""One batch on several processes, each with some of its images, and the losses of a process that has them all.

Losses rank, normalise and sample over a whole batch. So each process takes the outputs and targets of all, computes
the same losses from them, and takes the gradients of its own images back through its network: the gradient of one
process but for rounding and for what the network draws itself, by drop-out or in sampling regions for a second stage,
whatever the loss. A loss's sampler draws the same in all processes. What is sent is the outputs, some tens of
megabytes a step; that the losses are computed more than once costs nobody time.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rankdet.data.records import Batch, Target
from rankdet.errors import UserError
from rankdet.models.output import DetectorOutput
from rankdet.training.distributed import World


def padded_alike(batches: Iterable[Batch], fill: Sequence[int], here: World) -> Iterator[Batch]:
    """This process's batches, padded further to the largest input that any process has for the step.

    That is the input of one process with all images, and the same anchors for all. fill: RGB in 0..255 of the padding.
    Every process must have as many batches.
    """
    for images, targets in batches:
        size = (images.shape[2], images.shape[3])
        height, width = (max(sides) for sides in zip(*here.gather(size), strict=True))
        if (height, width) == size:
            yield Batch(images, targets)
            continue
        whole = torch.tensor(fill, dtype=images.dtype).view(3, 1, 1).repeat(len(images), 1, height, width)
        whole[:, :, : size[0], : size[1]] = images
        yield Batch(whole, [target._replace(shown=target.shown or size) for target in targets])


def whole_batch(
    outputs: Sequence[DetectorOutput], targets: list[Target], here: World
) -> tuple[list[DetectorOutput], list[Target]]:
    """This process's outputs, one a stage, and targets -> those of all, process by process; without gradients.

    The processes' images must be of one size (see padded_alike), and as many. ValueError for outputs of other shapes.
    """
    shapes = [tuple(output.logits.shape) for output in outputs]
    found = here.gather((shapes, targets))
    if any(others != shapes for others, _ in found):
        raise ValueError(f"outputs must have the same shapes in all processes, got {[others for others, _ in found]}")
    return [_of_all(output, here.size) for output in outputs], list(chain.from_iterable(given for _, given in found))


@contextmanager
def drawn_alike(here: World) -> Iterator[None]:
    """Within it all processes draw the same random numbers, however many each has drawn before; after it its own."""
    seed = here.broadcast(int(torch.randint(2**62, ())))
    with torch.random.fork_rng([here.device] if here.device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def own_share(gradient: Tensor, here: World) -> Tensor:
    """The gradient [B, ...] of a whole batch -> that of this process's images, times the number of processes.

    DistributedDataParallel takes the mean over them.
    """
    share = len(gradient) // here.size
    return gradient[here.rank * share : (here.rank + 1) * share] * here.size


def require_one_way_to_share(gpus: int, split: int, scopes: Collection[str | None]) -> None:
    """UserError where images are dealt out in two ways at once, or the same scores would be ranked more than once.

    scopes: over which scores the losses rank; None of a loss that does not."""
    if gpus > 1 and split > 1:
        raise UserError(f"gpus={gpus} and runtime.split={split}: one of them must be 1")
    if split > 1 and "global" in scopes:
        raise UserError(
            f"loss.ranking_scope=global and runtime.split={split}: would rank every score as often as there are "
            "processes, each of which ranks all images already; set ranking_scope=gpu, or gpus=<n>, not split"
        )


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
