"""The time of calls, by interleaved repeats."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

Call = Callable[[], None]

LEAST_REPEATS = 3


class Budget(NamedTuple):
    """When a call has been repeated enough."""

    seconds: float  # spent on it, after at least LEAST_REPEATS, or after the first if that alone took longer
    repeats: int  # at most


def interleaved(calls: Mapping[str, Call], device: torch.device, budget: Budget) -> dict[str, list[float]]:
    """Seconds of every call, repeated in turns (A B C A B C ...) until its budget is spent.

    The first turn warms up and is not in the lists, but for a call that it alone was enough for.
    """
    if device.type == "cuda":  # whose first calls load kernels and choose among them, for seconds
        for call in calls.values():
            call()
    first = {name: seconds(call, device) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    left = [name for name in calls if first[name] < budget.seconds]
    while left:
        for name in left:
            times[name].append(seconds(calls[name], device))
        left = [name for name in left if not _enough(times[name], budget)]
    return {name: each or [first[name]] for name, each in times.items()}


def seconds(call: Call, device: torch.device) -> float:
    """What one call takes; on a GPU, from its first to its last kernel, on the GPU's own clock."""
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000


def _enough(times: list[float], budget: Budget) -> bool:
    return len(times) >= budget.repeats or (len(times) >= LEAST_REPEATS and sum(times) >= budget.seconds)
