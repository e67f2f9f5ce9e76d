"""The same small grid of learning rate and box weight for every loss, judged on the validation split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import isclose
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from rankdet.errors import UserError
from rankdet.results.datasets import MINI, DataChoice
from rankdet.results.reading import check_keys, read_yaml
from rankdet.results.records import Record, match
from rankdet.results.runs import Run, detector_of, make_runs, merge_overrides
from rankdet.results.tuning import BOX_WEIGHT, RETINANET, TUNED_KEYS

Setting = dict[str, float]


@dataclass(frozen=True)
class Grid:
    """What experiments/tuning/grid.yaml says of one detector: every combination of axes, with every loss and seed.

    losses: name -> the settings that come with it. overrides: what chooses the detector."""

    detector: str
    overrides: tuple[str, ...]
    losses: dict[str, tuple[str, ...]]
    protocol: str
    seeds: tuple[int, ...]
    train: str
    test: str
    axes: dict[str, tuple[float, ...]]
    default: Setting

    def settings(self, loss: str | None = None) -> list[Setting]:
        """All combinations, the last axis fastest; of a loss without a box loss beside it the learning rates alone."""
        alone = loss is not None and "box_loss=none" in self.losses[loss]
        axes = {key: axis for key, axis in self.axes.items() if not (alone and key == BOX_WEIGHT)}
        return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


@dataclass(frozen=True)
class Trial:
    """One loss at one setting: a run per seed."""

    loss: str
    setting: Setting
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Choice:
    """A loss's best setting. at_edge: the keys whose best value is the first or last of its axis."""

    best: Setting
    val_ap: float
    at_edge: tuple[str, ...]


def load_grid(path: Path, detector: str = RETINANET) -> Grid:
    """Reads and checks the grid; UserError naming file and key, or for a detector that is not in it."""
    raw = check_keys(read_yaml(path), str(path), ("detectors", "protocol", "seeds", "splits", "grid", "default"))
    if detector not in raw["detectors"]:
        raise UserError(f"DETECTOR={detector}: {path} has {', '.join(raw['detectors'])}")
    where = f"{path}: detectors.{detector}"
    chosen = check_keys(raw["detectors"][detector], where, ("losses",), ("overrides",))
    overrides = tuple(chosen.get("overrides", ()))
    if detector_of((f"protocol={raw['protocol']}", *overrides)) != detector:
        raise UserError(f"{where}.overrides: these choose another detector, {' '.join(overrides) or 'the default'}")
    axes = check_keys(raw["grid"], f"{path}: grid", TUNED_KEYS)
    default = check_keys(raw["default"], f"{path}: default", TUNED_KEYS)
    splits = check_keys(raw["splits"], f"{path}: splits", ("train", "test"))
    if splits["test"] == "test":
        raise UserError(f"{path}: splits.test: the test split is for the tables; tune on val")
    for key in TUNED_KEYS:
        if list(axes[key]) != sorted(set(axes[key])):
            raise UserError(f"{path}: grid.{key}: give different values in ascending order, not {axes[key]}")
        if default[key] not in axes[key]:
            raise UserError(f"{path}: default.{key}: {default[key]} is not among the grid's {axes[key]}")
    if raw["protocol"] not in MINI:
        raise UserError(f"{path}: protocol: {raw['protocol']!r} is not one of {', '.join(MINI)}")
    losses = {name: tuple(settings) for name, settings in chosen["losses"].items()}
    return Grid(
        detector, overrides, losses, raw["protocol"], tuple(raw["seeds"]), splits["train"], splits["test"],
        {key: tuple(float(value) for value in axes[key]) for key in TUNED_KEYS},
        {key: float(default[key]) for key in TUNED_KEYS},
    )  # fmt: skip


def of_losses(grid: Grid, names: Sequence[str] | None) -> Grid:
    """The grid for some of its losses, None: for all; UserError for one that it does not have."""
    if names is None:
        return grid
    for name in names:
        if name not in grid.losses:
            raise UserError(f"--losses {name}: the grid of {grid.detector} has {', '.join(grid.losses)}")
    return replace(grid, losses={name: own for name, own in grid.losses.items() if name in names})


def kept_entries(path: Path, grid: Grid, searched: Grid, run: Run, data_hash: str) -> dict[str, Any]:
    """What a file of make tune has of the grid's losses that are not searched again.

    run, data_hash: one of the new trials', and of today's data. UserError where the file came of others, or of another
    grid, so that old and new trials could not stand side by side."""
    raw = read_yaml(path)
    own = {"data_hash": data_hash, "protocol": grid.protocol, "protocol_version": run.protocol_version}
    for key, value in (own | _axes_and_seeds(grid)).items():
        if raw.get(key) != value:
            raise UserError(f"{path}: {key} is {raw.get(key)!r}, now {value!r}: tune all losses anew, without --losses")
    return {name: entry for name, entry in raw["losses"].items() if name in grid.losses and name not in searched.losses}


def make_trials(grid: Grid, data: DataChoice, root: Path) -> list[Trial]:
    """The runs of the whole grid; root is the checkout."""
    splits = (f"splits.train={grid.train}", "splits.monitor=null", f"splits.test={grid.test}")
    head = (f"protocol={grid.protocol}", *data.overrides, *grid.overrides, *splits)
    trials = []
    for loss, fixed in grid.losses.items():
        for setting in grid.settings(loss):
            chosen = tuple(f"{key}={value}" for key, value in setting.items())
            overrides = merge_overrides(head, (f"loss={loss}", *fixed), chosen)
            label = f"{loss} {' '.join(chosen)}"
            trials.append(Trial(loss, setting, make_runs(label, overrides, grid.seeds, root)))
    return trials


def mean_ap(trial: Trial, records: Sequence[Record]) -> float | None:
    """Mean validation AP over the trial's seeds, 0..1; None where a seed has no record (it diverged)."""
    found = [match(run, records) for run in trial.runs]
    values = [item.record["metrics"]["AP"] for item in found if item is not None]
    return fmean(values) if len(values) == len(trial.runs) else None


def choose(scores: Sequence[tuple[Setting, float | None]], grid: Grid, loss: str) -> Choice:
    """The setting of the highest AP; of equal ones the default, else the first of the grid. UserError if none ended."""
    ended = [(setting, ap) for setting, ap in scores if ap is not None]
    if not ended:
        raise UserError(f"tune: no setting of {loss} ended with a finite loss; widen experiments/tuning/grid.yaml")
    top = max(ap for _, ap in ended)
    best = [setting for setting, ap in ended if isclose(ap, top, rel_tol=1e-12)]
    default = {key: grid.default[key] for key in best[0]}
    setting = default if default in best else best[0]
    axes = {key: axis for key, axis in grid.axes.items() if key in setting and len(axis) > 1}
    at_edge = tuple(key for key, axis in axes.items() if setting[key] in (axis[0], axis[-1]))
    return Choice(setting, top, at_edge)


def _axes_and_seeds(grid: Grid) -> dict[str, object]:
    axes = {key: list(axis) for key, axis in grid.axes.items()}
    return {"seeds": list(grid.seeds), "grid": axes, "default": grid.default}


def tuning_yaml(
    grid: Grid, data: str, trials: Sequence[Trial], records: Sequence[Record], kept: Mapping[str, Any] | None = None
) -> str:
    """The file that tables take their settings from: the whole grid's outcome, and the choice per loss.

    kept: entries of losses without trials, as an earlier file has them."""
    losses: dict[str, Mapping[str, object]] = {}
    for loss in grid.losses:
        scores = [(trial.setting, mean_ap(trial, records)) for trial in trials if trial.loss == loss]
        if not scores:
            if kept and loss in kept:
                losses[loss] = kept[loss]
            continue
        choice = choose(scores, grid, loss)
        losses[loss] = {
            "best": dict(choice.best),
            "val_ap": round(choice.val_ap, 6),
            "at_edge": list(choice.at_edge),
            "trials": [setting | {"val_ap": None if ap is None else round(ap, 6)} for setting, ap in scores],
        }
    used = [record for trial in trials for run in trial.runs if (record := _record(run, records))]
    content = {
        "data": data,
        "detector": grid.detector,
        "data_hash": used[0]["data_hash"],
        "protocol": grid.protocol,
        "protocol_version": used[0]["protocol_version"],
        **_axes_and_seeds(grid),
        "losses": losses,
    }
    head = "# Written by make tune: validation AP (0..1) of the whole grid, and the best setting of each loss.\n"
    return head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)


def _record(run: Run, records: Sequence[Record]) -> Record | None:
    found = match(run, records)
    return found.record if found else None
