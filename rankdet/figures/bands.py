"""Several runs' curves as one line with a band."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from rankdet.figures.curves import LoggedRun


def at_common_steps(runs: Sequence[LoggedRun]) -> tuple[list[int], np.ndarray]:
    """The steps that all of one or more runs have, and float [runs, steps], their values there."""
    steps = sorted(set.intersection(*(set(run.steps) for run in runs)))
    return steps, np.array([[dict(zip(run.steps, run.values, strict=True))[step] for step in steps] for run in runs])


def draw_band(axes: Axes, runs: Sequence[LoggedRun], color: str, label: str, scale: float = 1.0) -> None:
    """The mean over the runs, and a band from the lowest to the highest; without runs an entry of the legend only."""
    if not runs:
        axes.plot([], [], color=color, label=f"{label}: not run")
        return
    steps, values = at_common_steps(runs)
    values = scale * values
    axes.plot(steps, values.mean(axis=0), color=color, lw=1.8, label=f"{label}, n = {len(runs)}")
    if len(runs) > 1:
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, lw=0)
