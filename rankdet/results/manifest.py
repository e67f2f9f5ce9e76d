"""Manifests: the runs, and tests of their weights, behind a printed table (experiments/<paper>/<table>.yaml)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rankdet.errors import UserError
from rankdet.results.datasets import PrintedSet, load_datasets
from rankdet.results.manifest_rows import ManifestRow, check_condition, follow, read_row
from rankdet.results.own_table import own_table
from rankdet.results.reading import check_keys, flag, items, override_list, read_yaml, seed_list, strings
from rankdet.results.registry import PrintedRow, PrintedTable, Registry
from rankdet.robustness.conditions import ORIGINAL

KEYS = ("tables", "experiment", "seeds", "rows")
OPTIONAL = ("mini_overrides", "paper_overrides", "mini_notes", "notes", "columns", "sets", "labels", "ordered")
RETEST_KEYS = ("tables", "trainings_of", "rows")  # of a manifest that trains nothing of its own
RETEST_OPTIONAL = ("mini_notes", "notes", "columns")


@dataclass(frozen=True)
class Cell:
    """Where the numbers of a printed column come from: a test condition and which of its metrics.

    by_set: the metrics that rows on these printed data sets show instead."""

    condition: str
    metric: str
    by_set: Mapping[str, str] = field(default_factory=dict)

    def metric_on(self, printed_set: str) -> str:
        """What a row on this data set shows."""
        return self.by_set.get(printed_set, self.metric)


@dataclass(frozen=True)
class Manifest:
    """One file of experiments/<paper>/. mini_overrides: added to all rows under mini and mini_long; paper_overrides:
    likewise under paper; mini_notes: sentences about what mini does to the rows, printed under the table, as notes are
    under every protocol. columns: those that show something else than the training's own metric of their name.
    datasets: those of the rows, in the paper's order. ordered: whether one row here is one row there, so that their
    orders compare.

    tables: printed ones, or one of our own, whose rows and columns the file itself lays down."""

    path: Path
    paper: str
    name: str  # "table-2"
    tables: tuple[PrintedTable, ...]
    experiment: str
    seeds: tuple[int, ...]
    mini_overrides: tuple[str, ...]
    mini_notes: tuple[str, ...]
    rows: dict[str, ManifestRow]
    notes: tuple[str, ...] = ()
    columns: dict[str, Cell] = field(default_factory=dict)
    paper_overrides: tuple[str, ...] = ()
    datasets: Mapping[str, PrintedSet] = field(default_factory=dict)
    sources: Mapping[str, "Manifest"] = field(default_factory=dict)  # by name, those that rows start from
    ordered: bool = True

    @property
    def of_paper(self) -> bool:
        """Whether a paper prints it; otherwise it is a table of our own."""
        return all(table.is_printed for table in self.tables)

    def under(self, protocol: str) -> tuple[str, ...]:
        """What is added to all rows under a protocol."""
        return self.paper_overrides if protocol == "paper" else self.mini_overrides

    def printed(self) -> Iterable[tuple[PrintedTable, PrintedRow]]:
        """Every printed row, quoted ones included, in the paper's order."""
        return ((table, row) for table in self.tables for row in table.rows.values())

    def dataset_of(self, key: str) -> str:
        """The printed data set of a row."""
        return next(row.dataset for _, row in self.printed() if row.key == key)


def load_manifest(path: Path, registry: Registry) -> Manifest:
    """Reads and checks one manifest against the registry: every own row is there once, and no other.

    Raises UserError naming the file and the key for anything unknown, missing or contradictory."""
    if not path.is_file():
        there = ", ".join(sorted(other.stem for other in path.parent.glob("*.yaml"))) or "none"
        raise UserError(f"{path}: no such manifest; there are: {there}")
    raw = read_yaml(path)
    if isinstance(raw, dict) and "title" in raw:
        table, raw = own_table(raw, path)
        registry = registry.plus(table)
    if isinstance(raw, dict) and "trainings_of" in raw:
        raw = check_keys(raw, str(path), RETEST_KEYS, RETEST_OPTIONAL)
        trainings = load_manifest(path.with_name(f"{raw['trainings_of']}.yaml"), registry)
        manifest = _content(raw, path, registry, trainings.rows)
        names = ("experiment", "seeds", "mini_overrides", "paper_overrides")
        shared = {name: getattr(trainings, name) for name in names}
        return replace(manifest, **shared, mini_notes=(*trainings.mini_notes, *manifest.mini_notes))
    manifest = _content(check_keys(raw, str(path), KEYS, OPTIONAL), path, registry, None)
    return replace(manifest, sources=_sources(manifest, registry))


def _sources(manifest: Manifest, registry: Registry) -> dict[str, Manifest]:
    sources: dict[str, Manifest] = {}
    for row in manifest.rows.values():
        name, _, key = (row.start_from or "").partition("#")
        if not name:
            continue
        where = f"{manifest.path}: rows.{row.key}.start_from"
        if name == manifest.name:
            raise UserError(f"{where}: {row.start_from!r} is a row of this manifest; name one of another")
        sources[name] = sources.get(name) or load_manifest(manifest.path.with_name(f"{name}.yaml"), registry)
        other = sources[name].rows.get(key)
        if other is None or other.trained_as != key:
            raise UserError(f"{where}: {row.start_from!r} is no row with runs of its own")
        if row.mini > other.mini or row.paper > other.paper:
            raise UserError(f"{where}: {row.start_from!r} is not done under each protocol that this row is")
    return sources


def _content(
    raw: Mapping[str, Any], path: Path, registry: Registry, trainings: dict[str, ManifestRow] | None
) -> Manifest:
    """trainings: the rows of another manifest whose weights these rows test."""
    tables = tuple(registry.table(str(table)) for table in items(raw["tables"], f"{path}: tables"))
    tables = _renamed(tables, raw.get("labels", {}), f"{path}: labels")
    seeds = seed_list(raw.get("seeds", [0]), f"{path}: seeds")
    sets = registry.path.with_name("datasets.yaml")
    if not isinstance(raw["rows"], dict):
        raise UserError(f"{path}: rows: expected a mapping from row keys to runs")
    rows = {str(key): read_row(str(key), value, path, trainings is not None) for key, value in raw["rows"].items()}
    rows = {key: follow(row, rows if trainings is None else trainings, path) for key, row in rows.items()}
    _check_against(tables, rows, path)
    return Manifest(
        path=path,
        paper=path.parent.name,
        name=path.stem,
        tables=tables,
        experiment=str(raw.get("experiment")),
        seeds=seeds,
        mini_overrides=override_list(raw.get("mini_overrides", []), f"{path}: mini_overrides"),
        mini_notes=strings(raw.get("mini_notes", []), f"{path}: mini_notes"),
        rows=rows,
        notes=strings(raw.get("notes", []), f"{path}: notes"),
        paper_overrides=override_list(raw.get("paper_overrides", []), f"{path}: paper_overrides"),
        columns=_columns(raw.get("columns", {}), tables, f"{path}: columns"),
        datasets=_datasets(tables, _sets(raw.get("sets", {}), tables, sets, f"{path}: sets"), sets),
        ordered=flag(raw.get("ordered", True), f"{path}: ordered"),
    )


def _renamed(tables: tuple[PrintedTable, ...], raw: object, where: str) -> tuple[PrintedTable, ...]:
    """raw: row -> what it is called in the place of its printed name."""
    labels = check_keys(raw, where, (), [row.key for table in tables for row in table.own_rows()])
    return tuple(
        replace(
            table,
            rows={
                key: replace(row, label=str(labels[key]), printed_row=None) if key in labels else row
                for key, row in table.rows.items()
            },
        )
        for table in tables
    )


def _datasets(tables: tuple[PrintedTable, ...], others: Mapping[str, str], path: Path) -> dict[str, PrintedSet]:
    """others: printed set -> the entry of datasets.yaml that says what stands for it here, where not its own does."""
    known = load_datasets(path)
    wanted = dict.fromkeys(row.dataset for table in tables for row in table.own_rows())
    for key in wanted:
        if key not in known:
            raise UserError(f"{path}: no data set {key!r}, which rows of {tables[0].id} are on; say what stands for it")
    return {key: replace(known[others.get(key, key)], key=key) for key in wanted}


def _sets(raw: object, tables: tuple[PrintedTable, ...], path: Path, where: str) -> dict[str, str]:
    """raw: of a manifest, checked."""
    own = {row.dataset for table in tables for row in table.own_rows()}
    others = {key: str(value) for key, value in check_keys(raw, where, (), sorted(own)).items()}
    for key, value in others.items():
        if value not in load_datasets(path):
            raise UserError(f"{where}.{key}: {path} has no data set {value!r}")
    return others


def _columns(raw: object, tables: tuple[PrintedTable, ...], where: str) -> dict[str, Cell]:
    known = {column for table in tables for column in table.columns}
    cells = {}
    for key, value in check_keys(raw, where, (), known).items():
        cell = check_keys(value, f"{where}.{key}", ("metric",), ("condition",))
        condition = check_condition(str(cell.get("condition", ORIGINAL)), f"{where}.{key}")
        if isinstance(cell["metric"], str):
            cells[key] = Cell(condition, cell["metric"])
        else:
            sets = {row.dataset for table in tables for row in table.own_rows()}
            by_set = check_keys(cell["metric"], f"{where}.{key}.metric", (), sorted(sets))
            cells[key] = Cell(condition, key, {name: str(metric) for name, metric in by_set.items()})
    return cells


def _check_against(tables: tuple[PrintedTable, ...], rows: dict[str, ManifestRow], path: Path) -> None:
    own = [row.key for table in tables for row in table.own_rows()]
    if len(set(own)) != len(own):
        raise UserError(f"{path}: tables: two of them share a row key; give them a manifest each")
    for key in own:
        if key not in rows:
            raise UserError(f"{path}: rows: {key!r} is missing, a row that the paper's authors produced")
    for key in rows:
        if key not in own:
            raise UserError(f"{path}: rows: {key!r} is no row of {', '.join(t.id for t in tables)} to reproduce")
