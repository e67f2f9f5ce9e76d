"""Figures of a quantity against the step: one curve a series, the mean over the seeds with the range that they span."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.figures.bands import draw_band
from rankdet.figures.content import COLORS, Content, mean_sd, over_seeds
from rankdet.figures.curves import LAST, Finder, LoggedRun
from rankdet.figures.plan import FigurePlan, logged
from rankdet.files import as_csv

Curves = dict[str, list[LoggedRun]]  # series key -> a run a seed


def curve_content(plan: FigurePlan, find: Finder) -> Content:
    """The figure as far as its runs are finished."""
    points = plan.cold
    curves = {point.series.key: logged(point, plan.quantity, find) for point in points}
    return Content(
        _table(plan, curves),
        _csv(plan, curves),
        {key: _measured(runs) for key, runs in curves.items()},
        [
            over_seeds(plan.data.name),
            f"Plotted: {plan.quantity} of the training batches, the mean since the point before; lines are means over "
            "the seeds, bands reach from the lowest to the highest seed.",
            f"Final: the mean over the last {LAST:.0%} of a run's steps.",
        ],
        lambda figure: _draw(figure, plan, curves),
        (7.2, 4.4),
        f"{plan.quantity} against the step, a curve a series",
        [point.runs[0] for point in points if curves[point.series.key]],
        [run.record for runs in curves.values() for run in runs],
    )


def _measured(runs: Sequence[LoggedRun]) -> str:
    if not runs:
        return "not run"
    return f"from {mean_sd([run.first for run in runs])} to {mean_sd([run.final for run in runs])} (n = {len(runs)})"


def _table(plan: FigurePlan, curves: Curves) -> str:
    body = []
    for key, runs in curves.items():
        numbers = [mean_sd(values) if runs else "-" for values in ([r.first for r in runs], [r.final for r in runs])]
        left = len(plan.trained.seeds) - len(runs)
        note = "" if not left else "not run" if not runs else f"{len(runs)} of {left + len(runs)} seeds"
        body.append([plan.manifest.series[key].label, *numbers, str(len(runs)), note])
    headers = ["series", f"{plan.quantity}, first", "final", "n", "note"]
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 3, "left"))


def _csv(plan: FigurePlan, curves: Curves) -> str:
    lines = [
        (key, run.record["seed"], step, round(value, 6))
        for key, runs in curves.items()
        for run in runs
        for step, value in zip(run.steps, run.values, strict=True)
    ]
    return as_csv(("series", "seed", "step", plan.quantity), lines)


def _draw(figure: Figure, plan: FigurePlan, curves: Curves) -> None:
    axes = figure.add_subplot()
    for place, (key, runs) in enumerate(curves.items()):
        draw_band(axes, runs, COLORS[place], plan.manifest.series[key].label)
    axes.set(xlabel="step", ylabel=f"{plan.curves.y_label}, of the training batches", ylim=(0, 1.02))
    axes.set_xlim(left=0)
    axes.legend(loc="lower left", frameon=False)
