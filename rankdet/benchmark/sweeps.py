"""Who competes at which sizes, and the measuring of them all."""

import gc
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from rankdet.benchmark.contestants import LOSSES, OUR_DEFAULT, THEIR_DEFAULT, Contestant
from rankdet.benchmark.inputs import Setup, batches
from rankdet.benchmark.memory import peaks
from rankdet.benchmark.steps import make_step
from rankdet.errors import UserError
from rankdet.profiling.memory import gauge_process
from rankdet.profiling.timing import Budget, interleaved
from rankdet.training.compiled import compiled

RACE, BY_LOSS, BY_OPTION = "race", "losses", "options"  # names of sweeps
LAPS = ("data", "forward", "matching", "loss", "backward")


class Sweep(NamedTuple):
    """Some contestants, in turns, at one input size and some batch sizes, smallest first."""

    name: str
    size: int  # pixels, height and width
    images: tuple[int, ...]
    contestants: tuple[Contestant, ...]
    budget: Budget


class Measurement(NamedTuple):
    """A contestant's step at one size."""

    sweep: str
    contestant: Contestant
    size: int
    images: int
    turns: tuple[float, ...]  # seconds of each repeat; the contestants of a sweep take turns
    laps: dict[str, float]  # median seconds of each of LAPS that the contestant has
    peak_bytes: int | None  # weights and momentum included

    @property
    def seconds(self) -> float:
        """The median repeat's."""
        return statistics.median(self.turns)

    @property
    def repeats(self) -> int:
        """How often it was measured."""
        return len(self.turns)

    @property
    def images_per_second(self) -> float:
        """Of training, reading the images included."""
        return self.images / self.seconds

    def share(self, lap: str) -> float | None:
        """What part of all laps it takes; None where it is part of another."""
        return self.laps[lap] / sum(self.laps.values()) if lap in self.laps else None


def plan(size: int, small_size: int, images: tuple[int, ...], budget: Budget, compiles: bool) -> list[Sweep]:
    """The race at `size`, ours in either layout, as the faster one depends on network and device; losses and options,
    of which there are many, at small_size, the latter at one batch size and with a sixth of the time, since bf16 can
    take ten times as long on a CPU that does not have it.

    compiles: whether torch.compile works here.
    """
    at = images[(len(images) - 1) // 2]
    losses = tuple(OUR_DEFAULT._replace(loss=loss) for loss in LOSSES)
    return [
        Sweep(RACE, size, images, (OUR_DEFAULT, OUR_DEFAULT._replace(channels_last=False), THEIR_DEFAULT), budget),
        Sweep(BY_LOSS, small_size, images, losses, budget),
        Sweep(BY_OPTION, small_size, (at,), options(at, compiles), budget._replace(seconds=budget.seconds / 6)),
    ]


def options(images: int, compiles: bool) -> tuple[Contestant, ...]:
    """Both sides by default and with one option each; micro-batches where a batch can be parted."""
    ours, theirs = OUR_DEFAULT, THEIR_DEFAULT
    return (
        ours,
        ours._replace(channels_last=False),
        *([ours._replace(compiled=True)] if compiles else []),
        ours._replace(precision="bf16"),
        ours._replace(checkpoint=True),
        *([ours._replace(micro_batch=1)] if images > 1 else []),
        theirs,
        theirs._replace(channels_last=True),
        theirs._replace(precision="bf16"),
    )


def compiler_works(device: torch.device) -> bool:
    """Whether torch.compile does, which needs a C++ compiler, and on a GPU triton."""
    try:
        compiled(nn.Identity(), device)
    except UserError:
        return False
    return True


def measure(
    sweeps: Sequence[Sweep], setup: Setup, device: torch.device, progress: Callable[[str], None]
) -> list[Measurement]:
    """All times, then all memory; tells `progress` what it is at: num_stops(sweeps) times."""
    times = {}
    for sweep in sweeps:
        times |= _times(sweep, setup, device, progress)
    memory = _memory(sweeps, setup, device, progress)
    rows = []
    for (name, contestant, size, images), (seconds, laps) in times.items():
        median_laps = {lap: statistics.median(each[lap] for each in laps) for lap in LAPS if lap in laps[0]}
        place = (name, contestant, size, images)
        peak = memory[contestant, size, images]
        rows.append(Measurement(*place, tuple(seconds), median_laps, peak))
    return rows


def num_stops(sweeps: Sequence[Sweep]) -> int:
    """How often measure() calls `progress`."""
    return sum(len(sweep.images) for sweep in sweeps) + len({each for sweep in sweeps for each in sweep.contestants})


Place = tuple[str, Contestant, int, int]  # sweep, contestant, size, images


def _times(
    sweep: Sweep, setup: Setup, device: torch.device, progress: Callable[[str], None]
) -> dict[Place, tuple[list[float], list[dict[str, float]]]]:
    """Seconds and laps of every repeat."""
    found = {}
    steps = {contestant: make_step(contestant, setup, device) for contestant in sweep.contestants}
    for images in sweep.images:
        progress(f"time: {sweep.name}, {images} images of {sweep.size} x {sweep.size}")
        calls = {}
        for contestant, step in steps.items():
            stream = batches(setup, sweep.size, images)
            if contestant.compiled:
                step(stream)  # else compiling would seem to be its first, slow repeat
            calls[contestant] = partial(step, stream)
        for contestant, seconds in interleaved(calls, device, sweep.budget).items():
            place = (sweep.name, contestant, sweep.size, images)
            found[place] = (seconds, steps[contestant].laps[-len(seconds) :])
    del steps, calls
    gc.collect()
    return found


def _memory(
    sweeps: Sequence[Sweep], setup: Setup, device: torch.device, progress: Callable[[str], None]
) -> dict[tuple[Contestant, int, int], int | None]:
    """(contestant, size, images) -> its peak."""
    wanted: dict[Contestant, set[tuple[int, int]]] = {}
    for sweep in sweeps:
        for contestant in sweep.contestants:
            wanted.setdefault(contestant, set()).update((sweep.size, images) for images in sweep.images)
    found = {}
    with gauge_process() if device.type == "cpu" else nullcontext() as process:
        if process is not None:  # the first would pay for what a process loads only once
            first, places = next(iter(wanted.items()))
            least = min(size for size, _ in places)
            process.submit(peaks, first, setup, sorted(place for place in places if place[0] == least), device).result()
        for contestant, places in wanted.items():
            progress(f"memory: {contestant}, {contestant.loss}")
            arguments = (contestant, setup, sorted(places), device)
            measured = peaks(*arguments) if process is None else process.submit(peaks, *arguments).result()
            found |= {(contestant, *place): peak for place, peak in zip(sorted(places), measured, strict=True)}
    return found
