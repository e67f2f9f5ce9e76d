"""What stands behind a figure's points: the part of a manifest that differs from kind to kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rankdet.errors import UserError
from rankdet.results.reading import check_keys, override_list, seed_list, strings

PROTOCOLS = ("mini", "paper")  # mini_long takes mini's
EXTRA = ("mini_overrides", "paper_overrides")
DATA = {"mini": "shapes", "paper": "voc07"}  # of trainings of a figure's own, where its manifest names no other


class Spec:
    """The base of all that follows."""


@dataclass(frozen=True)
class Trained(Spec):
    """Trainings of the figure's own."""

    experiment: str
    seeds: tuple[int, ...]
    tuning: str | None  # of experiments/tuning/<name>.yaml: the grid that settings are searched by
    extra: Mapping[str, tuple[str, ...]]  # protocol -> overrides of all runs
    data: Mapping[str, str]  # protocol -> the data set, where none is asked for


@dataclass(frozen=True)
class Curves(Trained):
    """A curve a series. quantity: the logged part of the loss that is plotted, which the axis calls y_label."""

    quantity: str
    y_label: str


@dataclass(frozen=True)
class Balance(Trained):
    """The balance of gradients beside the loss. parts: series -> the logged part that is its classification loss."""

    parts: Mapping[str, str]


@dataclass(frozen=True)
class Candidates(Curves):
    """The numbers of candidates an image that are tried, by protocol, and where the others start if a cold start fails.

    counts: "all" among them is null. ranker: overrides of the training that ranks candidates. snapshot: protocol ->
    (number of candidates, further overrides) of the training that a warm start goes on from."""

    counts: Mapping[str, tuple[int | None, ...]]
    ranker: tuple[str, ...]
    snapshot: Mapping[str, tuple[int, tuple[str, ...]]]


@dataclass(frozen=True)
class RowPoints(Spec):
    """Points that are rows of a table. x: the config key whose value is a point's place."""

    table: str
    metric: str
    x: str
    x_label: str


@dataclass(frozen=True)
class RowRuns(Spec):
    """A series is the runs of one row of a table. extra: protocol -> overrides that make other trainings of them."""

    table: str
    extra: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Components(RowRuns):
    """Logged parts of the rows' losses through their trainings. panels: what is drawn -> what it is called; the parts
    that a + joins are added."""

    panels: Mapping[str, str]


@dataclass(frozen=True)
class Pictures(RowRuns):
    """Detections on num_images images of the test split, after the first `skip`, by each row's first seed."""

    num_images: int
    skip: int


@dataclass(frozen=True)
class Course(RowRuns):
    """How long the steps of one row's first seed took as it trained."""

    row: str


@dataclass(frozen=True)
class Benchmark(Spec):
    """What `make benchmark` measured of a training step, by loss and batch size. quantity: memory | time."""

    quantity: str


@dataclass(frozen=True)
class Computed(Spec):
    """A picture that needs no training. picture: its name among those that figures/computed.py knows.

    tables: the printed tables of the registry that it has the numbers of, and is a table's manifest for."""

    picture: str
    tables: tuple[str, ...]


class Layout(NamedTuple):
    """How a kind's manifest is written. of_series: the key of a series beside its label and fact, if it has one."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    of_series: str | None
    parse: Callable[[Mapping[str, Any], Path], Spec]


def _curves(raw: Mapping[str, Any], path: Path) -> Curves:
    return Curves(**_training(raw, path), **_plotted(raw))


def _plotted(raw: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(raw[name]) for name in ("quantity", "y_label")}


def _balance(raw: Mapping[str, Any], path: Path) -> Balance:
    parts = check_keys(raw["parts"], f"{path}: parts", tuple(raw["series"]))
    return Balance(**_training(raw, path), parts={key: str(value) for key, value in parts.items()})


def _training(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    tuning = raw.get("tuning")
    own = check_keys(raw.get("data", {}), f"{path}: data", (), PROTOCOLS)
    return {
        "experiment": str(raw["experiment"]),
        "seeds": seed_list(raw["seeds"], f"{path}: seeds"),
        "tuning": None if tuning is None else str(tuning),
        "extra": _extra(raw, path),
        "data": DATA | {key: str(value) for key, value in own.items()},
    }


def _extra(raw: Mapping[str, Any], path: Path) -> dict[str, tuple[str, ...]]:
    shared = override_list(raw.get("overrides", []), f"{path}: overrides")
    own = {name: override_list(raw.get(f"{name}_overrides", []), f"{path}: {name}_overrides") for name in PROTOCOLS}
    return {name: (*shared, *items) for name, items in own.items()}


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
    return Candidates(**_training(raw, path), **_plotted(raw), counts=counts, ranker=ranker, snapshot=snapshot)


def _row_points(raw: Mapping[str, Any], path: Path) -> RowPoints:
    return RowPoints(*(str(raw[key]) for key in ("table", "metric", "x", "x_label")))


def _row_runs(raw: Mapping[str, Any], path: Path) -> RowRuns:
    return RowRuns(str(raw["table"]), _extra(raw, path))


def _components(raw: Mapping[str, Any], path: Path) -> Components:
    if not isinstance(raw["panels"], dict) or not raw["panels"]:
        raise UserError(f"{path}: panels: expected a mapping from logged parts to labels, got {raw['panels']!r}")
    panels = {str(key): str(value) for key, value in raw["panels"].items()}
    return Components(str(raw["table"]), _extra(raw, path), panels)


def _pictures(raw: Mapping[str, Any], path: Path) -> Pictures:
    skip = raw.get("skip", 0)
    for key, value, least in (("images", raw["images"], 1), ("skip", skip, 0)):
        if type(value) is not int or value < least:
            raise UserError(f"{path}: {key}: expected a whole number from {least} on, got {value!r}")
    return Pictures(str(raw["table"]), _extra(raw, path), raw["images"], skip)


def _course(raw: Mapping[str, Any], path: Path) -> Course:
    return Course(str(raw["table"]), _extra(raw, path), str(raw["row"]))


def _benchmark(raw: Mapping[str, Any], path: Path) -> Benchmark:
    if raw["quantity"] not in ("memory", "time"):
        raise UserError(f"{path}: quantity: {raw['quantity']!r} is neither memory nor time")
    return Benchmark(raw["quantity"])


def _computed(raw: Mapping[str, Any], path: Path) -> Computed:
    return Computed(str(raw["picture"]), strings(raw.get("tables", []), f"{path}: tables"))


TRAINED = ("experiment", "seeds")
PLOTTED = (*TRAINED, "quantity", "y_label")
OF_TRAINED = ("tuning", "data", *EXTRA)
LAYOUTS = {
    "curves": Layout(PLOTTED, OF_TRAINED, "overrides", _curves),
    "candidates": Layout((*PLOTTED, "ranker", "candidates", "snapshot"), OF_TRAINED, "overrides", _candidates),
    "balance": Layout((*TRAINED, "parts"), OF_TRAINED, "overrides", _balance),
    "components": Layout(("table", "panels"), ("overrides", *EXTRA), "row", _components),
    "rows": Layout(("table", "metric", "x", "x_label"), (), "rows", _row_points),
    "snapshots": Layout(("table",), ("overrides", *EXTRA), "row", _row_runs),
    "anchors": Layout(("table",), (), "row", _row_runs),
    "densities": Layout(("table",), (), "row", _row_runs),
    "pictures": Layout(("table", "images"), ("skip",), "row", _pictures),
    "course": Layout(("table", "row"), (), None, _course),
    "benchmark": Layout(("quantity",), (), None, _benchmark),
    "computed": Layout(("picture",), ("tables",), None, _computed),
}  # by kind
