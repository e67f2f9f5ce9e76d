"""Manifests of figures: what is plotted and what the paper says of it (experiments/<paper>/figure-*.yaml)."""

from dataclasses import dataclass
from pathlib import Path

from rankdet.errors import UserError
from rankdet.figures.specs import LAYOUTS, Spec
from rankdet.results.reading import check_keys, override_list, read_yaml, strings

COMMON = ("title", "kind", "series")
NOTES = ("notes", "mini_notes")


@dataclass(frozen=True)
class Series:
    """One line of the plot. fact: what the paper says of it. overrides: of its runs. rows: those of the table."""

    key: str
    label: str
    fact: str
    overrides: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class FigureManifest:
    """One file. kind: a key of specs.LAYOUTS, which says what spec is."""

    path: Path
    title: str
    kind: str
    series: dict[str, Series]
    notes: tuple[str, ...]
    mini_notes: tuple[str, ...]
    spec: Spec

    @property
    def paper(self) -> str:
        """The folder that it lies in."""
        return self.path.parent.name

    @property
    def name(self) -> str:
        """figure-8a."""
        return self.path.stem


def figure_manifests(experiments: Path) -> list[Path]:
    """The manifests of all papers' figures; the grids in tuning/ that are named after figures are none."""
    paths = [path for name in ("figure", "table") for path in experiments.glob(f"*/{name}-*.yaml")]
    return sorted(path for path in paths if path.parent.name != "tuning" and is_figure(path))


def is_figure(path: Path) -> bool:
    """Whether a manifest is written as a figure's: as its name says, or a table's that is worked out and drawn."""
    if path.stem.startswith("figure") or not path.is_file():
        return path.stem.startswith("figure")
    raw = read_yaml(path)
    return isinstance(raw, dict) and "kind" in raw


def load_figure(path: Path) -> FigureManifest:
    """Reads and checks one manifest; UserError naming the file and the key for anything unknown, missing or wrong."""
    if not path.is_file():
        there = ", ".join(sorted(other.stem for other in path.parent.glob("figure-*.yaml"))) or "none"
        raise UserError(f"{path}: no such manifest; there are: {there}")
    raw = read_yaml(path)
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if kind not in LAYOUTS:
        raise UserError(f"{path}: kind: {kind!r} is not one of {', '.join(LAYOUTS)}")
    layout = LAYOUTS[kind]
    raw = check_keys(raw, str(path), (*COMMON, *layout.required), (*NOTES, *layout.optional))
    notes, mini_notes = (strings(raw.get(key, []), f"{path}: {key}") for key in NOTES)
    series = _series(raw["series"], path, layout.of_series)
    return FigureManifest(path, str(raw["title"]), kind, series, notes, mini_notes, layout.parse(raw, path))


def _series(raw: object, path: Path, own: str | None) -> dict[str, Series]:
    """own: the key beside label and fact: overrides, rows (some of the table), row (one of them), or none."""
    if not isinstance(raw, dict) or not raw:
        raise UserError(f"{path}: series: expected a mapping from keys to series, got {raw!r}")
    series = {}
    for key, value in raw.items():
        where = f"{path}: series.{key}"
        entry = check_keys(value, where, ("label", "fact", *([own] if own else [])))
        overrides, rows = (), ()
        if own == "overrides":
            overrides = override_list(entry["overrides"], f"{where}.overrides")
            if not any(item.startswith("loss=") for item in overrides):
                raise UserError(f"{where}.overrides: name the loss, loss=...")
        elif own == "rows":
            rows = strings(entry["rows"], f"{where}.rows")
        elif own == "row":
            rows = (str(entry["row"]),)
        series[str(key)] = Series(str(key), str(entry["label"]), str(entry["fact"]), overrides, rows)
    return series
