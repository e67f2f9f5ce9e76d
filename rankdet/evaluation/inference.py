"""A detector over a split: every view of every image once, on any number of processes, to COCO results."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Protocol

import torch
from torch import Tensor, nn

from rankdet.data.records import Batch, Target
from rankdet.evaluation.postprocess import Candidates, Detections, PostProcess, laxest, pool
from rankdet.evaluation.results import Result, to_results
from rankdet.models.output import DetectorOutput
from rankdet.models.padding import padding_unseen


class Detector(Protocol):
    """A network and how its outputs become detections."""

    model: nn.Module
    postprocess: PostProcess

    def detections_output(self, images: Tensor, targets: list[Target]) -> DetectorOutput:
        """The network's output that becomes detections."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """float [..., C] -> float [..., K] scores in [0, 1]."""


@torch.inference_mode()
def candidates(
    detector: Detector, batch: Batch, device: torch.device, rule: PostProcess | None = None
) -> list[Candidates]:
    """What one view of some images shows, before NMS, in the pixels of the image files. rule: None: the detector's."""
    model = detector.model
    size = (batch.images.shape[2], batch.images.shape[3])
    was_training = model.training
    model.eval()
    with padding_unseen(model, size, [target.shown or size for target in batch.targets]):
        output = detector.detections_output(batch.images.to(device), batch.targets)
    model.train(was_training)
    return (rule or detector.postprocess).candidates(
        output,
        detector.probabilities(output.logits.float()),
        model.coder,
        size,
        batch.targets,
    )


def detect_image(detector: Detector, views: Iterable[Batch], device: torch.device) -> Detections:
    """Detections of one image in all its views, each a batch of one, merged."""
    found = [candidates(detector, view, device)[0] for view in views]
    return detector.postprocess.select(pool(found))


def detect_all(
    detector: Detector, batches: Iterable[Batch], category_ids: tuple[int, ...], device: torch.device
) -> list[Result]:
    """COCO results of this process's share of the images, by image id, all views of an image merged."""
    return detect_by_rules(detector, batches, category_ids, device, [detector.postprocess])[0]


def detect_by_rules(
    detector: Detector,
    batches: Iterable[Batch],
    category_ids: tuple[int, ...],
    device: torch.device,
    rules: Sequence[PostProcess],
) -> list[list[Result]]:
    """The same under each of the rules, by one pass of the network.

    Batches of the same images that follow each other, as evaluation_loader deals them out, are views of these. The
    candidates of a group of images are kept only until every rule has chosen from them.
    """
    laxest_rule = laxest(rules)
    results: list[list[Result]] = [[] for _ in rules]
    for ids, views in groupby(batches, key=_image_ids):
        found = [candidates(detector, view, device, laxest_rule) for view in views]
        pooled = [pool(of_image) for of_image in zip(*found, strict=True)]
        for rule, chosen in zip(rules, results, strict=True):
            chosen += to_results(map(rule.select, pooled), ids, category_ids)
    return [sorted(chosen, key=itemgetter("image_id")) for chosen in results]


def _image_ids(batch: Batch) -> list[int]:
    return [target.image_id for target in batch.targets]
