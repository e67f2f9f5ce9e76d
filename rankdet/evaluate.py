"""python -m rankdet.evaluate run=DIR [split=test] [device=auto] [output=DIR] [key=value ...]: a run on a split.

Further settings change the run's config, e.g. data.root=PATH or evaluation.nms_iou=0.4. Also under torchrun.
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
from rankdet.evaluation.results import save_results
from rankdet.files import write_json
from rankdet.trained import load_trained
from rankdet.training.distributed import world


@command
def main() -> None:
    """Writes metrics.json and detections.json to DIR/evaluation/<split> and prints the metrics."""
    optional = {"split": "test", "device": "auto", "output": None}
    given, overrides = settings(sys.argv[1:], __doc__, required=("run",), optional=optional)
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
        write_json(output / "metrics.json", metrics)
        lines = [f"{name:28} " + ("-" if value is None else f"{100 * value:6.2f}") for name, value in metrics.items()]
        print("\n".join([*lines, f"written to {output}"]))


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
