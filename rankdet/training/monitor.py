"""Looks at a split while a run trains: AP and pictures in TensorBoard. It changes nothing in the run."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rankdet.data.image import read_image
from rankdet.data.records import DetectionSet
from rankdet.evaluation.draw import draw_detections, grid
from rankdet.evaluation.results import Result, headline
from rankdet.training.log import RunLog
from rankdet.training.loop import StepReport

PICTURES = 6
SHOWN = 0.3  # score from which a box is drawn


class Monitor:
    """A hook: every `every` steps (not at the last one, which the test follows) the metrics of a split go to the log.

    evaluate: the split -> (its COCO results, its metrics), called on every rank. log: None on all ranks but the first.
    """

    def __init__(
        self,
        split: DetectionSet,
        evaluate: Callable[[DetectionSet], tuple[list[Result], dict[str, float | None]]],
        every: int,
        total_steps: int,
        log: RunLog | None,
    ) -> None:
        self.split, self.evaluate = split, evaluate
        self.every, self.total_steps, self.log = every, total_steps, log

    def __call__(self, report: StepReport) -> None:
        """Evaluates if it is time."""
        if report.step % self.every or report.step == self.total_steps:
            return
        results, metrics = self.evaluate(self.split)
        if self.log is None:
            return
        name = self.split.split
        shown = headline(metrics)
        self.log.scalars(report.step, {f"{name}/{k}": v for k, v in shown.items()})
        self.log.note(f"step {report.step}: {name} " + "  ".join(f"{k} {100 * v:.1f}" for k, v in shown.items()))
        self.log.picture(report.step, f"{name}/detections", self.pictures(results))

    def pictures(self, results: list[Result]) -> np.ndarray:
        """uint8 [H, W, 3]: the first few images with predicted and true boxes."""
        by_image: dict[int, list[Result]] = {}
        for result in results:
            by_image.setdefault(result["image_id"], []).append(result)
        labels = {category: label for label, category in enumerate(self.split.category_ids)}
        drawn = []
        for record in self.split.records[:PICTURES]:
            found = [r for r in by_image.get(record.image_id, []) if r["score"] > SHOWN]
            boxes = np.array([r["bbox"] for r in found], dtype=np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            classes = [labels[r["category_id"]] for r in found]
            scores = [r["score"] for r in found]
            truth = (record.boxes, record.labels)
            drawn.append(draw_detections(read_image(record.path), boxes, classes, scores, self.split.classes, truth))
        return grid(drawn, columns=3)


def first_images(split: DetectionSet, number: int) -> DetectionSet:
    """The first `number` images of a split."""
    return replace(split, records=split.records[:number])
