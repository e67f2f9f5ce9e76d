"""The training loop: images in, one optimiser step out; everything else hangs on its hooks."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from rankdet.data.records import Batch, Target
from rankdet.errors import UserError
from rankdet.losses.criterion import Criterion
from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.models.output import DetectorOutput
from rankdet.training.schedule import StepSchedule
from rankdet.training.timing import Stopwatch

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Training:
    """What is trained, and by what."""

    model: nn.Module
    criterion: Criterion
    assign: Callable[[DetectorOutput, list[Target]], LossInputs]
    optimizer: Optimizer
    schedule: StepSchedule
    device: torch.device
    precision: str = "fp32"
    clip_grad_norm: float | None = None
    world_size: int = 1  # processes that share each batch
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
            group["lr"] = lr
        with t.autocast():
            output = t.model(batch.images.to(t.device, non_blocking=True))
        watch.lap("forward")
        loss, gradients = loss_and_gradients(t, output, batch.targets, watch)
        watch.lap("loss")
        t.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward([output.logits, output.deltas], gradients)
        t.scaler.unscale_(t.optimizer)
        norm = clip_grad_norm_(t.model.parameters(), t.clip_grad_norm or math.inf)
        if not t.scaler.is_enabled():  # which skips such a step and lowers its factor
            require_finite(norm, t.step, loss.parts, batch.targets, "gradient")
        t.scaler.step(t.optimizer)
        t.scaler.update()
        t.step += 1
        watch.lap("backward")
        report = StepReport(
            t.step, {"loss": loss.total.detach(), **loss.parts}, lr, norm, len(batch.targets) * t.world_size, watch
        )
        for hook in hooks:
            hook(report)
        watch.start()


def loss_and_gradients(
    training: Training, output: DetectorOutput, targets: list[Target], watch: Stopwatch
) -> tuple[LossOutput, list[Tensor]]:
    """The loss and its gradients with respect to the network's two outputs, scaled for fp16.

    The loss works on float32 copies that are leaves of a graph of their own: autocast ends here, and the time of the
    loss, its backward included, can be told from the network's.
    """
    logits = output.logits.detach().float().requires_grad_()
    deltas = output.deltas.detach().float().requires_grad_()
    require_finite(logits.detach().sum() + deltas.detach().sum(), training.step, {}, targets, "network output")
    inputs = training.assign(output._replace(logits=logits, deltas=deltas), targets)
    watch.lap("matching")
    loss = training.criterion(inputs)
    require_finite(loss.total.detach(), training.step, loss.parts, targets, "loss")
    loss.total.backward()
    scale = training.scaler.scale
    return loss, [scale(logits.grad).to(output.logits.dtype), scale(deltas.grad).to(output.deltas.dtype)]


def require_finite(value: Tensor, step: int, parts: dict[str, Tensor], targets: list[Target], what: str) -> None:
    """FloatingPointError if value is NaN or infinite."""
    if math.isfinite(float(value)):
        return
    detail = "".join(f", {name}={float(part):.4g}" for name, part in parts.items())
    images = ", ".join(str(target.image_id) for target in targets)
    raise FloatingPointError(
        f"step {step}: the {what} is not finite{detail}; image ids of the batch: {images}. "
        "The weights are untouched; try a lower schedule.lr, clip_grad_norm or precision=fp32"
    )
