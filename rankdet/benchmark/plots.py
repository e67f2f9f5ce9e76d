"""The race, where a step's time goes, and the iteration side of AP-loss Figs. 9 and 11."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from rankdet.benchmark.contestants import NONE, OURS, THEIRS
from rankdet.benchmark.sweeps import BY_LOSS, LAPS, RACE, Measurement
from rankdet.files import replacing
from rankdet.profiling.report import MIB

LOOKS = {  # of a curve: a contestant's in the race, or one of our losses'
    OURS: ("#d62728", "o"), f"{OURS}, channels first": ("#ff7f0e", "^"), THEIRS: ("#000000", "s"),
    NONE: ("#999999", "."), "focal": ("#7f7f7f", "h"), "ce_ohem": ("#aec7e8", "d"), "auc": ("#2ca02c", "<"),
    "ap": ("#d62728", "v"),
}  # fmt: skip
LAP_COLORS = dict(zip(LAPS, ("#bcbd22", "#1f77b4", "#9467bd", "#d62728", "#aec7e8"), strict=True))
PANEL = (5.4, 4.2)  # inches
DPI = 120

Value = Callable[[Measurement], float | None]


def save_plots(rows: Sequence[Measurement], machine: str, folder: Path) -> list[Path]:
    """Writes one PNG per figure; machine: shown under the titles. Equal measurements, equal bytes."""
    race, losses = ([row for row in rows if row.sweep == name] for name in (RACE, BY_LOSS))
    size = {row.sweep: f"{row.size} x {row.size}" for row in rows}
    paths = []
    for name, title, panels in (
        (
            "race.png",
            f"A training step of RetinaNet at {size[RACE]}",
            [
                lambda axis: _curves(axis, race, "images/s", lambda row: row.images_per_second),
                lambda axis: _curves(axis, race, "peak memory (MiB)", _memory),
            ],
        ),
        ("shares.png", f"Where a training step's time goes, {size[RACE]}", [lambda axis: _shares(axis, race)]),
        (
            "memory_against_batch.png",
            f"Iteration side of AP-loss Fig. 9, {size[BY_LOSS]}",
            [lambda axis: _curves(axis, losses, "peak memory of training (MiB)", _memory)],
        ),
        (
            "time_against_batch.png",
            f"Iteration side of AP-loss Fig. 11, {size[BY_LOSS]}",
            [
                lambda axis: _curves(axis, losses, "seconds of the loss", lambda row: row.laps["loss"]),
                lambda axis: _curves(axis, losses, "seconds of a step", lambda row: row.seconds),
            ],
        ),
    ):
        paths.append(folder / name)
        _save(paths[-1], f"{title}\n{machine}", panels)
    return paths


def _save(path: Path, title: str, panels: Sequence[Callable[[Axes], None]]) -> None:
    figure, axes = plt.subplots(1, len(panels), figsize=(PANEL[0] * len(panels) + 1.6, PANEL[1]), squeeze=False)
    for axis, draw in zip(axes[0], panels, strict=True):
        draw(axis)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    with replacing(path) as partial:
        figure.savefig(partial, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


def _curves(axis: Axes, rows: Sequence[Measurement], label: str, value: Value) -> None:
    """A curve per contestant in the race, per loss elsewhere, against the batch size; without what was not measured."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        name = str(row.contestant) if row.sweep == RACE else row.contestant.loss
        if (y := value(row)) is not None:
            curves.setdefault(name, []).append((row.images, y))
    for name, points in curves.items():
        color, marker = LOOKS[name]
        axis.plot([x for x, _ in points], [y for _, y in points], color=color, marker=marker, ms=5, label=name)
    highest = max((y for points in curves.values() for _, y in points), default=1.0)
    ticks = sorted({row.images for row in rows})
    axis.set(xlim=0, ylim=(0, 1.08 * highest), xticks=ticks, xlabel="images in the batch", ylabel=label)
    axis.grid(alpha=0.3)


def _shares(axis: Axes, rows: Sequence[Measurement]) -> None:
    """A bar per contestant and batch size, the smallest on top."""
    rows = sorted(rows, key=lambda row: (row.images, str(row.contestant)), reverse=True)
    names = [f"{row.contestant}, {row.images} image{'s' if row.images > 1 else ''}" for row in rows]
    left = [0.0] * len(rows)
    for lap in LAPS:
        shares = [row.share(lap) or 0.0 for row in rows]
        axis.barh(names, shares, left=left, color=LAP_COLORS[lap], label=lap)
        left = [x + share for x, share in zip(left, shares, strict=True)]
    axis.set(xlim=(0, 1), xlabel="share of a step")
    axis.xaxis.set_major_formatter(PercentFormatter(1))


def _memory(row: Measurement) -> float | None:
    return None if row.peak_bytes is None else row.peak_bytes / MIB
