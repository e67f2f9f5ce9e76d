"""python -m rankdet.evaluate run=DIR [split=test] [device=auto] [output=DIR] [key=value ...]: a run on a split.

Further settings change the run's config, e.g. data.root=PATH or evaluation.nms_iou=0.4. Also under torchrun.

python -m rankdet.evaluate results=FILE annotations=PATH [split=test] [metrics=coco,voc,lrp,rho,bounds] [output=DIR]:
anybody's COCO results, against a COCO annotation file or a split of a folder in VOC layout.

Both print percent and write metrics.json, whose numbers are fractions; oLRP_threshold is a score, rho a correlation.
"""

import json
import os
import sys
from pathlib import Path

import torch

from rankdet.assess import assess
from rankdet.build import open_source
from rankdet.cli import command, settings
from rankdet.data.records import DetectionSet
from rankdet.errors import UserError
from rankdet.evaluation.files import evaluate_files
from rankdet.evaluation.metrics import GROUPS, metrics_text
from rankdet.evaluation.results import save_results
from rankdet.files import write_json
from rankdet.trained import load_trained
from rankdet.training.distributed import world


@command
def main() -> None:
    """Measures a results file where the settings name one, and a run otherwise."""
    arguments = sys.argv[1:]
    if any(argument.startswith("results=") for argument in arguments):
        evaluate_results(arguments)
    else:
        evaluate_run(arguments)


def evaluate_run(arguments: list[str]) -> None:
    """Writes metrics.json and detections.json to DIR/evaluation/<split> and prints the metrics.

    Of a split whose objects an evaluation server keeps there are detections alone.
    """
    optional = {"split": "test", "device": "auto", "output": None}
    given, overrides = settings(arguments, __doc__, required=("run",), optional=optional)
    directory, split_name = Path(given["run"]), given["split"]
    with world(given["device"], int(os.environ.get("WORLD_SIZE", "1"))) as here:
        trained = load_trained(directory, here.device, overrides)
        cfg = trained.cfg
        torch.set_num_threads(cfg.runtime.threads)
        split = open_source(cfg).read(split_name)
        trained.require_classes(split.classes, f"{cfg.data.root} ({split_name})")
        output = Path(given["output"] or directory / "evaluation" / (split_name + ("-overridden" if overrides else "")))
        if output == directory / "evaluation" / cfg.splits.test:
            require_recorded_data(directory, split)
        results, metrics = assess(cfg, trained.detector, split, here)
        if not here.is_main:
            return
        save_results(results, output / "detections.json")
        if split.labelled:
            write_json(output / "metrics.json", metrics)
            print(metrics_text(metrics))
        else:
            print(f"no metrics: the objects of {split.name}/{split.split} are kept by an evaluation server")
        print(f"written to {output}")


def evaluate_results(arguments: list[str]) -> None:
    """Writes metrics.json to output, by default <the results' name>-evaluation beside them, and prints the metrics."""
    optional = {"split": "test", "metrics": ",".join(GROUPS), "output": None}
    given, others = settings(arguments, __doc__, required=("results", "annotations"), optional=optional)
    if others:
        raise UserError(f"{others[0]}: no such setting; beside results= there are annotations, {', '.join(optional)}")
    groups = given["metrics"].split(",")
    for group in groups:
        if group not in GROUPS:
            raise UserError(f"metrics={given['metrics']}: there is no {group!r}; there are {', '.join(GROUPS)}")
    results = Path(given["results"])
    output = Path(given["output"] or results.parent / f"{results.stem}-evaluation")
    metrics = evaluate_files(results, Path(given["annotations"]), given["split"], groups)
    try:
        write_json(output / "metrics.json", metrics)
    except OSError as error:
        raise UserError(f"{output}/metrics.json: cannot be written ({error.strerror}); set output=DIR") from error
    print(f"{metrics_text(metrics)}\nwritten to {output}")


def require_recorded_data(directory: Path, split: DetectionSet) -> None:
    """UserError if the test split is no longer the one that the run's record was measured on."""
    path = directory / "record.json"
    if not path.is_file():
        raise UserError(f"{path}: not there, so the run is not finished; start its training again to continue it")
    recorded = json.loads(path.read_text())["data_hash"].split("-")[1]
    if split.fingerprint() != recorded:
        raise UserError(
            f"{directory}: measured on other annotations ({recorded}) than {split.name}/{split.split} has now "
            f"({split.fingerprint()}); give output=DIR to evaluate on these"
        )


if __name__ == "__main__":
    main()
