"""Several quantities of the same trainings against the step, a panel each, as a table, as CSV and drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.figures.bands import draw_band
from rankdet.figures.content import COLORS, mean_sd
from rankdet.figures.curves import LAST, LoggedRun
from rankdet.figures.manifest import Series
from rankdet.files import as_csv

RULES = (
    "Plotted are means over the training batches since the point before; lines are means over the seeds, bands reach "
    "from the lowest to the highest seed.",
    f"Final: the mean over the last {LAST:.0%} of a run's steps.",
)


class Panel(NamedTuple):
    """One quantity. name: in the table; label: of the axis; curves: series key -> a finished run a seed, in order."""

    name: str
    label: str
    curves: Mapping[str, Sequence[LoggedRun]]
    log: bool = False  # whether the axis is logarithmic


def combined(function: Callable[..., float], *of_run: LoggedRun) -> LoggedRun:
    """One run's quantity that follows point by point from several of its logged ones."""
    values = tuple(function(*point) for point in zip(*(one.values for one in of_run), strict=True))
    return replace(of_run[0], values=values)


def panel_table(series: Mapping[str, Series], panels: Sequence[Panel], num_seeds: int) -> str:
    """A line a series: first and final value of each quantity."""
    body = []
    for key, one in series.items():
        numbers = []
        for panel in panels:
            runs = panel.curves[key]
            numbers += [mean_sd([getattr(r, end) for r in runs], 3) if runs else "-" for end in ("first", "final")]
        done = len(panels[0].curves[key])
        note = "" if done == num_seeds else f"{done} of {num_seeds} seeds" if done else "not run"
        body.append([one.label, *numbers, str(done), note])
    headers = ["series", *(f"{panel.name}, {end}" for panel in panels for end in ("first", "final")), "n", "note"]
    align = ("left", *["right"] * (2 * len(panels) + 1), "left")
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=align)


def panel_csv(panels: Sequence[Panel]) -> str:
    """A line for each series, seed and step."""
    lines = []
    for key in panels[0].curves:
        for of_run in zip(*(panel.curves[key] for panel in panels), strict=True):
            for step, *values in zip(of_run[0].steps, *(run.values for run in of_run), strict=True):
                lines.append((key, of_run[0].record["seed"], step, *(round(value, 6) for value in values)))
    return as_csv(("series", "seed", "step", *(panel.name for panel in panels)), lines)


def draw_panels(figure: Figure, series: Mapping[str, Series], panels: Sequence[Panel]) -> None:
    """Side by side, with one legend below."""
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for place, (key, runs) in enumerate(panel.curves.items()):
            draw_band(axes, runs, COLORS[place], series[key].label)
        axes.set(xlabel="step", ylabel=panel.label)
        axes.set_xlim(left=0)
        if panel.log and any(panel.curves.values()):  # which would not draw an empty one
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
    columns = len(series) if len(series) < 4 else 2  # of long labels four are wider than the figure
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncol=columns, frameon=False)
