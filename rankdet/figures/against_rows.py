"""Figures whose points are a table's rows: ours with their spread over the seeds, the paper's beside."""

from dataclasses import dataclass

from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.errors import UserError
from rankdet.figures.content import COLORS, Content, mean_sd, spread
from rankdet.figures.manifest import FigureManifest, RowPoints
from rankdet.files import as_csv
from rankdet.results.render import as_printed
from rankdet.results.tables import Score, Table, TableRow


@dataclass(frozen=True)
class Spot:
    """A row as a point. x: ours; printed_x: the paper's, which the row has under the paper protocol."""

    series: str
    row: TableRow
    x: float
    printed_x: float
    score: Score | None
    printed: float | None


def row_content(manifest: FigureManifest, table: Table) -> Content:
    """The figure as far as the table's runs are finished."""
    assert manifest.points is not None
    points = manifest.points
    spots = _spots(manifest, table)
    shown = [spot for spot in spots if spot.score is not None]
    return Content(
        _table(manifest, points, spots),
        _csv(points, spots),
        {key: _measured([spot for spot in shown if spot.series == key]) for key in manifest.series},
        [f"The runs are those of {points.table}; error bars are sample standard deviations over its seeds."],
        lambda figure: _draw(figure, manifest, points, spots),
        (9.0, 4.4),
        f"{points.metric} against {points.x_label}, ours and the paper's",
        [spot.row.planned.runs[0] for spot in shown],
        table.records,
    )


def _spots(manifest: FigureManifest, table: Table) -> list[Spot]:
    assert manifest.points is not None
    rows = {row.planned.printed.key: row for row in table.rows}
    spots = []
    for key, series in manifest.series.items():
        for name in series.rows:
            if name not in rows or not rows[name].planned.runs:
                raise UserError(f"{manifest.path}: series.{key}.rows: {name!r} is no row with runs of the table")
            row = rows[name]
            printed = row.planned.printed
            spots.append(
                Spot(
                    key, row, _x(manifest, name, row.planned.runs[0].overrides),
                    _x(manifest, name, table.plan.manifest.rows[name].under("paper")),
                    row.score(manifest.points.metric), printed.values.get(manifest.points.metric),
                )
            )  # fmt: skip
    return spots


def _x(manifest: FigureManifest, row: str, overrides: tuple[str, ...]) -> float:
    assert manifest.points is not None
    found = [item.partition("=")[2] for item in overrides if item.partition("=")[0] == manifest.points.x]
    if not found:
        raise UserError(f"{manifest.path}: x: row {row} does not set {manifest.points.x}")
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
            "-" if spot.printed is None else as_printed(spot.printed),
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
