"""DR loss (CVPR 2020): the expected scores of the hardest positives and negatives, a margin apart."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from rankdet.losses.checks import check_tensors, find_positives
from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.scores import SigmoidScores, full_precision
from rankdet.losses.sums import interval_sums

NEG_LAMBDA = 0.1 / math.log(3.5)  # the released program's


def dr_loss(
    logits: Tensor,
    labels: Tensor,
    pos_lambda: float = 1.0,
    neg_lambda: float = NEG_LAMBDA,
    L: float = 6.0,
    tau: float = 4.0,
    margin: float = 0.5,
    *,
    images: Tensor | None = None,
    num_images: int | None = None,
    positives: Tensor | None = None,
) -> Tensor:
    """tau/L log(1 + exp(L (P- - P+ + margin))) (DR loss, CVPR 2020, supplement Sec. 1; tau: the released program).

    P- is the mean of the negatives' probabilities p under softmax(p / neg_lambda), P+ that of the positives' under
    softmax(-p / pos_lambda); both are differentiated weights and all. All four numbers but the margin are > 0.
    logits: float, any shape; half types are computed in float32, float64 in float64. labels: signed integer, same
    shape, in {1, 0, -1}; -1 takes no part.
    images: None: all scores are one distribution, as in the released program. Else int64, the image of every element
    along the leading axes of logits ([B] for logits [B, A, K], [N] for [N]), in 0 .. num_images - 1 in any order, and
    the losses of the images add up, as in the paper. Without num_images the device is waited for to find it.
    positives: int64 [P], the ascending flat indices of labels == 1, for callers that have them.

    Returns a scalar >= 0. Without positives P+ is 1 (the program's choice), which still pushes the negatives down;
    without negatives P- is 0 (ours); an image without either adds 0. There is always a gradient path, but no double
    backward. Shifting all logits changes the value. Raises ValueError naming the argument: numbers out of range, shapes
    that differ, labels or images of a wrong type or value, NaN or infinite logits (ignored ones too).
    """
    check_tensors(logits, labels)
    _check_positive(pos_lambda=pos_lambda, neg_lambda=neg_lambda, L=L, tau=tau)
    scores, labels = full_precision(logits.reshape(-1)), labels.reshape(-1)
    positives = find_positives(scores.detach(), labels, positives)
    index, num_images = _image_of_rows(images, num_images, logits)
    if scores.numel() == 0:
        return scores.sum()
    rows = scores.sigmoid().view(len(index), -1)
    upper, neg_total = _SoftMaximum.apply(rows, (labels == 0).view_as(rows), neg_lambda, index, num_images)
    p_pos = rows.view(-1)[positives, None]
    everyone = torch.ones_like(p_pos, dtype=torch.bool)
    pos_index = index[positives // rows.shape[1]]
    lower, pos_total = _SoftMaximum.apply(-p_pos, everyone, pos_lambda, pos_index, num_images)  # of -p, so -P+
    z = torch.where(neg_total > 0, upper, 0) + torch.where(pos_total > 0, lower, -1) + margin
    losses = torch.where(neg_total + pos_total > 0, -F.logsigmoid(-L * z), 0)
    return (tau / L * losses.sum()).to(scores.dtype)


class DRLoss(SigmoidScores, nn.Module):
    """dr_loss of the images on one GPU, times `weight`: pooled, or image by image and summed; arguments as there."""

    def __init__(
        self,
        pos_lambda: float = 1.0,
        neg_lambda: float = NEG_LAMBDA,
        L: float = 6.0,
        tau: float = 4.0,
        margin: float = 0.5,
        per_image: bool = False,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        _check_positive(pos_lambda=pos_lambda, neg_lambda=neg_lambda, L=L, tau=tau)
        self.pos_lambda, self.neg_lambda, self.L, self.tau, self.margin = pos_lambda, neg_lambda, L, tau, margin
        self.per_image, self.weight = per_image, weight

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The part "dr" is the loss before its weight."""
        logits, num_images = inputs.logits, len(inputs.logits) if self.per_image else None
        images = torch.arange(num_images, device=logits.device) if self.per_image else None
        numbers = (self.pos_lambda, self.neg_lambda, self.L, self.tau, self.margin)
        loss = dr_loss(
            logits, inputs.labels, *numbers, images=images, num_images=num_images, positives=inputs.positives
        )
        return LossOutput(self.weight * loss, {"dr": loss.detach()})


class _SoftMaximum(torch.autograd.Function):
    """float64 [G], twice: per image the mean of its values under softmax(values / temperature), and its weights' sum.

    values: float [R, M] in [-1, 1]; takes_part: bool [R, M]; index: int64 [R], the image of each row, below G. An
    image's largest value weighs 1, so the sum is at least 1, and 0 (the mean too) where nothing takes part.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, values: Tensor, takes_part: Tensor, temperature: float, index: Tensor, num_images: int
    ) -> tuple[Tensor, Tensor]:
        weights = torch.where(takes_part, values, -torch.inf)
        peak = values.new_full((num_images,), -1.0).scatter_reduce_(0, index, weights.amax(1), "amax")
        weights.sub_(peak[index, None]).div_(temperature).exp_()
        total = _sum_by_image(weights.sum(1, dtype=torch.float64), index, num_images)
        mean = _sum_by_image((weights * values).sum(1, dtype=torch.float64), index, num_images) / total.clamp(min=1)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(total)
        ctx.save_for_backward(values, weights, index, total, mean)
        return mean, total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
        values, weights, index, total, mean = ctx.saved_tensors
        # With q = weights / total: d mean / d v = q (1 + (v - mean) / temperature), the supplement's gradients.
        zero = (mean - ctx.temperature)[index, None].to(values.dtype)
        scale = (upstream / (total.clamp(min=1) * ctx.temperature))[index, None].to(values.dtype)
        return (values - zero).mul_(weights).mul_(scale), None, None, None, None


def _sum_by_image(rows: Tensor, index: Tensor, num_images: int) -> Tensor:
    """float64 [R] -> float64 [G], the same bits in every run."""
    return rows.sum()[None] if num_images == 1 else interval_sums(index, rows, num_images)


def _image_of_rows(images: Tensor | None, num_images: int | None, logits: Tensor) -> tuple[Tensor, int]:
    """int64 [R], the image of each of the R equal runs that make up the flat logits, and the number of images."""
    if images is None:
        return torch.zeros(1, dtype=torch.int64, device=logits.device), 1
    if images.dtype != torch.int64 or images.shape != logits.shape[: images.dim()] or images.device != logits.device:
        raise ValueError(
            f"images must be int64 with the leading axes of logits, on its device, got {images.dtype} "
            f"{tuple(images.shape)} on {images.device} for {tuple(logits.shape)} on {logits.device}"
        )
    index = images.reshape(-1)
    if len(index) == 0:
        return index, num_images or 0
    if num_images is None:
        num_images = int(index.max()) + 1
    lowest, highest = index.aminmax()
    in_range = (lowest >= 0) & (highest < num_images)
    if index.device.type != "cpu" or torch.compiler.is_compiling():
        torch._assert_async(in_range, "images must lie between 0 and num_images - 1")
    elif not in_range:
        raise ValueError(f"images must lie between 0 and {num_images - 1}, got {int(lowest)} to {int(highest)}")
    return index, num_images


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be positive, got {number}")
