"""Which losses are measured at which sizes, and the measuring of them all."""

import gc
import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch

from rankdet.profiling.contestants import (
    ALRP,
    AP,
    AP_GIVEN,
    AP_SIGMOID,
    AUC,
    BCE,
    FOCAL,
    LOOP,
    MATRIX,
    NONE,
    OHEM,
    PARAMETERIZED,
    RANK_SORT,
    YARDSTICK,
    Loss,
    losses,
)
from rankdet.profiling.memory import gauge_process, peak_bytes
from rankdet.profiling.problems import Problem, Size, make_problem
from rankdet.profiling.timing import Budget, Call, interleaved

CURVES = (YARDSTICK, BCE, AP, AP_GIVEN, AP_SIGMOID, AUC, ALRP, RANK_SORT, PARAMETERIZED, LOOP)
FIGURES = (NONE, YARDSTICK, FOCAL, OHEM, AUC, AP, AP_GIVEN)
WARM_UP = Size(1, 50, 20, 10)
TOO_SLOW = 4.0  # seconds of one call, after which a loss is left out of the sweep's larger sizes


class Sweep(NamedTuple):
    """Some losses at some sizes, smallest first."""

    name: str
    sizes: tuple[Size, ...]
    losses: tuple[str, ...]
    budget: Budget


class Measurement(NamedTuple):
    """One loss at one size: a row of the CSV."""

    sweep: str
    loss: str
    stage: str
    images: int
    scores: int
    positives: int
    seconds: float  # forward and backward, median
    repeats: int
    peak_bytes: int | None  # beyond the inputs, the gradient included


def full_sweeps(every: Iterable[str]) -> list[Sweep]:
    """8 x 32 736 x 20 scores with 800 positives, as many as RetinaNet has in a batch of VOC, and curves around them."""
    all_but_matrix = tuple(name for name in every if name != MATRIX)
    all_but_loops = tuple(name for name in all_but_matrix if name != LOOP)
    main, side = Budget(2.0, 11), Budget(0.7, 7)
    anchors = [count // 160 for count in (10**5, 2 * 10**5, 5 * 10**5, 10**6, 2 * 10**6, 5 * 10**6, 10**7, 2 * 10**7)]
    positives = (10, 30, 100, 300, 1000, 3000, 10_000)
    pairs = (1000, 2000, 4000, 8000, 16_000)
    return [
        Sweep("early", (Size(8, 32_736, 20, 800),), all_but_matrix, main),
        Sweep("midway", (Size(8, 32_736, 20, 800, "midway"),), all_but_loops, main),
        Sweep("late", (Size(8, 32_736, 20, 800, "late"),), all_but_matrix, main),
        Sweep("scores", tuple(Size(8, each, 20, 800) for each in anchors), CURVES, side),
        Sweep("positives", tuple(Size(8, 32_736, 20, each) for each in positives), CURVES, side),
        Sweep("batch", tuple(Size(n, 32_736, 20, 100 * n, "late") for n in (1, 2, 4, 8, 16)), FIGURES, side),
        Sweep("pairs", tuple(Size(1, each // 20, 20, each // 10) for each in pairs), (YARDSTICK, AP, MATRIX), side),
    ]


def quick_sweeps(every: Iterable[str]) -> list[Sweep]:
    """The same sweeps at sizes that take seconds in all; their times mean nothing."""
    all_but_matrix = tuple(name for name in every if name != MATRIX)
    quick = Budget(0.02, 3)
    return [
        Sweep("early", (Size(2, 100, 20, 20),), all_but_matrix, quick),
        Sweep("midway", (Size(2, 100, 20, 20, "midway"),), (YARDSTICK, AP), quick),
        Sweep("late", (Size(2, 100, 20, 20, "late"),), all_but_matrix, quick),
        Sweep("scores", tuple(Size(1, each, 20, 20) for each in (50, 100, 500)), CURVES, quick),
        Sweep("positives", tuple(Size(2, 100, 20, each) for each in (3, 10, 30)), CURVES, quick),
        Sweep("batch", tuple(Size(n, 100, 20, 10 * n, "late") for n in (1, 2)), FIGURES, quick),
        Sweep(
            "pairs", tuple(Size(1, each // 20, 20, each // 10) for each in (100, 400)), (YARDSTICK, AP, MATRIX), quick
        ),
    ]


def measure(sweeps: list[Sweep], device: torch.device, progress: Callable[[str], None]) -> list[Measurement]:
    """All times, then all memory; tells `progress` what it is at."""
    times = _times(sweeps, device, progress)
    rows = []
    with gauge_process() if device.type == "cpu" else nullcontext() as process:
        for (sweep, size), seconds in times.items():
            progress(f"memory: {sweep}, {size.scores:,} scores, {size.positives} positives")
            arguments = (size, tuple(seconds), device)
            peaks = peaks_at(*arguments) if process is None else process.submit(peaks_at, *arguments).result()
            for loss, each in seconds.items():
                place = (size.stage, size.images, size.scores, size.positives)
                rows.append(Measurement(sweep, loss, *place, statistics.median(each), len(each), peaks[loss]))
    return rows


def peaks_at(size: Size, names: Sequence[str], device: torch.device) -> dict[str, int | None]:
    """The peak of every loss at one size, after a run on a small problem that leaves behind what only first runs do."""
    calls, small, problem = losses(device), make_problem(WARM_UP, device), make_problem(size, device)
    gc.collect()
    for name in names:
        _call(calls[name], small)()
    return {name: peak_bytes(_call(calls[name], problem), device) for name in names}


def _times(
    sweeps: list[Sweep], device: torch.device, progress: Callable[[str], None]
) -> dict[tuple[str, Size], dict[str, list[float]]]:
    """(sweep, size) -> loss -> seconds of its repeats."""
    calls = losses(device)
    times = {}
    for sweep in sweeps:
        chosen = list(sweep.losses)
        for size in sweep.sizes:
            progress(f"time: {sweep.name}, {size.scores:,} scores, {size.positives} positives")
            problem = make_problem(size, device)
            found = interleaved({name: _call(calls[name], problem) for name in chosen}, device, sweep.budget)
            times[sweep.name, size] = found
            chosen = [name for name in chosen if min(found[name]) < TOO_SLOW]
    return times


def _call(loss: Loss, problem: Problem) -> Call:
    return partial(_forward_and_backward, loss, problem)


def _forward_and_backward(loss: Loss, problem: Problem) -> None:
    loss(problem).backward()
    problem.clear_gradients()
