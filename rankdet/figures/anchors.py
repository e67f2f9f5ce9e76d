"""Where the anchors' scores of finished runs lie: counted once by their weights, kept beside them, and published."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankdet.build import open_source
from rankdet.errors import UserError
from rankdet.figures.of_table import OfTable, first_seed_first
from rankdet.figures.work import Work
from rankdet.files import write_text
from rankdet.report.finished_run import anchors_of
from rankdet.report.score_distributions import BINS
from rankdet.results.publish import canonical_json
from rankdet.results.reading import check_keys, read_json
from rankdet.results.records import Record, read_record
from rankdet.results.runs import Run
from rankdet.trained import load_trained
from rankdet.training.distributed import world

FILE = "anchors.json"  # beside a run's record
FOLDER = "anchors"  # beside published records
KEYS = ("num_images", "overlap")
DENSITIES = ("foreground", "background")  # younger than some published counts


class CountedRun:
    """A finished run. num_images: how many were looked at; overlap: int64 [BINS, BINS], see AnchorScores.

    foreground, background: int64 [BINS], likewise; None where they were not counted yet."""

    def __init__(self, record: Record, counts: dict[str, Any], path: Path) -> None:
        """UserError naming path where counts, as read from there, are none."""
        check_keys(counts, str(path), KEYS, DENSITIES)
        self.record, self.num_images = record, int(counts["num_images"])
        self.overlap = np.array([row.split() for row in counts["overlap"]], dtype=np.int64)
        if self.overlap.shape != (BINS, BINS):
            raise UserError(f"{path}: overlap: expected {BINS} x {BINS} counts; remove the file to count again")
        self.foreground, self.background = (_line(counts.get(name), f"{path}: {name}") for name in DENSITIES)


def _line(text: str | None, where: str) -> np.ndarray | None:
    counts = None if text is None else np.array(text.split(), dtype=np.int64)
    if counts is not None and counts.shape != (BINS,):
        raise UserError(f"{where}: expected {BINS} counts; remove the file to count again")
    return counts


@dataclass
class CountedFigure(OfTable):
    """A figure of any kind that is drawn from the anchors of its rows' runs."""

    def make(self, work: Work) -> None:
        """The rows' trainings, then a look at their anchors by their weights."""
        runs = first_seed_first(self.of.series())
        work.train(runs)
        count_missing(runs, work)

    def publish(self) -> bool:
        """Copies the counts of finished runs."""
        publish_counts(first_seed_first(self.of.series()), self.of.records)
        return True

    def finder(self, published: bool) -> Callable[[Run], CountedRun | None]:
        """Where the counts are read: beside the runs, or what was published of them."""
        return (lambda run: published_count(run, self.of.records)) if published else counted


def count_missing(runs: Iterable[Run], work: Work) -> None:
    """Counts the anchors of every finished run that were not all counted yet, on the split that it was tested on."""
    for run in runs:
        found = counted(run)
        if run.finished and (found is None or found.foreground is None):
            work.do(f"anchors of {run.directory.relative_to(work.root)}", lambda run=run: count(run))


def count(run: Run) -> None:
    """Writes FILE into a finished run's directory. UserError where its weights cannot be read."""
    root = [f"data.root={run.data_root}"] if run.data_root else []
    with world("auto", 0) as here:
        trained = load_trained(run.directory, here.device, root)
        split = open_source(trained.cfg).read(trained.cfg.splits.test)
        scores, num_images = anchors_of(trained, split, here)
    overlap = [" ".join(map(str, row)) for row in scores.overlap.tolist()]
    densities = {name: " ".join(map(str, getattr(scores, name).tolist())) for name in DENSITIES}
    write_text(run.directory / FILE, canonical_json({"num_images": num_images, "overlap": overlap} | densities))


def counted(run: Run) -> CountedRun | None:
    """From the run's own directory; None where it was not counted."""
    path = run.directory / FILE
    if not (run.finished and path.is_file()):
        return None
    return CountedRun(read_record(run.directory / "record.json"), read_json(path), path)


def publish_counts(runs: Iterable[Run], folder: Path) -> None:
    """Writes <folder>/anchors/<run name>-seed<k>.json for every run that was counted: its record and the counts."""
    for run in runs:
        if counted(run) is not None:
            record, counts = read_record(run.directory / "record.json"), read_json(run.directory / FILE)
            overrides = [item for item in run.overrides if not item.startswith("data.root=")]
            content = record.content | {"overrides": overrides, "tuned": list(run.tuned), "anchors": counts}
            write_text(_path(folder, run), canonical_json(content))


def published_count(run: Run, folder: Path) -> CountedRun | None:
    """What publish_counts wrote of a run."""
    path = _path(folder, run)
    if not path.is_file():
        return None
    record = read_record(path)
    return CountedRun(record, record["anchors"], path)


def _path(folder: Path, run: Run) -> Path:
    return folder / FOLDER / f"{run.name}-seed{run.seed}.json"
