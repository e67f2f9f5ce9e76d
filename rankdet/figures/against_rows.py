"""Figures whose points are a table's rows: ours with their spread over the seeds, the paper's beside."""

from dataclasses import dataclass

from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.errors import UserError
from rankdet.figures.content import COLORS, Content, mean_sd, over_seeds, spread
from rankdet.figures.manifest import FigureManifest
from rankdet.figures.of_table import OfTable, TablePlan
from rankdet.figures.specs import RowPoints
from rankdet.figures.work import Work
from rankdet.files import as_csv
from rankdet.results import today
from rankdet.results.publish import by_folder, copy_records
from rankdet.results.records import published_records, run_records
from rankdet.results.runs import Reads
from rankdet.results.tables import Score, Table, TableRow, collect


@dataclass(frozen=True)
class Spot:
    """A row as a point. x: ours; printed_x: the paper's, which the row has under the paper protocol."""

    series: str
    row: TableRow
    x: float
    printed_x: float
    score: Score | None
    printed: float | None


@dataclass
class RowFigure(OfTable):
    """A figure of the kind rows."""

    data_hashes: dict[Reads, str] | None = None  # of today's data, once they were read

    def make(self, work: Work) -> None:
        """The whole table's trainings."""
        runs = self.of.table.runs()
        if not work.dry_run:
            self.data_hashes = today.data_hashes(runs)
        work.train(runs)

    def publish(self) -> bool:
        """Copies the table's records."""
        for folder, runs in by_folder(self.of.table, self.of.root).items():
            copy_records(runs, folder)
        return True

    def content(self, published: bool) -> Content:
        """From the records of the table's runs."""
        plan = self.of.table
        if published:
            folders = by_folder(plan, self.of.root)
            return row_content(self.of, collect(plan, [one for folder in folders for one in published_records(folder)]))
        return row_content(self.of, collect(plan, run_records(plan.runs()), self.data_hashes))


def row_content(of: TablePlan, table: Table) -> Content:
    """The figure as far as the table's runs are finished."""
    manifest, points = of.manifest, of.manifest.spec
    assert isinstance(points, RowPoints)
    spots = _spots(of, points, table)
    shown = [spot for spot in spots if spot.score is not None]
    return Content(
        _table(manifest, points, spots),
        _csv(points, spots),
        {key: _measured([spot for spot in shown if spot.series == key]) for key in manifest.series},
        [
            over_seeds(of.table.data.name),
            f"The runs are those of {points.table}; error bars are sample standard deviations over its seeds.",
        ],
        lambda figure: _draw(figure, manifest, points, spots),
        (9.0, 4.4),
        f"{points.metric} against {points.x_label}, ours and the paper's",
        [spot.row.planned.runs[0] for spot in shown],
        table.records,
        of.settings(of.table.runs()),
        tested=True,
    )


def _spots(of: TablePlan, points: RowPoints, table: Table) -> list[Spot]:
    rows = {row.planned.printed.key: row for row in table.rows}
    spots = []
    for key, series in of.manifest.series.items():
        for name in series.rows:
            planned = of.row(name, f"series.{key}.rows")
            row = rows[name]
            spots.append(
                Spot(
                    key, row, _x(of.manifest, points.x, name, planned.runs[0].overrides),
                    _x(of.manifest, points.x, name, table.plan.manifest.rows[name].under("paper")),
                    row.score(points.metric), planned.printed.values.get(points.metric),
                )
            )  # fmt: skip
    return spots


def _x(manifest: FigureManifest, key: str, row: str, overrides: tuple[str, ...]) -> float:
    found = [item.partition("=")[2] for item in overrides if item.partition("=")[0] == key]
    if not found:
        raise UserError(f"{manifest.path}: x: row {row} does not set {key}")
    return float(found[-1])


def _measured(spots: list[Spot]) -> str:
    if not spots:
        return "not run"
    values = [mean_sd(spot.score.values, 1) for spot in spots if spot.score]
    return ", ".join(f"{value} at {spot.x:g}" for value, spot in zip(values, spots, strict=True))


def _table(manifest: FigureManifest, points: RowPoints, spots: list[Spot]) -> str:
    body = [
        [
            manifest.series[spot.series].label,
            f"{spot.x:g}",
            mean_sd(spot.score.values, 1) if spot.score else "not run",
            str(len(spot.row.shown)),
            f"{spot.printed_x:g}",
            spot.row.planned.table.as_printed(spot.row.planned.printed, points.metric),
        ]
        for spot in spots
    ]
    metric, x = points.metric, points.x_label
    headers = ["series", f"{x}, ours", f"{metric} ours", "n", f"{x}, paper", f"{metric} paper"]
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 5))


def _csv(points: RowPoints, spots: list[Spot]) -> str:
    metric = points.metric
    ours_header = (f"{metric}_mean", f"{metric}_sd", f"{metric}_seeds")
    lines = []
    for spot in spots:
        score = spot.score
        ours = (
            [score.mean, "" if score.sd is None else score.sd, ";".join(map(str, score.values))] if score else [""] * 3
        )
        key = spot.row.planned.printed.key
        lines.append([spot.series, key, f"{spot.x:g}", *ours, f"{spot.printed_x:g}", spot.printed])
    return as_csv(("series", "row", "x", *ours_header, "printed_x", f"{metric}_printed"), lines)


def _draw(figure: Figure, manifest: FigureManifest, points: RowPoints, spots: list[Spot]) -> None:
    ours, paper = figure.subplots(1, 2)
    for i, (key, series) in enumerate(manifest.series.items()):
        own = [spot for spot in spots if spot.series == key]
        done = [(spot.x, spot.score) for spot in own if spot.score]
        if done:
            x, scores = zip(*done, strict=True)
            y, sd = [score.mean for score in scores], [spread(score.values) for score in scores]
            ours.errorbar(x, y, sd, color=COLORS[i], marker="o", ms=5, capsize=3, lw=1.8)
        x, y = [spot.printed_x for spot in own], [spot.printed for spot in own]
        paper.plot(x, y, color=COLORS[i], marker="o", ms=5, lw=1.8, label=series.label)
    if not any(spot.score for spot in spots):
        ours.text(0.5, 0.5, "not run", ha="center", transform=ours.transAxes)
    for axes, name in ((ours, "ours"), (paper, "the paper's, on its own data")):
        axes.set(title=name, xlabel=points.x_label, ylabel=f"{points.metric} (%)")
        axes.set_xticks([spot.x if axes is ours else spot.printed_x for spot in spots])
        axes.tick_params(axis="x", labelrotation=45)
    figure.legend(loc="outside lower center", ncol=len(manifest.series), frameon=False)
