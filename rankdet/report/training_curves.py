"""The curves of a training, from the log that the run wrote."""

import json
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes

from rankdet.errors import UserError


class Curve(NamedTuple):
    """One logged quantity."""

    name: str  # "loss", "val/AP"
    steps: list[int]
    values: list[float]


def read_curves(path: Path) -> dict[str, list[Curve]]:
    """log.jsonl as title of a panel -> its curves: the criterion and each part, the splits' AP, and the optimiser's.

    Panels of which nothing was logged are left out; a run without a log has none. UserError names a broken line.
    """
    series: dict[str, Curve] = {}
    for number, line in enumerate(path.read_text().splitlines() if path.is_file() else (), start=1):
        try:
            entry = json.loads(line)
            step = int(entry.pop("step"))
            values = {key: float(value) for key, value in entry.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}, line {number}: is not an entry of a training log; remove the line") from error
        for key, value in values.items():
            curve = series.setdefault(key, Curve(key.removeprefix("train/"), [], []))
            curve.steps.append(step)
            curve.values.append(value)
    panels: dict[str, list[Curve]] = {}
    for key, curve in series.items():
        group, _, name = key.partition("/")
        titles = {"loss": "criterion", "lr": "learning rate", "grad_norm": "gradient norm"}
        if group == "train":
            panels.setdefault(titles.get(name, f"{name} loss"), []).append(curve)
        elif group != "speed":
            panels.setdefault("AP during training", []).append(curve)
        elif name == "images_per_s":
            panels.setdefault("images a second", []).append(curve)
    return panels


def draw_panel(axes: Axes, title: str, curves: list[Curve]) -> None:
    """One panel's curves against the step; named where there are several."""
    for curve in curves:
        style = "-o" if len(curve.steps) < 12 else "-"
        axes.plot(curve.steps, curve.values, style, lw=1.6, ms=3, label=curve.name)
    if len(curves) > 1:
        axes.legend(fontsize="small")
    axes.set(xlabel="step", ylabel=title)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
