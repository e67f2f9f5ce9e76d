"""Figures of AP as a training proceeds: a table's rows, trained while a held-out split is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.figures.bands import at_common_steps, draw_band
from rankdet.figures.content import COLORS, Content, mean_sd, over_seeds
from rankdet.figures.curves import Finder, LoggedRun, local, publish_curves, published_in
from rankdet.figures.of_table import OfTable, TablePlan, first_seed_first
from rankdet.figures.work import Work
from rankdet.files import as_csv
from rankdet.results.records import read_record
from rankdet.results.runs import Run

METRICS = ("AP", "AP50")
COLUMNS = 5  # snapshots that the table shows; the CSV has all

Curves = dict[str, list[LoggedRun]]  # series key -> a run a seed


@dataclass
class SnapshotFigure(OfTable):
    """A figure of the kind snapshots."""

    def make(self, work: Work) -> None:
        """The trainings, which are none of the table's own where the manifest gives overrides."""
        work.train(first_seed_first(self.of.series()))

    def publish(self) -> bool:
        """Copies the records of finished runs with what was seen at the snapshots."""
        publish_curves(first_seed_first(self.of.series()), METRICS, self.of.records, seen)
        return True

    def content(self, published: bool) -> Content:
        """From the runs' logs and records, or what was published of them."""
        return snapshot_content(self.of, published_in(self.of.records) if published else seen)


def seen(run: Run, metric: str) -> LoggedRun | None:
    """A metric of the split that the run is tested on, which its monitor looked at, too: at each snapshot, and at last
    as recorded; None where it is not finished. UserError where its monitor did not look."""
    if not run.finished:
        return None
    record = read_record(run.directory / "record.json")
    logged = local(run, f"{record['split']}/{metric}")
    assert logged is not None
    return LoggedRun(record, (*logged.steps, record["steps"]), (*logged.values, record["metrics"][metric]))


def snapshot_content(of: TablePlan, find: Finder) -> Content:
    """The figure as far as its runs are finished."""
    series = of.series()
    curves = {metric: {key: _found(runs, metric, find) for key, runs in series.items()} for metric in METRICS}
    first, runs = METRICS[0], [run for own in series.values() for run in own]
    shown = [own[0] for key, own in series.items() if curves[first][key]]
    return Content(
        _table(of, series, curves),
        _csv(curves),
        _measured(curves[first]),
        [
            over_seeds(of.table.data.name),
            f"{' and '.join(METRICS)} in percent, at every snapshot of a run and at its end; lines are means over the "
            "seeds, bands reach from the lowest to the highest seed. AP is the mean over IoU 0.50 to 0.95.",
            f"The rows are those of {of.table.manifest.name}, with their settings"
            + ("" if _shared(of, runs) else ", but trainings of their own: they learn from another split")
            + ".",
        ],
        lambda figure: _draw(figure, of, curves),
        (9.6, 4.4),
        f"{' and '.join(METRICS)} against the step, a curve a series",
        shown,
        [run.record for own in curves[first].values() for run in own],
        of.settings(runs),
        tested=True,
    )


def _found(runs: Sequence[Run], metric: str, find: Finder) -> list[LoggedRun]:
    return [found for run in runs if (found := find(run, metric)) is not None]


def _shared(of: TablePlan, runs: Sequence[Run]) -> bool:
    """Whether all are runs of the table."""
    return {run.directory for run in runs} <= {run.directory for run in of.table.runs()}


def _measured(curves: Curves) -> dict[str, str]:
    """At how many of the snapshots that all finished series share each has the highest mean, and where it ends."""
    done = {key: runs for key, runs in curves.items() if runs}
    words = dict.fromkeys(curves, "not run")
    common = sorted(set.intersection(*(set(at_common_steps(runs)[0]) for runs in done.values()))) if done else []
    if not common:
        return words
    means = {key: _means(runs, common) for key, runs in done.items()}
    highest = [max(means, key=lambda key: means[key][place]) for place in range(len(common))]
    for key, runs in done.items():
        final = mean_sd([100 * run.values[-1] for run in runs], 1)
        words[key] = f"highest mean of {len(done)} at {highest.count(key)} of {len(common)} snapshots; at last {final}"
    return words


def _means(runs: Sequence[LoggedRun], at: Sequence[int]) -> np.ndarray:
    steps, values = at_common_steps(runs)
    return values.mean(axis=0)[[steps.index(step) for step in at]]


def _table(of: TablePlan, series: dict[str, tuple[Run, ...]], curves: dict[str, Curves]) -> str:
    """AP at some steps, AP50 at the last."""
    first, second = METRICS
    steps = sorted({step for runs in curves[first].values() for run in runs for step in run.steps})
    places = sorted({round(place) for place in np.linspace(0, len(steps) - 1, COLUMNS)}) if steps else []
    columns = [steps[place] for place in places]
    body = []
    for key, planned in series.items():
        runs = curves[first][key]
        cells = [_at(runs, step) for step in columns]
        cells.append(_at(curves[second][key], columns[-1]) if columns else "-")
        note = "" if len(runs) == len(planned) else "not run" if not runs else f"{len(runs)} of {len(planned)} seeds"
        body.append([of.manifest.series[key].label, *cells, str(len(runs)), note])
    headers = ["series", *(f"{first}, step {step}" for step in columns), f"{second} at last", "n", "note"]
    align = ("left", *["right"] * (len(columns) + 2), "left")
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=align)


def _at(runs: Sequence[LoggedRun], step: int) -> str:
    values = [100 * run.values[run.steps.index(step)] for run in runs if step in run.steps]
    return mean_sd(values, 1) if values else "-"


def _csv(curves: dict[str, Curves]) -> str:
    first, second = METRICS
    lines = [
        (key, run.record["seed"], step, round(one, 6), round(other, 6))
        for key, runs in curves[first].items()
        for run, beside in zip(runs, curves[second][key], strict=True)
        for step, one, other in zip(run.steps, run.values, beside.values, strict=True)
    ]
    return as_csv(("series", "seed", "step", *METRICS), lines)


def _draw(figure: Figure, of: TablePlan, curves: dict[str, Curves]) -> None:
    for axes, metric in zip(figure.subplots(1, 2), METRICS, strict=True):
        for place, (key, runs) in enumerate(curves[metric].items()):
            draw_band(axes, runs, COLORS[place], of.manifest.series[key].label, 100)
        splits = ", ".join(sorted({run.record["split"] for runs in curves[metric].values() for run in runs}))
        axes.set(xlabel="step", ylabel=f"{metric} (%){', split ' + splits if splits else ''}")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncol=4, frameon=False)
