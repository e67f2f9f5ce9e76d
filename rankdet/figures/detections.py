"""Figures of detections: the first images of the test split with what finished runs found on them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.build import open_source
from rankdet.config import load, merge_dotlist
from rankdet.data.records import DetectionSet
from rankdet.errors import UserError
from rankdet.evaluation.coco import coco_ground_truth
from rankdet.evaluation.results import Result, load_results
from rankdet.figures.content import Content
from rankdet.figures.of_table import OfTable, TablePlan
from rankdet.figures.specs import Pictures
from rankdet.figures.work import Work
from rankdet.files import as_csv
from rankdet.report.image_errors import ImageError, draw_image, image_errors
from rankdet.report.precision_recall import best_f1
from rankdet.report.verdicts import judge
from rankdet.results.records import Record, read_record
from rankdet.results.runs import Run

CELL = (3.1, 2.9)  # inches of an image with its legend


class Found(NamedTuple):
    """A run's detections on some images of a split. score: from which they are drawn; shown: one an image."""

    record: Record
    split: DetectionSet
    results: list[Result]
    score: float
    shown: list[ImageError]


@dataclass
class DetectionFigure(OfTable):
    """A figure of the kind pictures."""

    @property
    def runs(self) -> dict[str, Run]:
        """Series -> its row's first seed."""
        return {key: runs[0] for key, runs in self.of.series().items()}

    def make(self, work: Work) -> None:
        """A training a row, the table's."""
        work.train(list(self.runs.values()))

    def publish(self) -> bool:
        """Nothing is copied: without the runs and their images the pictures stay as they are."""
        return all(run.finished for run in self.runs.values())

    def content(self, published: bool) -> Content:
        """From the runs' saved detections and the images."""
        spec = self.of.manifest.spec
        assert isinstance(spec, Pictures)
        found = {key: look(run, spec) for key, run in self.runs.items() if run.finished}
        return detection_content(self.of, self.runs, found, spec)


def look(run: Run, spec: Pictures) -> Found:
    """A finished run's saved detections. UserError where they are gone, or the split has too few images."""
    root = [f"data.root={run.data_root}"] if run.data_root else []
    cfg = merge_dotlist(load(run.directory / "config.yaml"), root)
    path = run.directory / "evaluation" / cfg.splits.test / "detections.json"
    if not path.is_file():
        raise UserError(f"{path}: not there; remove the run, so that it is trained and tested again")
    split = open_source(cfg).read(cfg.splits.test)
    records = split.records[spec.skip : spec.skip + spec.num_images]
    if len(records) < spec.num_images:
        raise UserError(f"{split.name}: {split.split} has {len(split.records)} images, and the figure shows more")
    results, truth = load_results(path), coco_ground_truth(split)
    score, _ = best_f1(judge(truth, results))
    ids = [record.image_id for record in records]
    errors = {each.image_id: each for each in image_errors(_only(truth, ids), _of(results, ids), score)}
    return Found(read_record(run.directory / "record.json"), split, results, score, [errors[id] for id in ids])


def _only(truth: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    """The ground truth of some images."""
    return truth | {
        "images": [image for image in truth["images"] if image["id"] in ids],
        "annotations": [each for each in truth["annotations"] if each["image_id"] in ids],
    }


def _of(results: list[Result], ids: list[int]) -> list[Result]:
    return [result for result in results if result["image_id"] in ids]


def detection_content(of: TablePlan, runs: dict[str, Run], found: dict[str, Found], spec: Pictures) -> Content:
    """The figure as far as its runs are finished."""
    rows, lines = [], []
    for key, series in of.manifest.series.items():
        one = found.get(key)
        if one is None:
            rows.append([series.label, "not run"])
            continue
        sums = [sum(getattr(each, name) for each in one.shown) for name in ("num_right", "num_wrong", "num_missed")]
        rows.append([series.label, f"{one.score:.3f}", *sums])
        names = {record.image_id: record.path.name for record in one.split.records}
        lines += [
            (key, names[each.image_id], f"{one.score:.6g}", each.num_right, each.num_wrong, each.num_missed)
            for each in one.shown
        ]
    which = f"the first {spec.num_images}" if not spec.skip else f"{spec.num_images} after the first {spec.skip}"
    headers = ["series", "drawn from a score of", "right", "wrong", "missed"]
    return Content(
        tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 4)),
        as_csv(("series", "image", "score", "right", "wrong", "missed"), lines),
        {key: _measured(found.get(key), spec) for key in of.manifest.series},
        [
            f"The images are {which} of the test split, in its order, not chosen by what is found on them; the run is "
            f"that of the row's first seed. A row of pictures a series, solid boxes detections, dashed ones objects.",
            "Drawn are detections from the score on at which F1 is highest over the whole split (all classes together, "
            "IoU 0.5), a run's own, since scores of different losses do not compare. The paper states no threshold.",
        ],
        lambda figure: _draw(figure, of, found, spec),
        (CELL[0] * spec.num_images, CELL[1] * len(of.manifest.series) + 0.4),
        "images with detections, a row a series",
        [runs[key] for key in found],
        [one.record for one in found.values()],
        of.settings(list(runs.values())),
        tested=True,
        images=True,
    )


def _measured(found: Found | None, spec: Pictures) -> str:
    if found is None:
        return "not run"
    right, wrong, missed = (
        sum(getattr(each, name) for each in found.shown) for name in ("num_right", "num_wrong", "num_missed")
    )
    return f"on these {spec.num_images} images {right} right, {wrong} wrong, {missed} missed"


def _draw(figure: Figure, of: TablePlan, found: dict[str, Found], spec: Pictures) -> None:
    grid = figure.subplots(len(of.manifest.series), spec.num_images, squeeze=False)
    for row, (key, series) in zip(grid, of.manifest.series.items(), strict=True):
        one = found.get(key)
        row[0].set_title(series.label + ("" if one else ": not run"), loc="left", fontsize=10)
        for place, axes in enumerate(row):
            axes.set_axis_off()
            axes.set_anchor("N")
            if one is not None:
                axes.imshow(_picture(one, place))


def _picture(found: Found, place: int) -> np.ndarray:
    return draw_image(found.split, found.results, found.shown[place].image_id, found.score)
