"""One trained detector under one test condition: metrics, and pictures of what it was shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankdet.data.dataset import DetectionDataset
from rankdet.data.loader import evaluation_loader, train_loader, without_padding
from rankdet.data.records import DetectionSet
from rankdet.data.view_dataset import ViewDataset
from rankdet.data.views import Views
from rankdet.errors import UserError
from rankdet.evaluation.coco import coco_ground_truth
from rankdet.evaluation.inference import detect_all
from rankdet.evaluation.matches import coco_matches
from rankdet.evaluation.metrics import all_metrics, metrics_of
from rankdet.evaluation.results import Result
from rankdet.robustness import adversarial
from rankdet.robustness.altered import AlteredImages
from rankdet.robustness.conditions import ADVERSARIAL, BOUNDS, CONDITIONS, DEEPFOOL, ORIGINAL, SEED
from rankdet.robustness.fooling import best_detections, fool_detector, operating_point
from rankdet.robustness.noise import gaussian_noise
from rankdet.robustness.patches import Alteration, black_patch, flip_patch, random_patch

IMAGES = 8  # per forward pass
ATTACKED = 100  # images that DeepFool attacks at most, spread evenly over the split
PICTURES = 4
AMPLIFIED = 20  # DeepFool's perturbations are too faint to be seen

# What a condition does to an image without regard to the model.
ALTERATIONS: dict[str, Alteration] = {
    ORIGINAL: lambda image, boxes, generator: image,
    "black_patch": black_patch,
    "random_patch": random_patch,
    "flip_patch": flip_patch,
    "gaussian_noise": gaussian_noise,
}


class Outcome(NamedTuple):
    """metrics: fractions, and for DeepFool see Suite.fool. pictures: [h, w, 3] in about 0..255, for looking.

    note: what else than the altered images they show. results: the detections, where a condition has them.
    """

    metrics: dict[str, float | None]
    pictures: list[np.ndarray]
    note: str = ""
    results: Sequence[Result] | None = None


@dataclass
class Suite:
    """What every condition is measured with. train: a mere resize of the training split; only the texture uses it."""

    detector: Any  # rankdet.build.Detector
    train: DetectionDataset
    test: DetectionSet
    views: Views
    device: torch.device
    num_workers: int = 0

    def measure(self, condition: str) -> Outcome:
        """The detector under a condition of CONDITIONS; UserError for another name."""
        if condition not in CONDITIONS:
            raise UserError(f"conditions={condition}: there is no such condition; there are {', '.join(CONDITIONS)}")
        if condition == DEEPFOOL:
            return self.fool()
        if condition in BOUNDS:
            return self.bound(BOUNDS[condition])
        altered = AlteredImages(self.test, self.views, self.alteration(condition), SEED)
        batches = evaluation_loader(altered, IMAGES, num_workers=self.num_workers)
        results = detect_all(self.detector, batches, self.test.category_ids, self.device)
        return Outcome(all_metrics(self.test, results), some_pictures(altered), results=results)

    def bound(self, name: str) -> Outcome:
        """AP, AP50, AP75, AP90 and rho of bound_metrics ("lower" or "upper"), without pictures: nothing is altered.

        UserError for a split without objects at hand, in which nothing is right or wrong.
        """
        if not self.test.labelled:
            raise UserError(f"{self.test.name}/{self.test.split}: bounds need its objects, which a server keeps")
        batches = self._batches(ViewDataset(self.test, self.views))
        results = detect_all(self.detector, batches, self.test.category_ids, self.device)
        metrics = metrics_of(coco_ground_truth(self.test), results, ("bounds",))
        prefix = f"{name}_"
        own = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
        return Outcome(own, [])

    def originals(self) -> list[np.ndarray]:
        """The images of which a condition's pictures show what it made."""
        return some_pictures(ViewDataset(self.test, self.views))

    def alteration(self, condition: str) -> Alteration:
        """What the condition does to an image; the adversarial patch's texture is trained on first use."""
        return adversarial.textured_patch(self.texture) if condition == ADVERSARIAL else ALTERATIONS[condition]

    @cached_property
    def texture(self) -> np.ndarray:
        """uint8 [S, S, 3]: the adversarial patch against this detector."""
        batches = train_loader(
            self.train, adversarial.BATCH_SIZE, total_steps=adversarial.STEPS, num_workers=self.num_workers
        )
        return adversarial.train_texture(self.detector, batches, SEED, self.device)

    def fool(self) -> Outcome:
        """DeepFool on at most 100 images: see fool_detector and operating_point.

        norm: the mean L2 norm over the attacked images, in grey levels; median_norm; relative_norm: the mean of norm
        over the image's own (DeepFool, Eq. 2); all None where no image is attacked. attacked: how many have a detection
        over `threshold`, of `images`. fooled: the share of them that the search ended with success for; of the others
        the norm counts as far as it came. What is attacked, and what norms are taken of, is the image without padding.
        """
        records = self.test.records
        subset = replace(self.test, records=tuple(records[index] for index in _spread(len(records), ATTACKED)))
        dataset = ViewDataset(subset, self.views)
        if any(len(dataset.views_of(index)) > 1 for index in range(len(dataset))):
            raise UserError("deepfool: attacks one view of an image: choose a test_input of one scale, unmirrored")
        threshold = self._threshold(dataset)
        norms, relative, success, shown = [], [], [], []
        for batch in without_padding(self._batches(dataset)):
            images = batch.images.to(self.device).float()
            best = best_detections(self.detector, images)
            kept = best.scores > threshold
            if not kept.any():
                continue
            images = images[kept]
            fooled = fool_detector(self.detector, images, type(best)(*(part[kept] for part in best)), threshold)
            norms.append(fooled.norms.double().cpu())
            relative.append(norms[-1] / images.flatten(1).norm(dim=1).double().cpu())
            success.append(fooled.success.double().cpu())
            if len(shown) < PICTURES:
                shown.append(_pixels(127.5 + AMPLIFIED * fooled.perturbations[0]))
        numbers = {
            "norm": _mean(norms),
            "median_norm": _mean(norms, torch.median),
            "relative_norm": _mean(relative),
            "fooled": _mean(success),
            "attacked": float(sum(map(len, norms))),
            "images": float(len(dataset)),
            "threshold": float(threshold),
        }
        return Outcome(numbers, shown, f" (shown: perturbations alone, {AMPLIFIED} times, on grey)")

    def _threshold(self, dataset: ViewDataset) -> float:
        results = detect_all(self.detector, self._batches(dataset), self.test.category_ids, self.device)
        matches = coco_matches(coco_ground_truth(dataset.detection_set), results)["all"].values()
        verdicts = [pair for of_class in matches for pair in zip(of_class.scores, of_class.right, strict=True)]
        return operating_point(verdicts, sum(of_class.num_objects for of_class in matches))

    def _batches(self, dataset: ViewDataset) -> Any:  # noqa: ANN401
        return evaluation_loader(dataset, IMAGES, num_workers=self.num_workers)


def some_pictures(dataset: ViewDataset) -> list[np.ndarray]:
    """Up to 4 images of a split in their first views, evenly spread, [h, w, 3]."""
    return [_pixels(dataset[0, index][0]) for index in _spread(len(dataset), PICTURES)]


def _spread(length: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices 0 ... length - 1, evenly spread."""
    wanted = min(length, wanted)
    return [place * length // wanted for place in range(wanted)]


def _pixels(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).cpu().numpy()


def _mean(parts: list[Tensor], how: Callable[[Tensor], Tensor] = torch.mean) -> float | None:
    return float(how(torch.cat(parts))) if parts else None
