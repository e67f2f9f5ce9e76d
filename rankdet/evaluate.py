"""python -m rankdet.evaluate run=DIR [split=test] [key=value ...]: a finished run's weights on a split.

Further settings change the run's config, e.g. data.root=PATH or evaluation.nms_iou=0.4. Also under torchrun.
"""

import os
import sys
from pathlib import Path

import torch

from rankdet.build import build_dataset, read_split
from rankdet.cli import command, settings
from rankdet.data.loader import evaluation_loader
from rankdet.evaluation.inference import all_metrics, detect_all
from rankdet.evaluation.results import save_results
from rankdet.files import write_json
from rankdet.trained import load_trained
from rankdet.training.distributed import choose_device, world


@command
def main() -> None:
    """Writes metrics.json and detections.json to DIR/evaluation/<split> and prints the metrics."""
    given, overrides = settings(
        sys.argv[1:], required=("run",), optional={"split": "test", "device": "auto", "output": None}
    )
    directory, split_name = Path(given["run"]), given["split"]
    with world(given["device"], int(os.environ.get("WORLD_SIZE", "1"))) as here:
        trained = load_trained(directory, choose_device(given["device"], here.device.index or 0), overrides)
        cfg = trained.cfg
        torch.set_num_threads(cfg.runtime.threads)
        split = read_split(cfg, split_name)
        trained.require_classes(split.classes, f"{cfg.data.root} ({split_name})")
        dataset = build_dataset(cfg, split, training=False)
        batches = evaluation_loader(dataset, 8, here.rank, here.size, cfg.runtime.num_workers)
        shares = here.gather(detect_all(trained.detector, batches, split.category_ids, here.device))
        if not here.is_main:
            return
        results = [result for share in shares for result in share]
        metrics = all_metrics(split, results)
        output = Path(given["output"] or directory / "evaluation" / (split_name + ("-overridden" if overrides else "")))
        save_results(results, output / "detections.json")
        write_json(output / "metrics.json", metrics)
        lines = [f"{name:28} " + ("-" if value is None else f"{100 * value:6.2f}") for name, value in metrics.items()]
        print("\n".join([*lines, f"written to {output}"]))


if __name__ == "__main__":
    main()
