"""Tuned settings per loss: where they are recorded, and how the tables' runs come by them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankdet.results.reading import check_keys, read_yaml

RATE, BOX_WEIGHT = TUNED_KEYS = ("schedule.lr", "box_loss.weight")
RETINANET = "retinanet"  # the detector that files without another's name are for
LEAST_AP = 0.01  # below it a training has learnt nothing
KEYS = ("data", "data_hash", "protocol", "protocol_version", "seeds", "grid", "default", "losses")


@dataclass(frozen=True)
class Tuning:
    """Chosen settings, loss -> {key: value}, and how they were chosen.

    edges: keys whose best is the first or last of three or more values. collapsed: settings that ended below 1 AP.
    fewer: losses with fewer trials than num_trials, and how many; one that brings its own box loss has no box weight.
    grid: key -> the values that were tried of it, with all of the others.
    """

    path: Path
    data: str
    data_hash: str
    protocol: str
    protocol_version: int
    num_trials: int  # settings tried per loss
    seeds: tuple[int, ...]
    losses: dict[str, dict[str, float]]
    edges: dict[str, tuple[str, ...]]
    collapsed: dict[str, int]
    detector: str = RETINANET
    fewer: dict[str, int] = field(default_factory=dict)
    grid: dict[str, tuple[float, ...]] = field(default_factory=dict)


def file_name(data: str, detector: str) -> str:
    """shapes.yaml; of another detector than RetinaNet: shapes.ssd.yaml."""
    return f"{data}.yaml" if detector == RETINANET else f"{data}.{detector}.yaml"


def find_tuning(root: Path, data: str, detector: str) -> Tuning | None:
    """The detector's settings for this data, fresh (runs/) before committed ones; else for the drawn set; else None."""
    paths = (tuning_path(root, name, detector) for name in dict.fromkeys((data, "shapes")))
    return next((load_tuning(path) for path in paths if path is not None), None)


def tuning_path(root: Path, data: str, detector: str) -> Path | None:
    """The file with the detector's settings for just this data, fresh (runs/) before committed; None: there is none."""
    folders = (root / "runs" / "tuning", root / "experiments" / "tuning")
    paths = (folder / file_name(data, detector) for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def load_tuning(path: Path) -> Tuning:
    """Reads and checks one file that make tune wrote."""
    raw = check_keys(read_yaml(path), str(path), KEYS, ("detector",))
    losses: dict[str, dict[str, float]] = {}
    edges: dict[str, tuple[str, ...]] = {}
    collapsed: dict[str, int] = {}
    trials: dict[str, int] = {}
    for loss, entry in raw["losses"].items():
        where = f"{path}: losses.{loss}"
        entry = check_keys(entry, where, ("best", "val_ap", "at_edge", "trials"))
        best: Any = check_keys(entry["best"], f"{where}.best", (RATE,), (BOX_WEIGHT,))
        losses[loss] = {key: float(best[key]) for key in TUNED_KEYS if key in best}
        edges[loss] = tuple(key for key in entry["at_edge"] if len(raw["grid"][key]) >= 3)
        collapsed[loss] = sum((trial["val_ap"] or 0) < LEAST_AP for trial in entry["trials"])
        trials[loss] = len(entry["trials"])
    num_trials = max(trials.values(), default=0)
    return Tuning(
        path, str(raw["data"]), str(raw["data_hash"]), str(raw["protocol"]), int(raw["protocol_version"]),
        num_trials, tuple(raw["seeds"]), losses, edges, collapsed, str(raw.get("detector", RETINANET)),
        {loss: number for loss, number in trials.items() if number < num_trials},
        {str(key): tuple(float(value) for value in axis) for key, axis in raw["grid"].items()},
    )  # fmt: skip
