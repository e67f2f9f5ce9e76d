"""Settings for a figure's series: the same small grid for each, judged by where the plotted quantity ends.

The lowest final mean over the seeds wins; of equal ones the first of the grid. The grid lies in
experiments/tuning/<name>.yaml.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

import yaml

from rankdet.errors import UserError
from rankdet.figures.curves import Finder
from rankdet.figures.plan import FigurePlan
from rankdet.results.reading import check_keys, override_list, read_yaml, seed_list
from rankdet.results.runs import Run, make_runs, merge_overrides

Setting = dict[str, float]
Trials = dict[str, list[tuple[Setting, tuple[Run, ...]]]]  # series key -> each setting with its runs, a seed each


@dataclass(frozen=True)
class Grid:
    """What is tried with every series: all combinations of axes. overrides: of these trainings alone."""

    name: str
    protocol: str
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    axes: dict[str, tuple[float, ...]]

    def settings(self) -> list[Setting]:
        """All combinations, the last axis fastest."""
        return [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]


def load_grid(path: Path) -> Grid:
    """Reads and checks a grid; UserError naming file and key."""
    raw = check_keys(read_yaml(path), str(path), ("protocol", "seeds", "overrides", "grid"))
    axes = {str(key): tuple(float(value) for value in values) for key, values in raw["grid"].items()}
    for key, axis in axes.items():
        if list(axis) != sorted(set(axis)) or not axis:
            raise UserError(f"{path}: grid.{key}: give different values in ascending order, not {list(axis)}")
    seeds, overrides = seed_list(raw["seeds"], f"{path}: seeds"), override_list(raw["overrides"], f"{path}: overrides")
    return Grid(path.stem, str(raw["protocol"]), seeds, overrides, axes)


def make_trials(grid: Grid, plan: FigurePlan) -> Trials:
    """The whole grid's runs, on the plan's data."""
    head = (f"experiment={plan.trained.experiment}", f"protocol={grid.protocol}", *plan.data.overrides)
    trials: Trials = {}
    for key, one in plan.manifest.series.items():
        trials[key] = []
        for setting in grid.settings():
            chosen = tuple(f"{name}={value}" for name, value in setting.items())
            overrides = merge_overrides(head, plan.trained.extra["mini"], one.overrides, grid.overrides, chosen)
            runs = make_runs(f"{grid.name} {key} {' '.join(chosen)}", overrides, grid.seeds, plan.root)
            trials[key].append((setting, runs))
    return trials


def outcome_yaml(grid: Grid, plan: FigurePlan, trials: Trials, find: Finder) -> str:
    """The whole grid's outcome and each series' choice; UserError where all of a series' trainings failed."""
    quantity = plan.quantity
    series: dict[str, object] = {}
    version = 0
    for key, tried in trials.items():
        scores = []
        for setting, runs in tried:
            found = [logged for run in runs if (logged := find(run, quantity)) is not None]
            version = max([version, *(logged.record["protocol_version"] for logged in found)])
            scores.append((setting, fmean(one.final for one in found) if len(found) == len(runs) else None))
        ended = [(final, place) for place, (_, final) in enumerate(scores) if final is not None]
        if not ended:
            raise UserError(f"{grid.name}: no setting of {key} ended with a finite loss; widen the grid")
        final, place = min(ended)
        best = scores[place][0]
        series[key] = {
            "best": best,
            "final": round(final, 6),
            "at_edge": [
                name for name, axis in grid.axes.items() if len(axis) > 2 and best[name] in (axis[0], axis[-1])
            ],
            "trials": [setting | {"final": None if end is None else round(end, 6)} for setting, end in scores],
        }
    content = {
        "data": plan.data.name,
        "protocol": grid.protocol,
        "protocol_version": version,
        "seeds": list(grid.seeds),
        "grid": {key: list(axis) for key, axis in grid.axes.items()},
        "quantity": quantity,
        "series": series,
    }
    head = "# Written by make reproduce-figure-...: where the quantity ended at each setting; the lowest is the best.\n"
    return head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
