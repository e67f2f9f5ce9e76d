"""One process or many: torchrun's environment, the device, and the few exchanges that a run needs."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import nn

from rankdet.errors import UserError

TIMEOUT = timedelta(hours=2)  # nccl's own 10 minutes end those who wait for the first one's metrics, or a slow disk


@dataclass(frozen=True)
class World:
    """This process among those that train one model."""

    rank: int
    size: int
    device: torch.device
    store: dist.Store | None = None  # at which the processes met, if there are several

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401
        """Every rank's value (any picklable object), in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:  # noqa: ANN401
        """Rank 0's value on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def share_buffers(self, model: nn.Module) -> None:
        """Rank 0's buffers on every rank: batch norm's running means drift apart, and rank 0's are the ones saved."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def barrier(self) -> None:
        """Waits until every rank is here."""
        if self.size > 1:
            dist.barrier()


def leave(code: int) -> NoReturn:
    """Ends this process with an exit code; at once where it is one of many.

    An orderly end would wait for the others, who wait for this one in the middle of a step. torchrun ends them when it
    sees that this one is gone.
    """
    if dist.is_available() and dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """auto: a GPU where there is one. UserError for a GPU asked for where there is none."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"runtime.device={name}: must be auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("runtime.device=cuda: this machine has no usable GPU; use runtime.device=cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"{local_rank + 1} processes on a machine with {torch.cuda.device_count()} GPUs: lower --nproc-per-node; "
            "on Slurm leave gpus_per_task and gpu-bind out, which show each process one GPU alone"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def world(device: str, gpus: int) -> Iterator[World]:
    """Joins the processes that torchrun started (nccl on GPUs, gloo on a CPU); alone without torchrun.

    After an error in its body nothing is shut down, and the process should end by leave().

    gpus: how many processes the config asks for, 0 or 1 for one. Another number is a UserError, since it could change
    which scores are ranked together.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size != max(gpus, 1):
        raise UserError(
            f"{size} processes were started but the config asks for {max(gpus, 1)}: "
            + (
                f"set runtime.split={size}, or gpus={size} for a run in which each ranks its own images"
                if size > 1
                else f"launch with torchrun --nproc-per-node={gpus} -m rankdet.train"
            )
        )
    target = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if size == 1:
        yield World(0, 1, target)
        return
    store, rank, _ = next(dist.rendezvous("env://"))
    own = dist.PrefixStore("processes", store)
    if target.type == "cuda":
        torch.cuda.set_device(target)
        dist.init_process_group("nccl", timeout=TIMEOUT, store=own, rank=rank, world_size=size, device_id=target)
    else:
        dist.init_process_group("gloo", store=own, rank=rank, world_size=size)
    yield World(rank, size, target, store)
    dist.destroy_process_group()  # not after an error: see leave()
