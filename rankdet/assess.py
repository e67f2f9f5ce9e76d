"""A detector measured on a split, by however many processes there are."""

import sys
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter

from omegaconf import DictConfig
from tqdm import tqdm

from rankdet.build import Detector, build_dataset
from rankdet.data.loader import evaluation_loader
from rankdet.data.records import DetectionSet
from rankdet.evaluation.inference import detect_by_rules
from rankdet.evaluation.metrics import all_metrics
from rankdet.evaluation.postprocess import PostProcess
from rankdet.evaluation.results import Result
from rankdet.training.distributed import World

IMAGES = 8  # per forward pass


def assess(
    cfg: DictConfig, detector: Detector, split: DetectionSet, here: World
) -> tuple[list[Result], dict[str, float | None]]:
    """COCO results of a whole split, on every rank, and its metrics, on the first (elsewhere empty).

    Each image is looked at by one of them, once in each view that cfg.test_input asks for. Results go by image id.
    """
    results = assess_by_rules(cfg, detector, split, here, [detector.postprocess])[0]
    return results, all_metrics(split, results) if here.is_main else {}


def assess_by_rules(
    cfg: DictConfig,
    detector: Detector,
    split: DetectionSet,
    here: World,
    rules: Sequence[PostProcess],
    progress: bool = False,
) -> list[list[Result]]:
    """COCO results of a whole split under each of the rules, on every rank, by one pass of the network.

    progress: whether to show a bar, on the first rank and in a terminal.
    """
    here.share_buffers(detector.model)
    dataset = build_dataset(cfg, split, training=False)
    batches = evaluation_loader(dataset, IMAGES, here.rank, here.size, cfg.runtime.num_workers)
    batches = tqdm(batches, unit="batch", leave=False, disable=not (progress and here.is_main and sys.stderr.isatty()))
    shares = here.gather(detect_by_rules(detector, batches, split.category_ids, here.device, rules))
    return [sorted(chain(*of_rule), key=itemgetter("image_id")) for of_rule in zip(*shares, strict=True)]
