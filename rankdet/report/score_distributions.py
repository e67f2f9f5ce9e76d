"""Where a detector's scores lie: against overlap (AP-loss, TPAMI 2020, Fig. 7), and of objects and background.

The latter are the two densities of DR loss's supplement, Fig. 1. Both are counted in bins, batch by batch, so that any
number of anchors can be looked at.
"""

import sys
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from torch import Tensor
from torchvision.ops import box_iou
from tqdm import tqdm

from rankdet.build import Detector
from rankdet.data.loader import without_padding
from rankdet.data.records import Batch, Target
from rankdet.matching.assign import covered
from rankdet.report.verdicts import Verdicts

BINS = 50  # over [0, 1], for overlaps as for scores


class AnchorScores(NamedTuple):
    """How many anchors, or (anchor, class) pairs, fall into each bin."""

    overlap: np.ndarray  # int64 [BINS, BINS]: anchors by (IoU with their object, score of its class)
    foreground: np.ndarray  # int64 [BINS]: pairs that training calls positive, by score
    background: np.ndarray  # int64 [BINS]: pairs that it calls negative

    def plus(self, other: "AnchorScores") -> "AnchorScores":
        """Both together."""
        return AnchorScores(*(one + two for one, two in zip(self, other, strict=True)))


@torch.inference_mode()
def anchor_scores(detector: Detector, batches: Iterable[Batch], device: torch.device) -> AnchorScores:
    """Counts over all anchors of all images of evaluation batches, without padding; leaves the model in eval mode."""
    square, line = np.zeros((BINS, BINS), np.int64), np.zeros(BINS, np.int64)
    total = AnchorScores(square, line, line)
    detector.model.eval()
    batches = tqdm(batches, desc="anchors", unit="batch", leave=False, disable=not sys.stderr.isatty())
    for batch in without_padding(batches):
        output = detector.detections_output(batch.images.to(device), batch.targets)
        inputs = detector.last.match(output, batch.targets)
        scores = detector.probabilities(output.logits.float())
        total = total.plus(count_anchors(scores, inputs.labels, output.anchors, batch.targets))
    return total


def count_anchors(scores: Tensor, labels: Tensor, anchors: Tensor, targets: list[Target]) -> AnchorScores:
    """One batch: scores float [B, A, K] in [0, 1], labels int8 [B, A, K] (1, 0, -1 ignored), anchors [A, 4] or
    [B, A, 4], xyxy.

    An anchor's object is the one it overlaps most (IoU of the anchor, not of the box predicted from it). An anchor that
    touches no object has IoU 0 and no class to be scored for: the highest of its scores is taken, as that is what could
    become a false positive. Anchors that lie in a region to be ignored and answer for no object are left out.
    """
    square = np.zeros((BINS, BINS), np.int64)
    of_images = anchors.expand(len(targets), *anchors.shape[-2:])
    for image_scores, image_labels, own_anchors, target in zip(scores, labels, of_images, targets, strict=True):
        ignore = target.ignore.to(anchors.device)
        boxes, classes = target.boxes.to(anchors.device), target.labels.to(anchors.device)
        iou, score = torch.zeros_like(image_scores[:, 0]), image_scores.amax(dim=1)
        if (~ignore).any():
            iou, nearest = box_iou(own_anchors, boxes[~ignore]).max(dim=1)
            own = image_scores.gather(1, classes[~ignore][nearest][:, None]).squeeze(1)
            score = torch.where(iou > 0, own, score)
        shown = ~covered(own_anchors, boxes[ignore]) | (image_labels == 1).any(dim=1)
        square += _histogram(iou[shown], score[shown])
    foreground, background = (_histogram(scores[labels == kind]) for kind in (1, 0))
    return AnchorScores(square, foreground, background)


def detection_scores(verdicts: Verdicts) -> np.ndarray:
    """int64 [BINS, BINS]: detections that count by (greatest IoU with an object of their class, score)."""
    kept = ~verdicts.ignored
    return _histogram(torch.from_numpy(verdicts.same_iou[kept]), torch.from_numpy(verdicts.score[kept]))


def _histogram(*values: Tensor) -> np.ndarray:
    """int64 [BINS] or [BINS, BINS]: how many fall into each bin of [0, 1], whose last one is closed."""
    place = torch.zeros_like(values[0], dtype=torch.int64)
    for value in values:
        place = place * BINS + (value * BINS).long().clamp(0, BINS - 1)
    return torch.bincount(place, minlength=BINS ** len(values)).view((BINS,) * len(values)).cpu().numpy()


def draw_overlap(axes: Axes, counts: np.ndarray, what: str) -> None:
    """Score (up) against IoU (right) as a density on a logarithmic scale, and the mean score at each IoU."""
    edges = np.linspace(0, 1, BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    if counts.any():
        density = np.ma.masked_equal(counts.T, 0)
        mesh = axes.pcolormesh(edges, edges, density, norm=LogNorm(1, max(2, counts.max())), rasterized=True)
        axes.figure.colorbar(mesh, ax=axes, label=f"{what} in a bin", pad=0.02)
        number = counts.sum(axis=1)
        means = np.divide(counts @ centres, number, out=np.full(BINS, np.nan), where=number > 0)
        axes.plot(centres, means, color="C1", lw=2)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="IoU with the object", ylabel="score of the object's class")


def draw_densities(axes: Axes, scores: AnchorScores, log: bool, divisor: int = 1) -> None:
    """Densities over the score of positive and negative (anchor, class) pairs, the latter divided by `divisor`."""
    edges = np.linspace(0, 1, BINS + 1)
    shares = {"background" if divisor == 1 else f"background / {divisor}": 1 / divisor, "foreground": 1.0}
    for (name, share), counts, colour in zip(
        shares.items(), (scores.background, scores.foreground), ("C7", "C1"), strict=True
    ):
        if counts.any():
            density = share * BINS * counts / counts.sum()
            axes.stairs(density, edges, fill=True, alpha=0.35, color=colour)
            axes.stairs(density, edges, color=colour, lw=1.5, label=name, baseline=None)
            axes.legend(fontsize="small")
    axes.set(xlim=(0, 1), xlabel="score", ylabel="density", yscale="log" if log else "linear")
