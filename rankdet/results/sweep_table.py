"""A sweep's three files: its rows as Markdown, CSV and a plot of the metrics against what was swept."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from tabulate import tabulate

from rankdet.files import as_csv
from rankdet.results.output import save_three

METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "voc_AP50_11", "voc_AP50_area")
PLOTTED = METRICS[:3]
RECORDED = ("config_hash", "data_hash", "weights_hash", "split", "num_images", "pass_seconds", "pass_rows", "date")


class SweepTable(NamedTuple):
    """One or more rows: what is set in each (the same keys, in the same order) and its record."""

    run: str  # its directory
    axes: list[dict[str, Any]]
    records: list[dict[str, Any]]
    fixed: list[str]  # key=value, the same in all rows
    own: str | None  # config hash of the test that the run itself was recorded with


def save_sweep(table: SweepTable, folder: Path, stem: str) -> list[Path]:
    """Writes folder/<stem>.md, .csv and .png, each whole or not at all; returns their paths."""
    text = f"{markdown(table)}\n![the table above as curves]({stem}.png)\n"
    return save_three(folder, stem, text, csv_text(table), lambda path: plot_sweep(table, path))


def markdown(table: SweepTable) -> str:
    """Percentages to one place more than the papers print; a dash where there is no object to find."""
    first = table.records[0]
    body = [
        [*map(str, axes.values()), *(_percent(record["metrics"].get(metric)) for metric in METRICS), _seconds(record)]
        for axes, record in zip(table.axes, table.records, strict=True)
    ]
    own = [place for place, record in enumerate(table.records) if record["config_hash"] == table.own]
    headers = [*table.axes[0], *METRICS, "s/image"]
    align = ["left"] * len(table.axes[0]) + ["right"] * (len(METRICS) + 1)
    lines = [
        f"Run: {table.run}; the weights are those of its training, hash {first['weights_hash']}, in every row.",
        f"Data: {first['data_name']}, split {first['split']}, {first['num_images']} images, annotations hashed to "
        f"{first['data_hash']}.",
        "s/image: wall time of the pass over the images (reading, network, post-processing) that the row came from; "
        "rows that differ in post-processing alone share one pass.",
        f"Machine: {'; '.join(dict.fromkeys(_machine(record) for record in table.records))}.",
    ]
    if table.fixed:
        lines.insert(1, f"In every row: {' '.join(table.fixed)}.")
    if own:
        lines.insert(1, f"Row {', '.join(str(place + 1) for place in own)} is tested as the run itself was.")
    notes = "\n".join(f"- {line}" for line in lines)
    name = " and ".join(f"`{key}`" for key in table.axes[0])
    rows = tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=align)
    return f"# One run under several settings of {name}\n\n{rows}\n\n{notes}\n"


def csv_text(table: SweepTable) -> str:
    """A line a row: settings, every metric of the first record as a fraction, and what was recorded of the row."""
    metrics = list(table.records[0]["metrics"])
    lines = [
        [*axes.values(), *map(record["metrics"].get, metrics), *_recorded(record)]
        for axes, record in zip(table.axes, table.records, strict=True)
    ]
    return as_csv([*table.axes[0], *metrics, *RECORDED], lines)


def plot_sweep(table: SweepTable, path: Path) -> None:
    """Writes a PNG: a panel a metric, the longest numeric axis to the right, a line for each setting of the others."""
    along = _along(table)
    others = list(dict.fromkeys(_others(axes, along) for axes in table.axes))
    figure, panels = plt.subplots(1, len(PLOTTED), figsize=(3.6 * len(PLOTTED), 3.6), squeeze=False)
    for panel, metric in zip(panels[0], PLOTTED, strict=True):
        for label in others:
            _line(panel, table, metric, along, label)
        panel.set(title=metric, xlabel=along, ylabel=f"{metric} (%)")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    first = table.records[0]
    figure.suptitle(f"{first['data_name']} ({first['split']}), one run's weights: {Path(table.run).parent.name}")
    rows = math.ceil(len(others) / 3) if len(others) > 1 else 0
    if rows:
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncol=3, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.06 * rows, 1, 1))
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _line(panel: Axes, table: SweepTable, metric: str, along: str, label: str) -> None:
    rows = [pair for pair in zip(table.axes, table.records, strict=True) if _others(pair[0], along) == label]
    numeric = _numeric(table, along)
    if numeric:
        rows.sort(key=lambda pair: pair[0][along])
    places = [axes[along] if numeric else str(axes[along]) for axes, _ in rows]
    values = [record["metrics"].get(metric) for _, record in rows]
    heights = [math.nan if value is None else 100 * value for value in values]
    panel.plot(places, heights, ls="-" if numeric else "none", marker="o", ms=4, label=label)  # names are no scale
    if not numeric:
        panel.tick_params(axis="x", rotation=30)
        panel.margins(x=0.15)


def _along(table: SweepTable) -> str:
    """The axis to draw to the right: of numbers if there is such, and of those the one with most values."""
    sizes = {key: len({str(axes[key]) for axes in table.axes}) for key in table.axes[0]}
    return max(sizes, key=lambda key: (sizes[key] > 1, _numeric(table, key), sizes[key]))


def _numeric(table: SweepTable, key: str) -> bool:
    return all(isinstance(axes[key], int | float) for axes in table.axes)


def _others(axes: dict[str, Any], along: str) -> str:
    return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in axes.items() if key != along)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _seconds(record: dict[str, Any]) -> str:
    return f"{record['pass_seconds'] / record['num_images']:.3f}"


def _machine(record: dict[str, Any]) -> str:
    many = f", {record['world_size']} processes" if record["world_size"] > 1 else ""
    commit = f"{record['commit'] or 'unknown'}{' with uncommitted changes' if record['dirty'] else ''}"
    return f"{record['hardware']}, torch {record['torch']}, {record['threads']} thread(s){many}, commit {commit}"


def _recorded(record: dict[str, Any]) -> list[Any]:
    return [record[key] for key in RECORDED]
