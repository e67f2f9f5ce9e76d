"""Time and memory against the numbers of scores, positives and images."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from rankdet.files import replacing
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
)
from rankdet.profiling.goals import MEMORY, TIME
from rankdet.profiling.sweeps import Measurement

LOOKS = {  # of a curve, the same in every figure
    NONE: ("#999999", "."), YARDSTICK: ("#000000", "o"), BCE: ("#8c564b", "s"), AP: ("#d62728", "v"),
    AP_GIVEN: ("#ff9896", "^"), AP_SIGMOID: ("#9467bd", "D"), AUC: ("#2ca02c", "<"), ALRP: ("#1f77b4", ">"),
    RANK_SORT: ("#17becf", "p"), PARAMETERIZED: ("#bcbd22", "P"), LOOP: ("#ff7f0e", "X"), MATRIX: ("#e377c2", "*"),
    FOCAL: ("#7f7f7f", "h"), OHEM: ("#aec7e8", "d"),
}  # fmt: skip
AXES = {TIME: ("seconds, forward + backward", 1.0), MEMORY: ("peak extra memory (MiB)", 2.0**-20)}


class Panel(NamedTuple):
    """Curves of one quantity: those of a sweep's losses, and of more (sweep, loss) pairs."""

    sweep: str
    quantity: str
    x: str  # field of a Measurement
    label: str  # of the x axis, with fields of the sweep's first Measurement
    losses: tuple[str, ...] | None = None  # None: all
    more: tuple[tuple[str, str], ...] = ()
    log: bool = True


FIGURES = {
    "against_scores.png": [
        Panel(
            "scores",
            quantity,
            "scores",
            "scores P + N, P = {positives:,} (the matrix: a tenth of them)",
            more=(("pairs", MATRIX),),
        )
        for quantity in (TIME, MEMORY)
    ],
    "against_positives.png": [Panel("positives", TIME, "positives", "positives among {scores:,} scores")],
    "memory_against_batch.png": [
        Panel("batch", MEMORY, "images", "images in the batch", (NONE, YARDSTICK, FOCAL, OHEM, AP, AP_GIVEN), log=False)
    ],
    "time_against_batch.png": [
        Panel("batch", TIME, "images", "images in the batch", (YARDSTICK, FOCAL, OHEM, AUC, AP, AP_GIVEN), log=False)
    ],
}
TITLES = {
    "against_scores.png": "Cost against the number of scores, early in training",
    "against_positives.png": "Cost against the number of positives, early in training",
    "memory_against_batch.png": "Loss side of AP-loss Fig. 9, late in training",
    "time_against_batch.png": "Loss side of AP-loss Fig. 11, late in training",
}


def save_plots(measurements: list[Measurement], machine: str, folder: Path) -> list[Path]:
    """Writes one PNG per figure; machine: shown under the title. Equal measurements, equal bytes."""
    paths = []
    for name, panels in FIGURES.items():
        figure, axes = plt.subplots(1, len(panels), figsize=(6.2 * len(panels) + 2.6, 4.8), squeeze=False)
        for axis, panel in zip(axes[0], panels, strict=True):
            _draw(axis, panel, measurements)
        axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
        figure.suptitle(f"{TITLES[name]}\n{machine}", fontsize=11)
        figure.tight_layout()
        paths.append(folder / name)
        with replacing(paths[-1]) as partial:
            figure.savefig(partial, dpi=120, metadata={"Software": None})
        plt.close(figure)
    return paths


def _draw(axis: Axes, panel: Panel, measurements: Sequence[Measurement]) -> None:
    names = dict.fromkeys(row.loss for row in measurements if row.sweep == panel.sweep)
    curves = [(panel.sweep, name) for name in names if panel.losses is None or name in panel.losses]
    label, unit = AXES[panel.quantity]
    first = next(row for row in measurements if row.sweep == panel.sweep)
    for sweep, loss in (*curves, *panel.more):
        rows = [row for row in measurements if (row.sweep, row.loss) == (sweep, loss)]
        points = [(getattr(row, panel.x), getattr(row, panel.quantity)) for row in rows]
        points = [(x, y * unit) for x, y in points if y]
        color, marker = LOOKS[loss]
        axis.plot([x for x, _ in points], [y for _, y in points], color=color, marker=marker, ms=4, label=loss)
    if panel.log:
        axis.set(xscale="log", yscale="log")
    else:
        axis.set(xlim=0, ylim=0)
    axis.set_xlabel(panel.label.format(**first._asdict()))
    axis.set_ylabel(label)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
