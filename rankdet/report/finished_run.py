"""A finished run with its detections on one split: those that it saved, where they still hold, else new ones."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rankdet.assess import IMAGES, assess
from rankdet.build import build_dataset, open_source
from rankdet.config import config_hash, load, merge_dotlist
from rankdet.data.loader import evaluation_loader
from rankdet.data.records import DetectionSet
from rankdet.errors import UserError
from rankdet.evaluation.coco import coco_ground_truth
from rankdet.evaluation.metrics import all_metrics
from rankdet.evaluation.results import Result, check_results, load_results, save_results
from rankdet.files import write_json
from rankdet.report.score_distributions import AnchorScores, anchor_scores
from rankdet.report.training_curves import read_curves
from rankdet.results.records import read_record
from rankdet.trained import TrainedRun, load_trained
from rankdet.training.distributed import World
from rankdet.training.monitor import first_images

ANCHOR_IMAGES = 500  # of a split whose anchors are looked at: millions of scores, and minutes on a CPU at most
LEARNT = {"trainval": ("train", "val", "trainval")}  # splits of which another one is made
ROUNDING = 1e-9  # by which a metric may differ that another machine computed from the same numbers


@dataclass(frozen=True)
class FinishedRun:
    """What a report is made of. `ground_truth`, `results` and `metrics` are of the split."""

    directory: Path
    cfg: DictConfig
    record: dict[str, Any]
    split: DetectionSet
    ground_truth: dict[str, Any]
    results: list[Result]
    metrics: dict[str, float | None]
    anchors: AnchorScores
    notes: tuple[str, ...]  # what a reader must know of how it was evaluated


def load_run(directory: Path, split_name: str | None, overrides: Sequence[str], here: World) -> FinishedRun:
    """The run in `directory` on a split (None: the one it was tested on), with key=value overrides of its config.

    Saved detections are used where they are there, the overrides change no number, and the test split is the one that
    was recorded; they must give the metrics saved beside them. Else the run is evaluated, and what it finds is saved
    for the next time unless overrides or other data make it another evaluation than the recorded one. UserError for a
    directory without a finished run and for detections that do not belong there.
    """
    record = _record(directory)
    trained = load_trained(directory, here.device, list(overrides))
    recorded = load(directory / "config.yaml")
    cfg = merge_dotlist(recorded, list(overrides))
    split = open_source(cfg).read(split_name or cfg.splits.test)
    trained.require_classes(split.classes, f"{cfg.data.root} ({split.split})")
    if not split.records:
        raise UserError(f"{cfg.data.root}: the split {split.split} has no image to report on")
    if not split.labelled:
        raise UserError(
            f"{cfg.data.root}: a server keeps the objects of the split {split.split}; report on another one"
        )
    read_curves(directory / "log.jsonl")  # a broken log is told before minutes of work

    folder = directory / "evaluation" / split.split
    notes = []
    if config_hash(cfg) != config_hash(recorded):
        notes.append(f"Evaluated with {', '.join(overrides)}: the figures are not those of the run's record.")
    data_hash = record["data_hash"].split("-")[1]
    if split.split == cfg.splits.test and split.fingerprint() != data_hash:
        changed = f"data hash {data_hash}, now {split.fingerprint()}"
        notes.append(f"The split has changed since the run was recorded ({changed}): evaluated on today's.")
    if not notes and (folder / "detections.json").is_file():
        results, metrics = _saved(folder, split)
    else:
        results, metrics = assess(trained.cfg, trained.detector, split, here)
        if not notes:
            save_results(results, folder / "detections.json")
            write_json(folder / "metrics.json", metrics)
    if split.split in LEARNT.get(cfg.splits.train, (cfg.splits.train,)):
        notes.append("The run has learnt from these images: the figures say nothing of new ones.")
    anchors, number = anchors_of(trained, split, here)
    if number < len(split.records):
        notes.append(f"Anchors are those of the first {number} of {len(split.records)} images.")
    truth = coco_ground_truth(split)
    return FinishedRun(directory, cfg, record, split, truth, results, metrics, anchors, tuple(notes))


def _record(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise UserError(
            f"{directory}: no such folder; give the directory of a run, e.g. RUN=runs/shapes/mini/.../seed0"
        )
    path = directory / "record.json"
    if not path.is_file():
        if (directory / "config.yaml").is_file():
            raise UserError(f"{path}: not there, so the run is not finished; start its training again to continue it")
        raise UserError(f"{directory}: is not the directory of a run, which holds config.yaml and record.json")
    return read_record(path).content


def _saved(folder: Path, split: DetectionSet) -> tuple[list[Result], dict[str, float | None]]:
    """Saved detections and the metrics that they give; UserError unless those are the saved ones."""
    path, beside = folder / "detections.json", folder / "metrics.json"
    again = f"remove {folder} and report again"
    results = load_results(path)
    try:
        check_results(coco_ground_truth(split), results, str(path))
    except UserError as error:
        raise UserError(f"{error}; {again}") from None
    metrics = all_metrics(split, results)
    try:
        saved = json.loads(beside.read_text())
        if not isinstance(saved, dict):
            raise ValueError(f"a JSON {type(saved).__name__}")
        differing = [key for key in metrics if key in saved and not _equal(metrics[key], saved[key])]
    except FileNotFoundError:
        raise UserError(f"{beside}: not there, so {path.name} cannot be checked; {again}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{beside}: does not hold metrics; {again}") from error
    if differing or "AP" not in saved:
        key = differing[0] if differing else "AP"
        raise UserError(
            f"{path}: its {key} is {metrics[key]}, not {saved.get(key)} as {beside.name} beside it says: edited, or "
            f"made from other data; {again}"
        )
    return results, metrics


def _equal(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=0, abs_tol=ROUNDING)


def anchors_of(trained: TrainedRun, split: DetectionSet, here: World) -> tuple[AnchorScores, int]:
    """The anchors' scores on the first images of a split, at most ANCHOR_IMAGES, and how many these are."""
    few = first_images(split, ANCHOR_IMAGES)
    dataset = build_dataset(trained.cfg, few, training=False)
    batches = evaluation_loader(dataset, IMAGES, num_workers=trained.cfg.runtime.num_workers)
    return anchor_scores(trained.detector, batches, here.device), len(few.records)
