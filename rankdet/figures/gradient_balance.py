"""Figures of the balance between negatives and positives as a training proceeds, with the loss beside it."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from rankdet.figures.content import Content, over_seeds
from rankdet.figures.curves import Finder, LoggedRun
from rankdet.figures.panels import RULES, Panel, combined, draw_panels, panel_csv, panel_table
from rankdet.figures.plan import FigurePlan, Point, logged

SIDES = ("gradient_negatives", "gradient_positives")  # as losses.measure.GradientBalance logs them


def balance_content(plan: FigurePlan, find: Finder) -> Content:
    """The figure as far as its runs are finished."""
    assert plan.balance is not None
    manifest, parts = plan.manifest.series, plan.balance.parts
    ratio = {point.series.key: _ratios(point, find) for point in plan.cold}
    loss = {point.series.key: logged(point, parts[point.series.key], find) for point in plan.cold}
    panels = [
        Panel("ratio", "gradient of negatives / of positives", ratio, log=True),
        Panel("loss", "classification loss, of the training batches", loss),
    ]
    return Content(
        panel_table(manifest, panels, len(plan.trained.seeds)),
        panel_csv(panels),
        {key: _measured(ratio[key], loss[key]) for key in manifest},
        [
            over_seeds(plan.data.name),
            "ratio: the summed magnitudes of the loss's gradient to the scores of negatives, over those of positives, "
            "both means over the batches since the point before.",
            f"loss: {', '.join(f'{parts[key]} of {series.label}' for key, series in manifest.items())}.",
            *RULES,
        ],
        lambda figure: draw_panels(figure, manifest, panels),
        (9.6, 4.2),
        "ratio of the gradients of negatives and positives, and the loss, against the step, a curve a series",
        [point.runs[0] for point in plan.cold if ratio[point.series.key]],
        [run.record for runs in ratio.values() for run in runs],
    )


def _ratios(point: Point, find: Finder) -> list[LoggedRun]:
    negatives, positives = (logged(point, side, find) for side in SIDES)
    return [combined(_ratio, *pair) for pair in zip(negatives, positives, strict=True)]


def _ratio(negatives: float, positives: float) -> float:
    """NaN where there was no positive at all."""
    return negatives / positives if positives else math.nan


def _measured(ratio: Sequence[LoggedRun], loss: Sequence[LoggedRun]) -> str:
    if not ratio:
        return "not run"
    low, middle, high = np.nanquantile(np.concatenate([run.values for run in ratio]), (0.05, 0.5, 0.95))
    return (
        f"ratio {middle:.3g} in the median, {low:.3g} to {high:.3g} in nine of ten points, from one point to the next "
        f"{_swing(ratio):.3g} times higher or lower; loss from {fmean(run.first for run in loss):.3g} to "
        f"{fmean(run.final for run in loss):.3g} (n = {len(ratio)})"
    )


def _swing(runs: Sequence[LoggedRun]) -> float:
    """By what factor a curve rises or falls from a point to the next, in the median."""
    return math.exp(np.nanmedian(np.concatenate([np.abs(np.diff(np.log(run.values))) for run in runs])))
