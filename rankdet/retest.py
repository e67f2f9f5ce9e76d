"""python -m rankdet.retest run=DIR conditions=NAME[,NAME...] [device=auto] [key=value ...]: a run tested again.

Conditions are those of rankdet/robustness/conditions.py. Further settings change the test, e.g. data.root=PATH or
evaluation.score_threshold=0.1. Writes DIR/retests/<name>.json for each, pictures of what the detector was shown and,
where an evaluation server keeps the split's objects, the detections.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from rankdet.benchmark.of_run import step_cost
from rankdet.build import build_views, open_source
from rankdet.cli import command, settings
from rankdet.data.augment import Augment
from rankdet.data.dataset import DetectionDataset
from rankdet.data.records import data_hash
from rankdet.errors import UserError
from rankdet.evaluation.results import save_results
from rankdet.files import write_json
from rankdet.results.reading import read_json
from rankdet.results.retests import FOLDER, Retest, file_hash
from rankdet.robustness.conditions import CONDITIONS, ORIGINAL, SEED, SUITE_VERSION, TRAINING_STEP
from rankdet.robustness.pictures import read_picture, save_picture, sheet, strip
from rankdet.robustness.suite import Outcome, Suite
from rankdet.trained import load_trained
from rankdet.training.distributed import world
from rankdet.training.provenance import provenance

# Where a test runs and where its data lie is no part of which test it is.
NOT_TEST = ("data.root", "runtime.")
UNITS = {"norm": " grey levels", "ms": "", "mib": ""}  # of what tests without AP measure


@command
def main() -> None:
    """Tests under each condition, one after the other, and records each as soon as it is done."""
    given, overrides = settings(sys.argv[1:], __doc__, ("run", "conditions"), {"device": "auto"})
    directory = Path(str(given["run"]))
    conditions = str(given["conditions"]).split(",")
    for condition in conditions:
        if condition not in CONDITIONS:
            raise UserError(f"conditions={condition}: there is no such condition; there are {', '.join(CONDITIONS)}")
    test = tuple(item for item in overrides if not item.startswith(NOT_TEST))
    with world(str(given["device"]), 1) as here:
        trained = load_trained(directory, here.device, overrides)
        if len(trained.detector.stages) > 1:
            raise UserError(f"{directory}: a detector of several outputs; the alterations are made for those of one")
        torch.set_num_threads(trained.cfg.runtime.threads)
        suite, recorded = make_suite(directory, trained.cfg, trained.detector, here.device), training(directory)
        for condition in conditions:
            started, cpu = time.monotonic(), time.process_time()
            if condition == TRAINING_STEP:
                outcome = Outcome(step_cost(directory, overrides, here.device), [])
            else:
                outcome = suite.measure(condition)
            seconds = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
            retest = Retest(condition, test)
            caption = f"{retest.name}: {CONDITIONS[condition]}{outcome.note}"
            if outcome.pictures:
                save_picture(strip(outcome.pictures, caption), picture(directory, retest))
            if outcome.results is not None and not suite.test.labelled:
                save_results(outcome.results, retest.detections(directory))
            content = {
                "condition": condition,
                "overrides": list(test),
                **{key: recorded[key] for key in ("run", "config_hash", "seed", "data_hash", "split")},
                "weights_hash": file_hash(directory / "weights.pt"),
                "suite_version": SUITE_VERSION,
                "suite_seed": SEED,
                "num_images": len(suite.test.records),
                "threads": trained.cfg.runtime.threads,
                **{name: round(value, 1) for name, value in seconds.items()},
                **provenance(here.device),
                "metrics": outcome.metrics,
            }
            write_json(retest.path(directory), content)
            print(f"{retest.name}: {summary(outcome.metrics)}", flush=True)
    original = Retest(ORIGINAL)
    save_picture(strip(suite.originals(), f"{original.name}: {CONDITIONS[ORIGINAL]}"), picture(directory, original))
    pictures = [
        picture(directory, Retest(condition, () if condition == ORIGINAL else test)) for condition in CONDITIONS
    ]
    strips = [read_picture(path) for path in pictures if path.is_file()]
    save_picture(sheet(strips), directory / FOLDER / "pictures" / "sheet.png")


def make_suite(directory: Path, cfg: Any, detector: Any, device: torch.device) -> Suite:  # noqa: ANN401
    """The run's detector with the data that it was trained and tested on; UserError if these are others today."""
    source, recorded = open_source(cfg), training(directory)
    train, test = source.read(cfg.splits.train), source.read(recorded["split"])
    if data_hash(train, test) != recorded["data_hash"]:
        raise UserError(
            f"{directory}: trained or tested on other annotations ({recorded['data_hash']}) than {cfg.data.root} has "
            f"now ({data_hash(train, test)}); give data.root= their folder, or remove the run to train it anew"
        )
    shown = DetectionDataset(train, Augment(list(cfg.data.image_size)), SEED)
    return Suite(detector, shown, test, build_views(cfg), device, cfg.runtime.num_workers)


def training(directory: Path) -> dict[str, Any]:
    """The training's record; UserError where the run is not finished."""
    path = directory / "record.json"
    if not path.is_file():
        raise UserError(f"{path}: not there, so the run is not finished; start its training again to continue it")
    return read_json(path)


def picture(directory: Path, retest: Retest) -> Path:
    """Where the strip of a test's images lies."""
    return directory / FOLDER / "pictures" / f"{retest.name}.png"


def summary(metrics: dict[str, float | None]) -> str:
    """The test's main numbers in a few words."""
    shown = [(name, 100, "") for name in ("AP", "AP50", "AP75")]
    if "AP50" not in metrics:
        shown = [(name, 1, unit) for name, unit in UNITS.items() if name in metrics]
    values = ((name, metrics[name], scale, unit) for name, scale, unit in shown)
    return "  ".join(f"{name} -" if v is None else f"{name} {scale * v:.2f}{unit}" for name, v, scale, unit in values)


if __name__ == "__main__":
    main()
