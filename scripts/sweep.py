"""python scripts/sweep.py run=DIR key=value,value,... [split=test] [device=auto] [output=DIR] [key=value ...].

Tests a finished run under every combination of the values given to evaluation.* and test_input settings, and writes a
table of them to DIR/evaluation/<split>-sweeps. Nothing is trained, and rows measured before are not measured again.
Also under torchrun.
"""

import hashlib
import os
import sys
from pathlib import Path

import torch

from rankdet.build import open_source
from rankdet.cli import command, settings
from rankdet.config import config_hash, load
from rankdet.errors import UserError
from rankdet.results.sweep_table import SweepTable, markdown, save_sweep
from rankdet.sweep import Sweep, axes_of, settings_of
from rankdet.trained import load_trained
from rankdet.training.distributed import world


@command
def main() -> None:
    """Measures what is missing, prints the table and saves it."""
    optional = {"split": "test", "device": "auto", "output": None}
    given, overrides = settings(sys.argv[1:], __doc__, required=("run",), optional=optional)
    if not given["run"]:
        raise UserError("run= is empty; give the folder of a finished run: RUN=runs/shapes/mini/.../seed0")
    directory, split_name = Path(given["run"]), given["split"]
    axes, fixed = axes_of(overrides)
    rows = settings_of(directory, axes, fixed)
    folder = Path(given["output"] or directory / "evaluation" / f"{split_name}-sweeps")
    with world(given["device"], int(os.environ.get("WORLD_SIZE", "1"))) as here:
        trained = load_trained(directory, here.device, fixed)
        torch.set_num_threads(trained.cfg.runtime.threads)
        split = open_source(trained.cfg).read(split_name)
        trained.require_classes(split.classes, f"{trained.cfg.data.root} ({split_name})")
        if not split.records or not split.labelled:
            lacks = "objects, which an evaluation server keeps," if split.records else "image"
            raise UserError(f"{trained.cfg.data.root}: the split {split_name} has no {lacks} to evaluate on")
        sweep = Sweep(trained, split, directory / "weights.pt", folder / "rows", here)
        records = sweep.measure(rows, lambda line: print(line, file=sys.stderr, flush=True))
        if not here.is_main:
            return
        own = config_hash(load(directory / "config.yaml"))
        table = SweepTable(str(directory), [row.axes for row in rows], records, fixed, own)
        paths = save_sweep(table, folder, stem(list(axes), fixed))
        print(markdown(table))
        print("\n".join(f"saved {path}" for path in paths))


def stem(axes: list[str], fixed: list[str]) -> str:
    """The name of a sweep's files: what is swept, and a mark of what else is set."""
    name = "-".join(key.rpartition(".")[2] for key in axes)
    return f"{name}.{hashlib.sha256(' '.join(sorted(fixed)).encode()).hexdigest()[:6]}" if fixed else name


if __name__ == "__main__":
    main()
