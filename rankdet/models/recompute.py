"""Memory for time: activations are computed again in the backward pass instead of being kept."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def recomputed(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    """The n blocks one after another, of whose graph only the input of every sqrt(n)-th is kept.

    Training Deep Nets with Sublinear Memory Cost (arXiv:1604.06174), Sec. 4.1; sqrt(n) is rounded up. The same bits in
    output and gradients as without; batch statistics advance once. The blocks must not draw random numbers. Where no
    gradients are recorded it only runs them. torch.compile takes it into its graph, but for blocks that track batch
    statistics, before which the graph breaks.
    """
    size = math.ceil(math.sqrt(len(blocks)))
    for start in range(0, len(blocks), size):
        segment = [blocks[i] for i in range(start, min(start + size, len(blocks)))]
        if not torch.is_grad_enabled():
            x = _run(segment, x)
        elif _tracking(segment):
            x = _with_statistics(segment, x)
        else:
            x = checkpoint(_run, segment, x, use_reentrant=False, preserve_rng_state=False)
    return x


def _run(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


@torch.compiler.disable  # the compiler would drop the contexts, and the statistics would advance twice
def _with_statistics(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    contexts = partial(_contexts, blocks)
    return checkpoint(_run, blocks, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


def _contexts(blocks: Sequence[nn.Module]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For the first pass and for the second."""
    return nullcontext(), _spare_statistics(blocks)


@contextmanager
def _spare_statistics(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Copies take the place of the statistics, and are thrown away."""
    kept = [(norm, name, getattr(norm, name)) for norm in _tracking(blocks) for name in STATISTICS]
    for norm, name, value in kept:
        setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for norm, name, value in kept:
            setattr(norm, name, value)


def _tracking(blocks: Sequence[nn.Module]) -> list[nn.BatchNorm2d]:
    """The batch norms whose statistics a pass changes."""
    modules = (module for block in blocks for module in block.modules())
    return [module for module in modules if isinstance(module, nn.BatchNorm2d) and module.training]
