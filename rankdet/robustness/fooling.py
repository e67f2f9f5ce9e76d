"""DeepFool against a detector: how far an image is from losing its best detection (AP-loss, Table 3)."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from rankdet.evaluation.operating_point import best_f1
from rankdet.models.output import DetectorOutput
from rankdet.robustness.deepfool import Fooled, deepfool

SAME_OBJECT = 0.5  # IoU from which two anchors' boxes count as detections of one object
LEAST = 1e-12  # probabilities are taken this far from 0 and 1 at least: their logits stay finite


class Detector(Protocol):
    """What is attacked. model has the box coder as `coder`; in evaluation mode its images do not affect each other."""

    model: nn.Module

    def probabilities(self, logits: Tensor) -> Tensor:
        """float [..., C] -> float [..., K] scores in [0, 1]."""


class BestDetections(NamedTuple):
    """The best-scored (anchor, class) of each of B images, and the anchors that detect the same object."""

    classes: Tensor  # int64 [B]
    scores: Tensor  # float64 [B], in [0, 1]
    anchors: Tensor  # bool [B, A]: boxes that overlap the best one's by an IoU of at least 0.5, itself included


def fool_detector(detector: Detector, images: Tensor, best: BestDetections, threshold: float) -> Fooled:
    """The smallest perturbations found of images float [B, 3, H, W] (0..255) that change their best detections.

    The generalisation: a detection is a classifier of its own. Of the anchors A_d that detect one object in the
    unaltered image, let F_k(x) = max over a in A_d of logit p_ak(x), p_ak the score of class k at anchor a, and let
    F_0 = logit(threshold) stand for "no detection". The image's decision is the largest of F_0, F_1 ... F_K: class c as
    long as F_c is. It changes when every anchor of the object falls to the threshold in class c (the detection is
    removed) or another class overtakes c (it is turned). DeepFool finds the nearest such change; norms are L2 over all
    3 H W values, in grey levels. Logits, since they are what a network is nearly linear in, and p's, so that sigmoid
    and softmax heads are treated alike. Padding would be perturbed too: the images must have none. ValueError unless
    every best score exceeds threshold.
    """
    level = torch.logit(torch.tensor(threshold, dtype=torch.float64).clamp(LEAST, 1 - LEAST)).item()
    if not bool((best.scores > threshold).all()):
        raise ValueError("best: every image must have a detection that scores more than threshold")

    def decide(altered: Tensor, rows: Tensor) -> Tensor:
        scores = _logits_of_scores(detector, detector.model(altered))
        of_object = scores.masked_fill(~best.anchors[rows][:, :, None], -torch.inf).amax(dim=1)
        nothing = torch.full_like(of_object[:, :1], level)
        return torch.cat([nothing, of_object], dim=1)

    return deepfool(decide, images)


@torch.no_grad()
def best_detections(detector: Detector, images: Tensor) -> BestDetections:
    """Of images float [B, 3, H, W] (no padding), without regard to any threshold; boxes as predicted, not clipped."""
    output = detector.model(images)
    scores = detector.probabilities(output.logits.double())
    num_classes = scores.shape[2]
    best, place = scores.flatten(1).max(dim=1)
    anchors, classes = place // num_classes, place % num_classes
    same = []
    for deltas, anchor in zip(output.deltas.float(), anchors.tolist(), strict=True):
        boxes = detector.model.coder.decode(output.anchors, deltas)
        overlap = box_iou(boxes[anchor][None], boxes)[0] >= SAME_OBJECT
        overlap[anchor] = True  # also where its box has no area
        same.append(overlap)
    return BestDetections(classes, best, torch.stack(same))


def operating_point(verdicts: Sequence[tuple[float, bool]], num_objects: int) -> float:
    """The score threshold (detections must exceed it) with the best F1 of detections (score, right); ties: the highest.

    Scores of different losses live on different scales; each model's own best point makes them comparable. It lies
    halfway between the last score kept and the next one below (at the end: half the last). 1 where nothing is right.
    """
    scores = np.array([score for score, _ in verdicts], np.float64)
    score, f1 = best_f1(scores, np.array([right for _, right in verdicts], bool), num_objects)
    return (score + max(scores[scores < score], default=0.0)) / 2 if f1 > 0 else 1.0


def _logits_of_scores(detector: Detector, output: DetectorOutput) -> Tensor:
    """float64 [B, A, K]; for a sigmoid head the logits themselves."""
    return torch.logit(detector.probabilities(output.logits.double()).clamp(LEAST, 1 - LEAST))
