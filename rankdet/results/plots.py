"""A table as bars: ours with spread and single runs, the paper's beside them and never to be taken for ours."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rankdet.results.registry import PrintedTable
from rankdet.results.render import shown
from rankdet.results.tables import Score, Table, TableRow

OURS, STALE, PAPER, EDGE = "#7aa6d9", "#d5e2f2", "#f2f2f2", "#777777"
DOT = {"ls": "", "marker": "o", "ms": 3.4, "mfc": "black", "mec": "white", "mew": 0.5}
HEIGHT = 0.38  # of a bar; a row is 1 high
PANELS = 4  # side by side
GAP = 0.6  # between the paper's sub-tables


def plot_table(table: Table, path: Path) -> None:
    """Writes a PNG: a panel per metric, a pair of bars per row that the protocol can do. Equal tables, equal bytes."""
    plan = table.plan
    rows = [row for row in table.rows if row.planned.why is None]
    columns = list(plan.manifest.tables[0].columns)
    metrics = [column for column in columns if any(row.score(column) for row in rows)] or columns[:PANELS]
    places = _places(rows)
    across, down = min(len(metrics), PANELS), math.ceil(len(metrics) / PANELS)
    height = 2.0 + 0.52 * (places[-1] + 1 if rows else 1) + (down - 1) * (1.2 + 0.52 * len(places))
    figure, axes = plt.subplots(down, across, figsize=(3.3 * across + 2.2, height), sharey=True, squeeze=False)
    for axis, metric in zip(axes.flat, metrics, strict=False):
        _panel(axis, rows, places, metric)
    for axis in axes.flat[len(metrics) :]:
        axis.set_axis_off()
    axes[0][0].set_yticks(places, _labels(rows))
    axes[0][0].invert_yaxis()
    name = f"{plan.manifest.paper} {plan.manifest.name.replace('-', ' ')}"
    beside = " and the paper's" if plan.manifest.of_paper else ""
    figure.suptitle(f"{name}: ours ({plan.protocol}, {table.on}){beside}", y=1 - 0.2 / height if down > 1 else None)
    figure.tight_layout(rect=(0, 0.85 / height, 1, 1 - 0.4 / height if down > 1 else 1))
    figure.legend(handles=_legend(table, rows), loc="lower center", ncol=1, frameon=False, fontsize=9)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _places(rows: Sequence[TableRow]) -> list[float]:
    places: list[float] = []
    for i, row in enumerate(rows):
        new_table = i > 0 and row.planned.table is not rows[i - 1].planned.table
        places.append((places[-1] + 1 if places else 0.0) + GAP * new_table)
    return places


def _labels(rows: Sequence[TableRow]) -> list[str]:
    """The paper's row names, without data set and detector where that is enough; n where seeds are missing."""
    short = [row.planned.printed.printed_row or row.planned.printed.label for row in rows]
    names = short if len(set(short)) == len(rows) else [row.planned.printed.label for row in rows]
    few = [f" (n = {len(row.shown)})" if 0 < len(row.shown) < len(row.planned.runs) else "" for row in rows]
    return [f"{name}{count}" for name, count in zip(names, few, strict=True)]


def _panel(axis: Axes, rows: Sequence[TableRow], places: Sequence[float], metric: str) -> None:
    ends, low = [1.0] if not rows or rows[0].planned.table.in_percent(metric) else [], 0.0
    for row, place in zip(rows, places, strict=True):
        score, printed = row.score(metric), row.planned.printed.values.get(metric)
        lift = HEIGHT / 2 if row.planned.table.is_printed else 0.0  # a pair of bars, or one
        if score is None:
            axis.text(0, place - lift, f" {_missing(row)}", va="center", fontsize=8, color=EDGE)
        else:
            ends.append(_our_bar(axis, place - lift, score, STALE if row.status == "stale" else OURS))
            low = min(low, *score.values)
        if printed is not None:
            y = place + lift
            axis.barh(y, printed, HEIGHT, color=PAPER, edgecolor=EDGE, hatch="////", lw=0.6)
            _number(axis, row.planned.table.as_printed(row.planned.printed, metric), max(0.0, printed), y, EDGE)
            ends.append(printed)
            low = min(low, printed)
    axis.set_xlim(low * 1.05, max(ends, default=1.0) * 1.28)  # room for the numbers behind the bars
    axis.set_xlabel(_label(rows[0].planned.table, metric) if rows else metric)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right"]].set_visible(False)


def _label(table: PrintedTable, metric: str) -> str:
    unit = table.units.get(metric, "percent").replace("percent", "%")
    unit = unit if unit in ("%", "correlation") or not table.is_printed else f"the paper's unit: {unit}"
    return f"{metric} ({unit})" + (", less is better" if metric in table.falling else "")


def _missing(row: TableRow) -> str:
    """Why it has no number of ours."""
    if row.status == "waiting":
        return "waiting for the server"
    return "not defined for all runs" if row.shown else "not run"  # as a correlation is not without detections


def _our_bar(axis: Axes, y: float, score: Score, color: str) -> float:
    """Draws mean, spread, single runs and the number; returns where the drawing ends."""
    axis.barh(y, score.mean, HEIGHT, color=color)
    if score.sd is not None:
        axis.errorbar(score.mean, y, xerr=score.sd, fmt="none", ecolor="#1d3f6e", elinewidth=1.0, capsize=4)
    offsets = HEIGHT * 0.28 * np.linspace(-1, 1, len(score.values)) if len(score.values) > 1 else np.zeros(1)
    axis.plot(score.values, y + offsets, zorder=3, **DOT)
    end = max(0.0, *score.values, score.mean + (score.sd or 0.0))
    _number(axis, shown(score), end, y, "black")
    return end


def _number(axis: Axes, text: str, x: float, y: float, color: str) -> None:
    axis.annotate(text, (x, y), (6, 0), textcoords="offset points", va="center", fontsize=8, color=color)


def _legend(table: Table, rows: Sequence[TableRow]) -> list[Patch | Line2D]:
    plan = table.plan
    other = "" if plan.protocol == "paper" else ": other data, larger detector, longer training"
    seeds = len(plan.manifest.seeds)
    entries: list[Patch | Line2D] = [
        Patch(color=OURS, label=f"ours: {plan.protocol} on {table.on}, mean ± sample sd, n = {seeds} seeds"),
        Line2D([], [], label="ours: a single run", **DOT),
    ]
    if plan.manifest.of_paper:
        look = {"facecolor": PAPER, "edgecolor": EDGE, "hatch": "////", "lw": 0.6}
        entries.append(Patch(**look, label=f"paper, as printed{other}"))
    if any(row.status == "stale" for row in rows):
        entries.append(Patch(color=STALE, label="ours, stale: see the table"))
    return entries
