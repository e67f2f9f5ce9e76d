"""How far each published table and figure has come, from the committed records alone."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankdet.figures.curves import published_in
from rankdet.figures.kinds import reproduction, standing_alone
from rankdet.figures.manifest import FigureManifest, figure_manifests, load_figure
from rankdet.figures.plan import all_points
from rankdet.figures.trained import TrainedFigure
from rankdet.overview.targets import trainings
from rankdet.results.publish import Published, load_published, published_table
from rankdet.results.records import Record
from rankdet.results.tables import Table


@dataclass(frozen=True)
class Edition:
    """One line of experiments/published.yaml. stem: of its files, in experiments/<paper>/. done: rows or runs, as text.

    newest: the date of the newest record behind it, None without any."""

    paper: str
    name: str  # table-2
    stem: str
    title: str
    protocol: str | None
    data: str | None
    done: str
    seeds: tuple[int, ...]
    newest: str | None


def editions(root: Path) -> list[Edition]:
    """All of the list, tables first, each in the list's order; then the figures that are on no list."""
    path = root / "experiments" / "published.yaml"
    tables = [_table(entry, root) for entry in load_published(path, "table")]
    figures = [_figure(entry, root) for entry in load_published(path, "figure")]
    alone = [_alone(load_figure(manifest), root) for manifest in figure_manifests(root / "experiments")]
    return [*tables, *figures, *filter(None, alone)]


def _table(entry: Published, root: Path) -> Edition:
    table = published_table(entry, root)
    plan = table.plan
    title = "; ".join(printed.title for printed in plan.manifest.tables)
    where = (entry.paper, entry.name, plan.file_stem, title, plan.protocol, ", ".join(plan.data_names))
    return Edition(*where, _rows_done(table), *_seeds_and_date(table.records))


def _rows_done(table: Table) -> str:
    own = [row for row in table.rows if not row.planned.printed.quoted]
    count = {status: sum(row.status == status for row in own) for status in ("done", "partial", "stale", "not done")}
    notes = [f"{count['partial']} in part"] if count["partial"] else []
    notes += [f"{count['stale']} stale"] if count["stale"] else []
    notes += [f"{count['not done']} not under this protocol or on these data"] if count["not done"] else []
    return f"{count['done']} of {len(own)} rows" + (f" ({', '.join(notes)})" if notes else "")


def _figure(entry: Published, root: Path) -> Edition:
    manifest = load_figure(root / "experiments" / entry.paper / f"{entry.name}.yaml")
    figure = reproduction(manifest, entry.protocol, entry.data, root)
    edition = figure.edition
    if isinstance(figure, TrainedFigure):  # whose warm starts follow from how the cold ones ended
        points = all_points(figure.plan, published_in(figure.plan.records))
        planned = len({run.directory for point in points for run in point.runs})
    else:
        planned = len(trainings(figure, root))
    done, seeds, newest = _told(manifest.path.with_name(f"{edition.stem}.md"))
    where = (entry.paper, entry.name, edition.stem, manifest.title, edition.protocol, edition.data)
    return Edition(*where, f"{done} of {planned} runs", seeds, newest)


def _alone(manifest: FigureManifest, root: Path) -> Edition | None:
    """A figure that needs neither a protocol nor data, if it is one and has been written."""
    figure = standing_alone(manifest, root)
    if figure is None or not manifest.path.with_name(f"{figure.edition.stem}.md").is_file():
        return None
    return Edition(manifest.paper, manifest.name, figure.edition.stem, manifest.title, None, None, "done", (), None)


def _told(path: Path) -> tuple[int, tuple[int, ...], str | None]:
    """Number of runs, their seeds and the newest one's date, as a figure's text says them.

    Some figures are drawn only where their runs are, and stay as they are elsewhere."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    runs = re.search(r"All (\d+) runs?:", text)
    seeds = re.search(r"^- Seeds: ([\d, ]+)\.$", text, re.MULTILINE)
    dates = re.search(r"runs of ([\d, -]+)\.$", text, re.MULTILINE)
    return (
        int(runs[1]) if runs else 0,
        tuple(int(seed) for seed in seeds[1].split(", ")) if seeds else (),
        max(dates[1].split(", ")) if dates else None,
    )


def _seeds_and_date(records: Sequence[Record]) -> tuple[tuple[int, ...], str | None]:
    dates: Iterable[str] = (record["date"] for record in records)
    return tuple(sorted({record["seed"] for record in records})), max(dates, default=None)
