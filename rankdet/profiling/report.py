"""Measurements as text that reads in a terminal, as CSV and as one JSON object."""

import os
from typing import Any

import torch
from tabulate import tabulate

from rankdet.files import as_csv
from rankdet.profiling.contestants import YARDSTICK
from rankdet.profiling.goals import GROWS, MEMORY, TIME, Outcome, Slope
from rankdet.profiling.plots import TITLES
from rankdet.profiling.problems import STAGES
from rankdet.profiling.sweeps import Measurement
from rankdet.training.provenance import provenance

MIB = 2**20
COLUMNS = (
    "x focal: time, or memory, over that of torchvision's focal loss on the same scores. none: the plain sum of the "
    "scores, for what a network's gradient costs without a loss."
)
GOALS = (
    "Measured: the quotient that the goal limits; *met* where it keeps to the limit, whatever the turns' spread. Each "
    "is of two medians: one within some percent of its limit may come out otherwise the next time."
)
SLOPES = (
    "The exponent b of a x^b, fitted to the sizes from a tenth of the largest on: 1 where cost grows as fast as what "
    "is named, 0 where it does not grow. -: fewer than three sizes measured."
)


def about(device: torch.device) -> dict[str, Any]:
    """Where and with what was measured: provenance, the kind of device, torch's threads, settings of the allocator.

    The latter matter beyond 8 million scores: glibc maps blocks over 32 MiB anew each time, and the kernel clears them.
    """
    allocator = {key: value for key, value in sorted(os.environ.items()) if key.startswith(("MALLOC_", "GLIBC_TUN"))}
    return {
        "device": device.type, "threads": torch.get_num_threads(), "allocator": allocator, **provenance(device)
    }  # fmt: skip


def machine(where: dict[str, Any]) -> str:
    """The device, its threads if it is a CPU, torch's version and the date."""
    threads = f", {where['threads']} thread{'s' if where['threads'] > 1 else ''}" if where["device"] == "cpu" else ""
    return f"{where['hardware']}{threads}; torch {where['torch']}; {where['date']}"


def markdown(
    where: dict[str, Any], measurements: list[Measurement], outcomes: list[Outcome], slopes: list[Slope]
) -> str:
    """The losses at each stage of training, the goals with verdicts, and the slopes."""
    parts = ["# What the losses cost", _origin(where)]
    for stage in STAGES:
        rows = [row for row in measurements if row.sweep == stage]
        size = f"{rows[0].scores:,} scores of {rows[0].images} images, {rows[0].positives} positives"
        parts += [f"## {stage.capitalize()} in training: {size}", _costs(rows)]
    growth = "## Slopes of log time and log memory, over each loss's last decade of sizes"
    parts += [COLUMNS, "## Goals", _verdicts(outcomes), GOALS, growth, _exponents(slopes), SLOPES]
    return "\n\n".join([*parts, *(f"![{title}]({name})" for name, title in TITLES.items())]) + "\n"


def csv_text(measurements: list[Measurement]) -> str:
    """One line per measurement; seconds and bytes unrounded, an empty cell where memory could not be told."""
    return as_csv(Measurement._fields, measurements)


def as_json(
    where: dict[str, Any], measurements: list[Measurement], outcomes: list[Outcome], slopes: list[Slope]
) -> dict[str, Any]:
    """Everything, for write_json."""
    return {
        "about": where,
        "measurements": [row._asdict() for row in measurements],
        "goals": [
            {**each.goal._asdict(), "text": str(each.goal), "value": each.value, "verdict": each.verdict}
            for each in outcomes
        ],
        "slopes": [slope._asdict() for slope in slopes],
    }


def _origin(where: dict[str, Any]) -> str:
    commit = f"commit {where['commit'] or 'unknown'}{' and changes' if where['dirty'] else ''}"
    how = (
        "the most that torch has allocated at a time"
        if where["device"] == "cuda"
        else "the largest resident set (VmHWM, with every block of 64 KiB or more mapped on its own)"
    )
    allocator = "".join(f"; {key}={value}" for key, value in where["allocator"].items())
    return (
        f"{machine(where)}; torchvision {where['torchvision']}; {commit}{allocator}.\n"
        "Time: forward and backward, median of interleaved repeats. "
        f"Memory: {how} above the inputs; the gradient is part of it."
    )


def _costs(rows: list[Measurement]) -> str:
    """The losses of one problem beside the yardstick."""
    yard = next(row for row in rows if row.loss == YARDSTICK)
    headers = ["loss", "ms", "x focal", "MiB", "x focal", "repeats"]
    body = [
        [
            row.loss,
            f"{1000 * row.seconds:.1f}",
            f"{row.seconds / yard.seconds:.2f}",
            "-" if row.peak_bytes is None else f"{row.peak_bytes / MIB:.1f}",
            f"{row.peak_bytes / yard.peak_bytes:.2f}" if row.peak_bytes and yard.peak_bytes else "-",
            row.repeats,
        ]
        for row in rows
    ]
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=["left", *["right"] * 5])


def _verdicts(outcomes: list[Outcome]) -> str:
    body = [[str(each.goal), "-" if each.value is None else f"{each.value:.2f}", each.verdict] for each in outcomes]
    headers = ["goal", "measured", "verdict"]
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=["left", "right", "left"])


def _exponents(slopes: list[Slope]) -> str:
    """A row per loss; a pair of columns, time and memory, per sweep."""
    table = {(slope.loss, slope.sweep, slope.quantity): slope.exponent for slope in slopes}
    columns = [(sweep, quantity) for sweep in GROWS for quantity in (TIME, MEMORY)]
    words = {TIME: "time", MEMORY: "memory"}
    headers = ["loss", *(f"{words[quantity]}, {sweep}" for sweep, quantity in columns)]
    body = [
        [loss, *(f"{table[loss, *column]:.2f}" if (loss, *column) in table else "-" for column in columns)]
        for loss in dict.fromkeys(slope.loss for slope in slopes)
    ]
    align = ["left", *["right"] * len(columns)]
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=align)
