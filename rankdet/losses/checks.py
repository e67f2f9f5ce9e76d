"""What every loss refuses, and where the positives are: at most one wait for the device."""

import torch
from torch import Tensor

RANGE = "labels must be 1, 0 or -1"
FINITE = "logits must be finite"


def check_tensors(logits: Tensor, labels: Tensor) -> None:
    """What can be told without looking at the values; ValueError names the argument."""
    if not logits.is_floating_point():
        raise ValueError(f"logits must be floating point, got {logits.dtype}")
    if labels.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64):
        raise ValueError(f"labels must be signed integers (1, 0, -1), got {labels.dtype}")
    if logits.shape != labels.shape:
        raise ValueError(f"labels must have the shape of logits, got {tuple(labels.shape)} for {tuple(logits.shape)}")
    if logits.device != labels.device:
        raise ValueError(f"labels must be on the device of logits, got {labels.device} for {logits.device}")


def holds(condition: Tensor, message: str) -> bool:
    """Whether a condition (bool scalar) holds, as far as the CPU can tell without waiting.

    On another device, and in a compiled graph, the answer is True: the condition is asserted there, and where it does
    not hold the program ends with the message.
    """
    if condition.device.type != "cpu" or torch.compiler.is_compiling():
        torch._assert_async(condition, message)
        return True
    return bool(condition)


def check_values(scores: Tensor, labels: Tensor) -> None:
    """Labels outside {1, 0, -1} and NaN or infinite scores (both flat): ValueError where `holds` can tell."""
    if scores.numel() == 0:
        return
    in_range = holds(_in_range(labels), RANGE)
    exact = scores.device.type != "cpu" or torch.compiler.is_compiling()  # then there is no asking again
    finite = holds(scores.isfinite().all() if exact else scores.sum().isfinite(), FINITE)
    _report(scores, labels, in_range, finite)


def check_finite(values: Tensor, name: str) -> None:
    """NaN or infinite `values`: ValueError naming the argument where `holds` can tell."""
    if not holds(values.isfinite().all(), f"{name} must be finite"):
        raise ValueError(f"{name} must be finite: {int((~values.isfinite()).sum())} of {values.numel()} are not")


def find_positives(scores: Tensor, labels: Tensor, positives: Tensor | None = None) -> Tensor:
    """int64 [P]: the flat indices of labels == 1, ascending, after check_values; `positives` itself where given.

    Without `positives` the device is waited for once, for their number and both checks together; ValueError names the
    values then. With them the checks are check_values' own.
    """
    if positives is not None or scores.numel() == 0 or scores.device.type == "cpu":
        check_values(scores, labels)
        return _ones(labels) if positives is None else positives
    positive = labels == 1
    facts = torch.stack((_in_range(labels).long(), scores.sum().isfinite().long(), positive.sum()))
    in_range, finite_sum, count = facts.tolist()
    _report(scores, labels, bool(in_range), bool(finite_sum))
    return positive.nonzero_static(size=count).squeeze(1)


def _ones(labels: Tensor) -> Tensor:
    """int64: where labels ([N]) are 1, ascending. Of bytes, of which few are not 0, eight at a time are looked at."""
    by_words = labels.dtype == torch.int8 and labels.device.type == "cpu" and not torch.compiler.is_compiling()
    if not by_words or labels.stride() != (1,) or len(labels) % 8 or labels.storage_offset() % 8:
        return (labels == 1).nonzero().squeeze(1)
    found = (8 * labels.view(torch.int64).nonzero() + torch.arange(8)).view(-1)
    return found[labels[found] == 1]


def _in_range(labels: Tensor) -> Tensor:
    lowest, highest = labels.aminmax()
    return (lowest >= -1) & (highest <= 1)


def _report(scores: Tensor, labels: Tensor, in_range: bool, finite_sum: bool) -> None:
    """Raises what is wrong. A sum is the cheapest pass that no NaN or infinity survives; it may overflow: ask again."""
    if not in_range:
        raise ValueError(f"{RANGE}, got values from {int(labels.min())} to {int(labels.max())}")
    if not finite_sum and not (finite := scores.isfinite()).all():
        bad = int((~finite).sum())
        first = int((~finite).nonzero()[0])
        raise ValueError(
            f"{FINITE}: {bad} of {scores.numel()} are NaN or infinite, "
            f"the first at flat index {first} ({scores[first].item()})"
        )
