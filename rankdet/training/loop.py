"""The training loop: images in, one optimiser step out; everything else hangs on its hooks."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from rankdet.data.records import Batch
from rankdet.errors import UserError
from rankdet.training.distributed import World
from rankdet.training.gradients import backpropagate, require_finite
from rankdet.training.schedule import StepSchedule
from rankdet.training.stage import Stage
from rankdet.training.timing import Stopwatch

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Training:
    """What is trained, and by what."""

    model: nn.Module
    stages: Sequence[Stage]  # what each of its outputs learns by
    optimizer: Optimizer
    schedule: StepSchedule
    device: torch.device
    precision: str = "fp32"
    clip_grad_norm: float | None = None
    world_size: int = 1  # processes that share each batch
    micro_batch: int = 0  # images that the network sees at a time; 0: a process's whole share
    split: World | None = None  # the processes over whose images the losses range; None: over this one's
    step: int = 0  # optimiser steps done
    scaler: torch.amp.GradScaler = field(init=False)

    def __post_init__(self) -> None:
        """Refuses slips; fp16 alone needs its gradients scaled."""
        if self.precision not in AUTOCAST:
            raise UserError(f"precision={self.precision}: must be one of {', '.join(AUTOCAST)}")
        clip = self.clip_grad_norm
        if clip is not None and not (isinstance(clip, int | float) and clip > 0):
            raise UserError(f"clip_grad_norm={clip}: must be a positive number, or null for no clipping")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def autocast(self) -> AbstractContextManager[None]:
        """The context of the forward pass."""
        dtype = AUTOCAST[self.precision]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)


@dataclass(frozen=True)
class StepReport:
    """One step, as the hooks see it."""

    step: int  # steps done, this one included
    parts: dict[str, Tensor]  # the loss and its parts, detached, on the device
    lr: float
    grad_norm: Tensor  # 2-norm of the whole gradient before clipping
    images: int  # of all processes
    stopwatch: Stopwatch


def train(training: Training, batches: Iterable[Batch], hooks: list[Callable[[StepReport], None]]) -> None:
    """Takes one optimiser step a batch until batches end; calls every hook after each.

    Raises FloatingPointError, naming step, parts and images, before a non-finite value reaches the weights.
    """
    t = training
    watch = Stopwatch(t.device)
    t.model.train()
    for batch in batches:
        watch.lap("data")
        lr = t.schedule(t.step)
        for group in t.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        t.optimizer.zero_grad(set_to_none=True)
        parts = backpropagate(t, batch, watch)
        t.scaler.unscale_(t.optimizer)
        gradients = [p.grad for p in t.model.parameters() if p.grad is not None]
        norm = get_total_norm(gradients)
        if t.clip_grad_norm:
            clip_grads_with_norm_(t.model.parameters(), t.clip_grad_norm, norm)
        if not t.scaler.is_enabled():  # which skips such a step and lowers its factor
            require_finite(norm, t.step, parts, batch.targets, "gradient")
        t.scaler.step(t.optimizer)
        t.scaler.update()
        t.step += 1
        watch.lap("backward")
        report = StepReport(t.step, parts, lr, norm, len(batch.targets) * t.world_size, watch)
        for hook in hooks:
            hook(report)
        watch.start()
