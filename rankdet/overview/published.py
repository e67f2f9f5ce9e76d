"""How far each published table and figure has come, from the committed records alone."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankdet.figures.kinds import reproduction
from rankdet.figures.manifest import load_figure
from rankdet.overview.targets import load_target
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
    """All of the list, tables first, each in the list's order."""
    path = root / "experiments" / "published.yaml"
    makers: dict[str, Callable[[Published, Path], Edition]] = {"table": _table, "figure": _figure}
    return [make(entry, root) for what, make in makers.items() for entry in load_published(path, what)]


def _table(entry: Published, root: Path) -> Edition:
    table = published_table(entry, root)
    plan = table.plan
    title = "; ".join(printed.title for printed in plan.manifest.tables)
    where = (entry.paper, entry.name, plan.file_stem, title, plan.protocol, plan.data.name)
    return Edition(*where, _rows_done(table), *_seeds_and_date(table.records))


def _rows_done(table: Table) -> str:
    own = [row for row in table.rows if not row.planned.printed.quoted]
    count = {status: sum(row.status == status for row in own) for status in ("done", "partial", "stale", "not done")}
    notes = [f"{count['partial']} in part"] if count["partial"] else []
    notes += [f"{count['stale']} stale"] if count["stale"] else []
    notes += [f"{count['not done']} not in this protocol"] if count["not done"] else []
    return f"{count['done']} of {len(own)} rows" + (f" ({', '.join(notes)})" if notes else "")


def _figure(entry: Published, root: Path) -> Edition:
    manifest = load_figure(root / "experiments" / entry.paper / f"{entry.name}.yaml")
    figure = reproduction(manifest, entry.protocol, entry.data, root)
    edition = figure.edition
    records = list({record.path: record for record in figure.content(published=True).records}.values())
    planned = len(load_target(entry.name, entry.paper, entry.protocol, entry.data, root).order)
    done = f"{len(records)} of {planned} runs" if planned else "no training behind it"
    where = (entry.paper, entry.name, edition.stem, manifest.title, edition.protocol, edition.data)
    return Edition(*where, done, *_seeds_and_date(records))


def _seeds_and_date(records: Sequence[Record]) -> tuple[tuple[int, ...], str | None]:
    dates: Iterable[str] = (record["date"] for record in records)
    return tuple(sorted({record["seed"] for record in records})), max(dates, default=None)
