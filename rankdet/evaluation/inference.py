"""A detector over a split: every image once, on any number of processes, to COCO results and metrics."""

import math
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from rankdet.data.records import Batch, DetectionSet
from rankdet.evaluation.coco import coco_ground_truth, coco_metrics
from rankdet.evaluation.postprocess import Detections, PostProcess
from rankdet.evaluation.results import Result, to_results
from rankdet.evaluation.voc import voc_metrics


class Detector(Protocol):
    """A network and how its outputs become detections."""

    model: nn.Module
    postprocess: PostProcess

    def probabilities(self, logits: Tensor) -> Tensor:
        """float [..., C] -> float [..., K] scores in [0, 1]."""


@torch.inference_mode()
def detect(detector: Detector, batch: Batch, device: torch.device) -> list[Detections]:
    """Detections of one batch in the pixels of the image files."""
    model, targets = detector.model, batch.targets
    was_training = model.training
    model.eval()
    output = model(batch.images.to(device))
    model.train(was_training)
    return detector.postprocess(
        output,
        detector.probabilities(output.logits.float()),
        model.coder,
        input_size=(batch.images.shape[2], batch.images.shape[3]),
        image_sizes=[target.size for target in targets],
        image_ids=[target.image_id for target in targets],
    )


def detect_all(
    detector: Detector, batches: Iterable[Batch], category_ids: tuple[int, ...], device: torch.device
) -> list[Result]:
    """COCO results of this process's share of the images, in the order of the batches."""
    results: list[Result] = []
    for batch in batches:
        results += to_results(detect(detector, batch, device), [t.image_id for t in batch.targets], category_ids)
    return results


def all_metrics(detection_set: DetectionSet, results: list[Result]) -> dict[str, float | None]:
    """COCO's and VOC's metrics in one flat dict, None where there is no object to find.

    By image id first: ties between images then fall alike however the images were shared among processes.
    """
    results = sorted(results, key=lambda result: result["image_id"])
    ground_truth = coco_ground_truth(detection_set)
    metrics = coco_metrics(ground_truth, results) | voc_metrics(ground_truth, results)
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}
