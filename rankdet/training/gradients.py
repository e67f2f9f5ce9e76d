"""The gradient of one batch, whose images the losses rank together, in one pass of the network or in two."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rankdet.data.records import Batch, Target
from rankdet.errors import UserError
from rankdet.models.output import DetectorOutput
from rankdet.training.checkpoint import random_state, restore_random_state
from rankdet.training.split import drawn_alike, own_share, whole_batch
from rankdet.training.timing import Stopwatch

if TYPE_CHECKING:
    from rankdet.training.loop import Training


def backpropagate(training: "Training", batch: Batch, watch: Stopwatch) -> dict[str, Tensor]:
    """Adds the gradient of the batch's loss, scaled for fp16, to the weights'; the loss and its parts, detached.

    With training.micro_batch the network sees so many images at a time and keeps nothing of them: a first pass yields
    all outputs, the loss ranks the whole batch, and a second pass takes its gradients back through the network. The
    same gradient but for rounding, at the memory of a micro-batch and a third more time; batch norm, where it is
    trained, takes its statistics from a micro-batch. Raises FloatingPointError, naming step, parts and images, before
    a non-finite value gets anywhere.
    """
    t, images = training, batch.images.to(training.device, non_blocking=True)
    size = t.micro_batch or len(images)
    if size >= len(images):
        outputs = forward(t, images, batch.targets)
        watch.lap("forward")
        parts, gradients = losses_and_gradients(t, outputs, batch.targets, watch)
        torch.autograd.backward(heads(outputs), gradients)
        return parts

    shares = [slice(first, first + size) for first in range(0, len(images), size)]
    found, states = [], []
    with torch.no_grad(), statistics_kept(t.model):
        for share in shares:
            states.append(random_state())
            found.append(forward(t, images[share], batch.targets[share]))
    watch.lap("forward")
    outputs = [joined(of_stage) for of_stage in zip(*found, strict=True)]
    parts, gradients = losses_and_gradients(t, outputs, batch.targets, watch)
    del found
    drawn = random_state()
    for share, state in zip(shares, states, strict=True):
        restore_random_state(state)
        last = share is shares[-1]
        with nullcontext() if last or not hasattr(t.model, "no_sync") else t.model.no_sync():
            outputs = forward(t, images[share], batch.targets[share])
            torch.autograd.backward(heads(outputs), [gradient[share] for gradient in gradients])
    restore_random_state(drawn)
    return parts


def forward(training: "Training", images: Tensor, targets: list[Target]) -> Sequence[DetectorOutput]:
    """An output a stage. Only a detector of several stages is shown the targets.

    UserError for an image so small, and alone, that batch norm finds one value to take its statistics from.
    """
    try:
        with training.autocast():
            if len(training.stages) == 1:
                return (training.model(images),)
            return training.model(images, targets)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        height, width = images.shape[-2:]
        raise UserError(
            f"model.backbone.norm=bn: one image of {height} x {width} at a time leaves it one value to take statistics "
            "from; use larger images, a larger batch_size or micro_batch, or model.backbone.norm=gn"
        ) from error


def losses_and_gradients(
    training: "Training", outputs: Sequence[DetectorOutput], targets: list[Target], watch: Stopwatch
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The losses of all stages, added up, with their parts, and the gradients of heads(outputs), scaled for fp16.

    A loss works on float32 copies that are leaves of a graph of their own: autocast ends here, and the time of the
    loss, its backward included, can be told from the network's. With training.split the losses are the whole batch's,
    the gradients those of this process's images.
    """
    leaves = [head.detach().float().requires_grad_() for head in heads(outputs)]
    require_finite(sum(leaf.detach().sum() for leaf in leaves), training.step, {}, targets, "network output")
    pairs = zip(leaves[::2], leaves[1::2], strict=True)
    copies = [output._replace(logits=x, deltas=y) for output, (x, y) in zip(outputs, pairs, strict=True)]
    if training.split:
        copies, targets = whole_batch(copies, targets, training.split)
        leaves = [head.requires_grad_() for head in heads(copies)]
    sampled = any(stage.sampler for stage in training.stages)
    with drawn_alike(training.split) if training.split and sampled else nullcontext():
        inputs = [stage.assign(copy, targets) for stage, copy in zip(training.stages, copies, strict=True)]
    watch.lap("matching")
    losses = [stage.loss(of_stage) for stage, of_stage in zip(training.stages, inputs, strict=True)]
    parts = {name: value for loss in losses for name, value in loss.parts.items()}
    total = sum(loss.total for loss in losses)
    require_finite(total.detach(), training.step, parts, targets, "loss")
    total.backward()
    watch.lap("loss")
    own = [own_share(leaf.grad, training.split) if training.split else leaf.grad for leaf in leaves]
    scaled = [training.scaler.scale(gradient) for gradient in own]
    gradients = [gradient.to(head.dtype) for gradient, head in zip(scaled, heads(outputs), strict=True)]
    return {"loss": total.detach(), **parts}, gradients


def heads(outputs: Sequence[DetectorOutput]) -> list[Tensor]:
    """Logits and deltas of the first stage, then of the next: what gradients flow back through."""
    return [head for output in outputs for head in (output.logits, output.deltas)]


def joined(outputs: Sequence[DetectorOutput]) -> DetectorOutput:
    """One stage's outputs for shares of a batch as if they had come at once."""
    first = outputs[0]
    anchors = first.anchors if first.anchors.dim() == 2 else torch.cat([output.anchors for output in outputs])
    taking_part = None if first.taking_part is None else torch.cat([output.taking_part for output in outputs])
    logits, deltas = (torch.cat([getattr(output, name) for output in outputs]) for name in ("logits", "deltas"))
    return DetectorOutput(logits, deltas, anchors, first.level_sizes, taking_part)


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Within it, batch norm's running statistics stay as they are; what it computes is the same."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for module in norms:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in norms:
            module.track_running_stats = True


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
