"""Manifests of figures: the runs behind a plot's points (experiments/<paper>/figure-*.yaml)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankdet.errors import UserError
from rankdet.results.reading import check_keys, override_list, read_yaml, seed_list, strings

COMMON = ("title", "kind", "series")
NOTES = ("notes", "mini_notes")
TRAINED = ("experiment", "seeds", "quantity", "y_label")
KEYS = {
    "curves": (*COMMON, *TRAINED),
    "candidates": (*COMMON, *TRAINED, "ranker", "candidates", "snapshot"),
    "rows": (*COMMON, "table", "metric", "x", "x_label"),
}  # kind -> what a manifest of it must have
OPTIONAL = {
    "curves": (*NOTES, "tuning", "mini_overrides", "paper_overrides"),
    "candidates": (*NOTES, "tuning", "mini_overrides", "paper_overrides"),
    "rows": NOTES,
}
PROTOCOLS = ("mini", "paper")  # mini_long takes mini's


@dataclass(frozen=True)
class Series:
    """One line of the plot. fact: what the paper says of it. overrides: of its runs. rows: those of the table."""

    key: str
    label: str
    fact: str
    overrides: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """What stands behind a plot of trainings of its own. quantity: the logged part of the loss that is plotted, which
    the axis calls y_label."""

    experiment: str
    seeds: tuple[int, ...]
    quantity: str
    y_label: str
    tuning: str | None  # of experiments/tuning/<name>.yaml: the grid that settings are searched by
    extra: Mapping[str, tuple[str, ...]]  # protocol -> overrides of all runs


@dataclass(frozen=True)
class Candidates:
    """The numbers of candidates an image that are tried, by protocol, and where the others start if a cold start fails.

    counts: "all" among them is null. ranker: overrides of the training that ranks candidates. snapshot: protocol ->
    (number of candidates, further overrides) of the training that a warm start goes on from."""

    counts: Mapping[str, tuple[int | None, ...]]
    ranker: tuple[str, ...]
    snapshot: Mapping[str, tuple[int, tuple[str, ...]]]


@dataclass(frozen=True)
class RowPoints:
    """Points that are rows of a table. x: the config key whose value is a point's place."""

    table: str
    metric: str
    x: str
    x_label: str


@dataclass(frozen=True)
class FigureManifest:
    """One file. kind: curves (against the step), candidates (against their number), or rows (of a table)."""

    path: Path
    title: str
    kind: str
    series: dict[str, Series]
    notes: tuple[str, ...]
    mini_notes: tuple[str, ...]
    trained: Trained | None = None
    candidates: Candidates | None = None
    points: RowPoints | None = None

    @property
    def paper(self) -> str:
        """The folder that it lies in."""
        return self.path.parent.name

    @property
    def name(self) -> str:
        """figure-8a."""
        return self.path.stem


def load_figure(path: Path) -> FigureManifest:
    """Reads and checks one manifest; UserError naming the file and the key for anything unknown, missing or wrong."""
    if not path.is_file():
        there = ", ".join(sorted(other.stem for other in path.parent.glob("figure-*.yaml"))) or "none"
        raise UserError(f"{path}: no such manifest; there are: {there}")
    raw = read_yaml(path)
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind not in KEYS:
        raise UserError(f"{path}: kind: {kind!r} is not one of {', '.join(KEYS)}")
    raw = check_keys(raw, str(path), KEYS[kind], OPTIONAL[kind])
    notes, mini_notes = (strings(raw.get(key, []), f"{path}: {key}") for key in NOTES)
    return FigureManifest(
        path, str(raw["title"]), kind, _series(raw["series"], path, kind), notes, mini_notes,
        None if kind == "rows" else _trained(raw, path),
        _candidates(raw, path) if kind == "candidates" else None,
        RowPoints(*(str(raw[key]) for key in ("table", "metric", "x", "x_label"))) if kind == "rows" else None,
    )  # fmt: skip


def _series(raw: object, path: Path, kind: str) -> dict[str, Series]:
    if not isinstance(raw, dict) or not raw:
        raise UserError(f"{path}: series: expected a mapping from keys to series, got {raw!r}")
    series = {}
    for key, value in raw.items():
        where = f"{path}: series.{key}"
        what = "rows" if kind == "rows" else "overrides"
        entry = check_keys(value, where, ("label", "fact", what))
        label, fact = str(entry["label"]), str(entry["fact"])
        if kind == "rows":
            series[str(key)] = Series(str(key), label, fact, rows=strings(entry["rows"], f"{where}.rows"))
            continue
        overrides = override_list(entry["overrides"], f"{where}.overrides")
        if not any(item.startswith("loss=") for item in overrides):
            raise UserError(f"{where}.overrides: name the loss, loss=...")
        series[str(key)] = Series(str(key), label, fact, overrides)
    return series


def _trained(raw: Mapping[str, Any], path: Path) -> Trained:
    tuning = raw.get("tuning")
    return Trained(
        str(raw["experiment"]),
        seed_list(raw["seeds"], f"{path}: seeds"),
        str(raw["quantity"]),
        str(raw["y_label"]),
        None if tuning is None else str(tuning),
        {name: override_list(raw.get(f"{name}_overrides", []), f"{path}: {name}_overrides") for name in PROTOCOLS},
    )


def _candidates(raw: Mapping[str, Any], path: Path) -> Candidates:
    counts = {}
    for protocol, values in check_keys(raw["candidates"], f"{path}: candidates", PROTOCOLS).items():
        where = f"{path}: candidates.{protocol}"
        numbers = [value for value in values if value is not None] if isinstance(values, list) else []
        if not numbers or numbers != sorted(set(numbers)) or not all(type(n) is int and n > 0 for n in numbers):
            raise UserError(f"{where}: expected ascending whole numbers from 1 on, and null for all at most once, last")
        if values not in (numbers, [*numbers, None]):
            raise UserError(f"{where}: null, which stands for all, comes once and last")
        counts[protocol] = tuple(values)
    snapshot = {}
    for protocol, value in check_keys(raw["snapshot"], f"{path}: snapshot", PROTOCOLS).items():
        where = f"{path}: snapshot.{protocol}"
        entry = check_keys(value, where, ("candidates",), ("overrides",))
        if entry["candidates"] not in counts[protocol]:
            raise UserError(f"{where}.candidates: {entry['candidates']} is not among candidates.{protocol}")
        snapshot[protocol] = (entry["candidates"], override_list(entry.get("overrides", []), f"{where}.overrides"))
    ranker = override_list(raw["ranker"], f"{path}: ranker")
    return Candidates(counts, ranker, snapshot)
