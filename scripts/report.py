"""python scripts/report.py run=DIR [split=NAME] [device=auto] [output=FILE] [key=value ...]: a page about a run.

One self-contained HTML file: figures, precision and recall, errors, scores, best and worst images, training. The split
is the one that the run was tested on, the file DIR/report-<split>.html, if not given. Further settings change the run's
config, e.g. data.root=PATH where its data lie elsewhere by now, or evaluation.nms_iou=0.4.
"""

import sys
from pathlib import Path

import torch

from rankdet.cli import command, settings
from rankdet.errors import UserError
from rankdet.files import write_text
from rankdet.report.finished_run import load_run
from rankdet.report.page import render
from rankdet.training.distributed import world


@command
def main() -> None:
    """Loads the run, evaluates it where needed, and writes the page."""
    optional = {"split": None, "device": "auto", "output": None}
    given, overrides = settings(sys.argv[1:], __doc__, required=("run",), optional=optional)
    if not given["run"]:
        raise UserError("run= is empty; give the folder of a finished run: RUN=runs/shapes/mini/.../seed0")
    directory, output = Path(given["run"]), given["output"] and Path(given["output"])
    if output:
        require_folder(output.parent)
    torch.set_num_threads(1)
    with world(given["device"], gpus=1) as here:
        run = load_run(directory, given["split"], overrides, here)
    output = output or directory / f"report-{run.split.split}.html"
    write_text(output, render(run))
    print(f"written to {output} ({output.stat().st_size / 1e6:.1f} MB)")


def require_folder(folder: Path) -> None:
    """Makes a folder to write into, before minutes of work; UserError if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); give another output=FILE") from error


if __name__ == "__main__":
    main()
