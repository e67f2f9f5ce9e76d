"""The papers' printed numbers: experiments/registry.yaml, looked up as `ap-loss/table-2#focal-retinanet-voc07`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rankdet.errors import UserError
from rankdet.results.reading import check_keys, read_yaml

TABLE_KEYS = ("id", "paper", "title", "kind", "source", "datasets", "columns", "printed_rows", "rows")
TABLE_OPTIONAL = ("common_settings", "note")
ROW_KEYS = ("key", "label", "quoted", "dataset", "settings", "values")
ROW_OPTIONAL = (
    "printed_row", "group", "cites", "note", "marks", "lost", "best_reading", "same_run_as", "same_weights_as",
)  # fmt: skip
LINKS = ("same_run_as", "same_weights_as")
KINDS = ("measured", "toy-input", "toy-exact", "count")
OWN = "own"  # the kind of a table that no paper prints, which the registry never has: see own_table.py


@dataclass(frozen=True)
class PrintedRow:
    """One row as printed; values by column key, in the column's unit, None for a dash."""

    key: str
    label: str
    quoted: bool
    dataset: str
    group: str | None  # the columns on the page that the row is a part of
    printed_row: str | None  # the name of the row on the page, which groups share
    values: dict[str, float | None]
    same_run_as: str | None  # address of the row that is the same training and test
    same_weights_as: str | None = None  # of the row whose weights are tested in another way


@dataclass(frozen=True)
class PrintedTable:
    """One printed table; rows in the paper's order. columns: key -> label. units: key -> unit, percent if not there.

    falling: keys of the columns in which less is better."""

    id: str
    title: str
    kind: str
    columns: dict[str, str]
    rows: dict[str, PrintedRow]
    units: dict[str, str] = field(default_factory=dict)
    falling: tuple[str, ...] = ()

    @property
    def is_printed(self) -> bool:
        """Whether a paper prints it; a table of our own has no values."""
        return self.kind != OWN

    def in_percent(self, column: str) -> bool:
        """Whether the column's numbers are percentages."""
        return self.units.get(column, "percent") == "percent"

    def digits(self, column: str) -> int:
        """Decimals that ours are shown with: two of a correlation, one of anything else."""
        return 2 if self.units.get(column) == "correlation" else 1

    def as_printed(self, row: PrintedRow, column: str) -> str:
        """The row's value as the paper prints it: all of a column with as many decimals, counts without; - for none."""
        value = row.values.get(column)
        if value is None:
            return "-"
        if isinstance(value, int):
            return str(value)
        known = [other.values.get(column) for other in self.rows.values()]
        decimals = [len(repr(number).partition(".")[2]) for number in known if isinstance(number, float)]
        return f"{value:.{max([self.digits(column), *decimals])}f}"

    def own_rows(self) -> list[PrintedRow]:
        """The rows that the authors produced themselves: those to reproduce."""
        return [row for row in self.rows.values() if not row.quoted]


@dataclass(frozen=True)
class Registry:
    """All printed tables by id."""

    path: Path
    tables: dict[str, PrintedTable]

    def plus(self, table: PrintedTable) -> "Registry":
        """With a table of our own."""
        return replace(self, tables={**self.tables, table.id: table})

    def table(self, table_id: str) -> PrintedTable:
        """UserError for an id that is not there."""
        if table_id not in self.tables:
            raise UserError(f"{self.path}: no table {table_id!r}; there are {', '.join(self.tables)}")
        return self.tables[table_id]

    def row(self, address: str) -> PrintedRow:
        """The row at `<table id>#<row key>`; UserError for one that is not there."""
        table_id, _, key = address.partition("#")
        table = self.table(table_id)
        if key not in table.rows:
            raise UserError(f"{self.path}: table {table_id} has no row {key!r}; it has {', '.join(table.rows)}")
        return table.rows[key]


@lru_cache(maxsize=4)
def load_registry(path: Path) -> Registry:
    """Reads and checks the whole file; UserError naming file, table and row for anything that does not add up."""
    entries = read_yaml(path)
    if not isinstance(entries, list):
        raise UserError(f"{path}: expected a list of tables")
    tables: dict[str, PrintedTable] = {}
    for entry in entries:
        table = _table(entry, str(path))
        if table.id in tables:
            raise UserError(f"{path}: table {table.id} appears twice")
        tables[table.id] = table
    registry = Registry(path, tables)
    for entry in entries:
        for row in entry["rows"]:
            for link in LINKS:
                if link in row:
                    registry.row(_absolute(row[link], entry["id"]))
    return registry


def _table(entry: Mapping[str, Any], where: str) -> PrintedTable:
    entry = check_keys(entry, where, TABLE_KEYS, TABLE_OPTIONAL)
    where = f"{where}: {entry['id']}"
    if entry["kind"] not in KINDS:
        raise UserError(f"{where}: kind is {entry['kind']!r}, not one of {', '.join(KINDS)}")
    columns = {column["key"]: column["label"] for column in entry["columns"]}
    datasets = {dataset["key"] for dataset in entry["datasets"]}
    rows: dict[str, PrintedRow] = {}
    for raw in entry["rows"]:
        row = _row(raw, where, list(columns), entry["id"])
        if row.key in rows:
            raise UserError(f"{where}: row {row.key!r} appears twice")
        if datasets and row.dataset not in datasets:
            raise UserError(f"{where}#{row.key}: data set {row.dataset!r} is not among the table's {sorted(datasets)}")
        rows[row.key] = row
    units = {column["key"]: column["unit"] for column in entry["columns"]}
    falling = tuple(column["key"] for column in entry["columns"] if column["better"] == "lower")
    return PrintedTable(entry["id"], entry["title"], entry["kind"], columns, rows, units, falling)


def _row(raw: Mapping[str, Any], where: str, columns: list[str], table_id: str) -> PrintedRow:
    raw = check_keys(raw, where, ROW_KEYS, ROW_OPTIONAL)
    where = f"{where}#{raw['key']}"
    values = raw["values"]
    if len(values) != len(columns):
        raise UserError(f"{where}: {len(values)} values for {len(columns)} columns")
    if not all(value is None or isinstance(value, int | float) for value in values):
        raise UserError(f"{where}: values must be numbers or null, got {values}")
    links = {link: _absolute(raw[link], table_id) if link in raw else None for link in LINKS}
    return PrintedRow(
        key=str(raw["key"]),
        label=str(raw["label"]),
        quoted=raw["quoted"],
        dataset=str(raw["dataset"]),
        group=raw.get("group"),
        printed_row=raw.get("printed_row"),
        values=dict(zip(columns, values, strict=True)),
        **links,
    )


def _absolute(address: str, table_id: str) -> str:
    return address if "#" in address else f"{table_id}#{address}"
