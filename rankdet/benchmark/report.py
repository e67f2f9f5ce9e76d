"""The measurements as text that reads in a terminal, and as CSV."""

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from rankdet.benchmark.contestants import NONE, Contestant
from rankdet.benchmark.goals import duels
from rankdet.benchmark.inputs import Setup
from rankdet.benchmark.sweeps import BY_LOSS, BY_OPTION, LAPS, RACE, Measurement
from rankdet.files import as_csv
from rankdet.profiling.report import MIB, machine


def markdown(where: dict[str, Any], what: str, setup: Setup, rows: Sequence[Measurement], notes: Sequence[str]) -> str:
    """where: profiling.report.about; what: the data; notes: sentences that a reader of the figures has to know."""
    of = {name: [row for row in rows if row.sweep == name] for name in (RACE, BY_LOSS, BY_OPTION)}
    options_head = f"## Options: {_size(of[BY_OPTION])}, {of[BY_OPTION][0].images} images a step"
    parts = [
        "# What a training step costs",
        "\n".join([_origin(where, what, setup), *notes]),
        f"## Beside torchvision: {_size(of[RACE])}, focal loss and smooth L1 against torchvision's focal loss and L1",
        _race(rows),
        "![images a second and peak memory against the batch size](race.png)",
        "## Where a step's time goes",
        _shares(of[RACE]),
        "![shares of a step](shares.png)",
        f"## Losses: {_size(of[BY_LOSS])}",
        _losses(of[BY_LOSS]),
        "![a loss's time and a step's against the batch size](time_against_batch.png)",
        "![peak memory of training against the batch size](memory_against_batch.png)",
        options_head,
        _options(of[BY_OPTION]),
    ]
    return "\n\n".join(parts) + "\n"


def csv_text(rows: Sequence[Measurement]) -> str:
    """One line per measurement; seconds and bytes unrounded, an empty cell where there is no such lap or memory.

    seconds is the median of turns_seconds, which are separated by semicolons."""
    numbers = ("size", "images", "seconds", "images_per_second", "repeats", "peak_bytes")
    header = ["sweep", *Contestant._fields, *numbers, *(f"{lap}_seconds" for lap in LAPS), "turns_seconds"]
    lines = [
        [
            row.sweep,
            *row.contestant,
            *(getattr(row, name) for name in numbers),
            *map(row.laps.get, LAPS),
            ";".join(map(str, row.turns)),
        ]
        for row in rows
    ]
    return as_csv(header, lines)


def as_json(where: dict[str, Any], setup: Setup, rows: Sequence[Measurement]) -> dict[str, Any]:
    """The same with where it was measured, for write_json; make plan reckons with it."""
    measurements = [
        {
            "sweep": row.sweep,
            **row.contestant._asdict(),
            "size": row.size,
            "images": row.images,
            "seconds": row.seconds,
            "images_per_second": row.images_per_second,
            "repeats": row.repeats,
        }
        for row in rows
    ]
    return {"about": where, "backbone": setup.backbone, "num_classes": setup.num_classes, "measurements": measurements}


def _origin(where: dict[str, Any], what: str, setup: Setup) -> str:
    commit = f"commit {where['commit'] or 'unknown'}{' and changes' if where['dirty'] else ''}"
    how = (
        "the most that torch has allocated at a time"
        if where["device"] == "cuda"
        else "weights, gradients, momentum and what a step adds to the resident set at its worst (VmHWM), in a process "
        "that maps every block of 64 KiB or more on its own"
    )
    allocator = "".join(f"; {key}={value}" for key, value in where["allocator"].items())
    return (
        f"{machine(where)}; torchvision {where['torchvision']}; {commit}{allocator}.\n"
        f"RetinaNet on {setup.backbone}, {setup.num_classes} classes, 6 anchors a cell, four-conv heads, SGD with "
        "momentum; random weights; batch norm frozen, stem and first stage too. torchvision's is built the same: "
        "6 anchors instead of its 9, P6 from C5, its resizing of images left out.\n"
        f"Images: {what}, read and augmented in the training process. Both sides get the same batches. Weights do not "
        "move, so scores are those of a training's start, where ranking losses cost most.\n"
        "Time: a step from reading its images to the optimiser's, median of repeats in turns. Times as fast: the "
        "median of the turns' quotients. "
        f"Memory: {how}."
    )


def _size(rows: Sequence[Measurement]) -> str:
    return f"{rows[0].size} x {rows[0].size}"


def _race(rows: Sequence[Measurement]) -> str:
    """The duels, with the verdict on each."""
    headers = ["ours", "images a step", "images/s", "torchvision's", "times as fast", "in its turns", "not slower"]
    headers += ["MiB", "torchvision's", "x", "repeats"]
    body = [
        [
            "channels last" if each.ours.contestant.channels_last else "channels first",
            each.ours.images,
            f"{each.ours.images_per_second:.2f}",
            f"{each.theirs.images_per_second:.2f}",
            f"{each.speed:.2f}",
            f"{each.speeds[0]:.2f} to {each.speeds[-1]:.2f}",
            each.verdict,
            _mib(each.ours.peak_bytes),
            _mib(each.theirs.peak_bytes),
            "-" if each.memory is None else f"{each.memory:.2f}",
            f"{each.ours.repeats}, {each.theirs.repeats}",
        ]
        for each in duels(rows)
    ]
    text = (
        "In its turns: the least and the largest of the turns' quotients. Not slower: *met* where their median is at "
        "least 1, which two equal steps reach in about half of all measurements; *no difference seen* where it is "
        "less, but ours was as fast in one turn at least; *not met* where it was so in none. x: our memory over "
        "torchvision's."
    )
    return f"{_table(headers, body)}\n\n{text}"


def _shares(rows: Sequence[Measurement]) -> str:
    """Percent of a step. torchvision matches within the loss, whose backward pass is the network's."""
    headers = ["detector", "images", "s a step", *(f"{lap}, %" for lap in LAPS)]
    body = []
    for row in sorted(rows, key=lambda row: str(row.contestant)):
        shares = [row.share(lap) for lap in LAPS]
        percent = ["-" if share is None else f"{100 * share:.1f}" for share in shares]
        body.append([str(row.contestant), row.images, f"{row.seconds:.3g}", *percent])
    text = (
        "Our loss includes its own backward pass; torchvision's includes matching, and its backward pass is under "
        "backward, as the optimiser is on both sides."
    )
    return f"{_table(headers, body)}\n\n{text}"


def _losses(rows: Sequence[Measurement]) -> str:
    """The iteration side of AP-loss Figs. 9 and 11; the memory of a loss is its difference to none."""
    none = {row.images: row.peak_bytes for row in rows if row.contestant.loss == NONE}
    headers = ["loss", "images", "ms of the loss", "s a step", "loss, %", "MiB", "more than none", "repeats"]
    body = []
    for row in sorted(rows, key=lambda row: row.images):
        base = none.get(row.images)
        more = None if row.peak_bytes is None or base is None else (row.peak_bytes - base) / MIB
        cells = [row.contestant.loss, row.images, f"{1000 * row.laps['loss']:.1f}", f"{row.seconds:.3g}"]
        cells += [f"{100 * (row.share('loss') or 0):.1f}", _mib(row.peak_bytes)]
        body.append([*cells, "-" if more is None else f"{more:.1f}", row.repeats])
    text = (
        "none: the plain sum of the network's outputs, for what a loss adds to it. Less than none, or a step that is "
        "faster with a loss of more milliseconds, is the measurement's own error: so large are differences that mean "
        "nothing."
    )
    return f"{_table(headers, body)}\n\n{text}"


def _options(rows: Sequence[Measurement]) -> str:
    """Each side's options beside its default, which comes first."""
    first = {}
    for row in rows:
        first.setdefault(row.contestant.side, row)
    headers = ["", "images/s", "x default", "MiB", "x default", "repeats"]
    body = []
    for row in rows:
        default = first[row.contestant.side]
        memory = row.peak_bytes / default.peak_bytes if row.peak_bytes and default.peak_bytes else None
        cells = [str(row.contestant), f"{row.images_per_second:.2f}", f"{default.seconds / row.seconds:.2f}"]
        body.append([*cells, _mib(row.peak_bytes), "-" if memory is None else f"{memory:.2f}", row.repeats])
    text = (
        "x default: times as many images/s, or as much memory, as the same side without the option. Ours is channels "
        "last by default, torchvision's channels first."
    )
    return f"{_table(headers, body)}\n\n{text}"


def _mib(count: int | None) -> str:
    return "-" if count is None else f"{count / MIB:,.0f}"


def _table(headers: list[str], body: list[list[Any]]) -> str:
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=align)
