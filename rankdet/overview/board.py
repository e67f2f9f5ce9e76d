"""One folder for TensorBoard in which the runs of tables and figures go by the names of their rows."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from rankdet.config import telling_settings
from rankdet.evaluation.results import HEADLINE
from rankdet.overview.targets import Target
from rankdet.results.runs import config_of
from rankdet.training.log import plain_settings


def make_board(targets: Sequence[Target], folder: Path) -> Path:
    """Fills folder with links <table>/<row>/seed<k>, without <table> for one target alone; returns it.

    A run that several rows share is there once. Runs that have not begun have links, too, so that they appear when they
    do. What an earlier call left there is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    links: dict[Path, Path] = {}
    for target in targets:
        place = folder / target.name if len(targets) > 1 else folder
        for run in target.order:
            name = re.sub(r"[^\w.+=-]+", "-", run.label)
            links.setdefault(run.directory, place / name / f"seed{run.seed}")
    _remove(folder)
    for directory, link in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(directory, link.parent))
    _describe(targets, folder)
    return folder


def _remove(folder: Path) -> None:
    """Links, what described them, and the folders that are then empty; nothing that a link leads to."""
    for parent, folders, files in os.walk(folder, topdown=False):
        for path in (Path(parent) / name for name in (*folders, *files)):
            if path.is_symlink() or "tfevents" in path.name:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _describe(targets: Sequence[Target], folder: Path) -> None:
    """Which columns the HPARAMS tab has: all settings of all runs. Without it they would be those of some one run."""
    settings: dict[str, bool | int | float | str] = {}
    metrics: dict[str, float] = {}
    for overrides in dict.fromkeys(run.overrides for target in targets for run in target.order):
        cfg = config_of(overrides)
        settings = plain_settings(telling_settings(cfg)) | settings
        metrics |= {f"{cfg.splits.test}/{name}": 0.0 for name in HEADLINE}
    if settings:
        experiment, _, _ = hparams(settings, metrics)
        with SummaryWriter(str(folder)) as board:
            board.file_writer.add_summary(experiment)
