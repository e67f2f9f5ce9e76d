"""Tables of our own, which no paper prints: their manifest lays down rows and columns, as the registry does for others.

Nothing of them is in the registry, and none of their numbers can be taken for a printed one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankdet.errors import UserError
from rankdet.results.reading import check_keys
from rankdet.results.registry import OWN, PrintedRow, PrintedTable

KEYS = ("title", "dataset", "columns", "rows")


def own_table(raw: Mapping[str, Any], path: Path) -> tuple[PrintedTable, dict[str, Any]]:
    """The table that a manifest of this kind describes, and the manifest as it would be for a printed one.

    title: of the table. dataset: of all its rows, a key of datasets.yaml. columns: in their order, each with a label,
    and, where it shows something else than the training's own metric of its name, with metric and condition; unit is
    percent and better is higher where they are not named. rows: as for a printed table, each with a label. UserError
    naming file and key.
    """
    for key in KEYS:
        if key not in raw:
            raise UserError(f"{path}: key {key!r} is missing; a table of our own has title, dataset, columns and rows")
    if "tables" in raw:
        raise UserError(f"{path}: tables: is for printed ones, and title for one of our own; remove one of the two")
    columns = {
        str(key): check_keys(value, f"{path}: columns.{key}", ("label",), ("unit", "better", "metric", "condition"))
        for key, value in _mapping(raw, "columns", path).items()
    }
    labels, rows = {}, {}
    for key, value in _mapping(raw, "rows", path).items():
        if not isinstance(value, dict) or "label" not in value:
            raise UserError(f"{path}: rows.{key}: key 'label' is missing: what the row is called in the table")
        labels[str(key)] = str(value["label"])
        rows[key] = {name: item for name, item in value.items() if name != "label"}
    dataset, numbers = str(raw["dataset"]), dict.fromkeys(columns)
    table = PrintedTable(
        f"{path.parent.name}/{path.stem}",
        str(raw["title"]),
        OWN,
        {key: str(column["label"]) for key, column in columns.items()},
        {key: PrintedRow(key, label, False, dataset, None, None, numbers, None) for key, label in labels.items()},
        {key: str(column.get("unit", "percent")) for key, column in columns.items()},
        tuple(key for key, column in columns.items() if column.get("better", "higher") == "lower"),
    )
    cells = {
        key: {"metric": column.get("metric", key), "condition": column.get("condition", "original")}
        for key, column in columns.items()
        if "metric" in column or "condition" in column
    }
    others = {key: value for key, value in raw.items() if key not in ("title", "dataset")}
    return table, others | {"tables": [table.id], "columns": cells, "rows": rows}


def _mapping(raw: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    if not isinstance(raw[key], dict) or not raw[key]:
        raise UserError(f"{path}: {key}: expected a mapping, got {raw[key]!r}")
    return raw[key]
