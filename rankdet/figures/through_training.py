"""Figures of what a step takes as a training proceeds: the loss, and the whole step, from the run's own log."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.benchmark.through_training import read_course
from rankdet.figures.content import COLORS, Content
from rankdet.figures.curves import Finder, LoggedRun, publish_curves, published_in
from rankdet.figures.of_table import OfTable, TablePlan
from rankdet.figures.specs import Course
from rankdet.figures.work import Work
from rankdet.files import as_csv
from rankdet.results.records import read_record
from rankdet.results.runs import Run

QUANTITIES = ("loss_seconds", "step_seconds")  # in the order of the series


@dataclass
class CourseFigure(OfTable):
    """A figure of the kind course."""

    @property
    def run(self) -> Run:
        """The row's first seed."""
        spec = self.of.manifest.spec
        assert isinstance(spec, Course)
        return self.of.runs(spec.row, "row", spec.row)[0]

    def make(self, work: Work) -> None:
        """One training, the table's."""
        work.train([self.run])

    def publish(self) -> bool:
        """Copies the run's record and the times that it logged."""
        publish_curves([self.run], QUANTITIES, self.of.records, timed)
        return True

    def content(self, published: bool) -> Content:
        """From the run's log, or what was published of it."""
        return course_content(self.of, self.run, published_in(self.of.records) if published else timed)


def timed(run: Run, quantity: str) -> LoggedRun | None:
    """Seconds of a step or of its loss, means since the entry before; None where the run is not finished."""
    if not run.finished:
        return None
    entries = read_course(run.directory).entries
    record = read_record(run.directory / "record.json")
    values = tuple(getattr(entry, quantity) for entry in entries)
    return LoggedRun(record, tuple(entry.step for entry in entries), values)


def course_content(of: TablePlan, run: Run, find: Finder) -> Content:
    """The figure, if the run is finished."""
    curves = [(key, find(run, quantity)) for key, quantity in zip(of.manifest.series, QUANTITIES, strict=True)]
    found = {key: curve for key, curve in curves if curve is not None}
    return Content(
        _table(of, found),
        _csv(found),
        {key: _measured(found.get(key), list(found.values())) for key in of.manifest.series},
        [
            f"Times are those that the training of {run.label}, seed {run.seed}, logged of itself, with whatever else "
            "the machine did meanwhile; each is the mean over the steps since the one before.",
        ],
        lambda figure: _draw(figure, of, found),
        (7.2, 4.4),
        "seconds of the loss and of a whole step against the step",
        [run] if found else [],
        [curve.record for curve in list(found.values())[:1]],
        of.settings([run]),
        tested=True,
    )


def _measured(curve: LoggedRun | None, curves: Sequence[LoggedRun]) -> str:
    """Of the curve, where it is highest and ends, and its share of the last one, the whole step's."""
    if curve is None:
        return "not run"
    text = f"from {1000 * curve.first:.1f} ms at first to {1000 * curve.final:.1f} ms at last"
    if curve is curves[-1]:
        return text
    return f"{text}, {100 * curve.final / curves[-1].final:.0f} % of the whole step"


def _table(of: TablePlan, found: dict[str, LoggedRun]) -> str:
    body = []
    for key, series in of.manifest.series.items():
        curve = found.get(key)
        times = (curve.first, max(curve.values), min(curve.values), curve.final) if curve else ()
        body.append([series.label, *(f"{1000 * time:.1f}" for time in times)] if times else [series.label, "not run"])
    headers = ["series", "first, ms a step", "highest", "lowest", "last tenth of the steps"]
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 4))


def _csv(found: dict[str, LoggedRun]) -> str:
    lines = [
        (key, step, round(value, 6))
        for key, curve in found.items()
        for step, value in zip(curve.steps, curve.values, strict=True)
    ]
    return as_csv(("series", "step", "seconds"), lines)


def _draw(figure: Figure, of: TablePlan, found: dict[str, LoggedRun]) -> None:
    axes = figure.add_subplot()
    for place, (key, series) in enumerate(of.manifest.series.items()):
        curve = found.get(key)
        steps, values = (curve.steps, curve.values) if curve else ((), ())
        label = series.label + ("" if curve else ": not run")
        axes.plot(steps, values, color=COLORS[place], lw=1.8, marker="." if len(steps) < 30 else None, label=label)
    axes.set(xlabel="step", ylabel="seconds a step")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
