"""A detector measured on a split, by however many processes there are."""

from omegaconf import DictConfig

from rankdet.build import Detector, build_dataset
from rankdet.data.loader import evaluation_loader
from rankdet.data.records import DetectionSet
from rankdet.evaluation.inference import all_metrics, detect_all
from rankdet.evaluation.results import Result
from rankdet.training.distributed import World

IMAGES = 8  # per forward pass


def assess(
    cfg: DictConfig, detector: Detector, split: DetectionSet, here: World
) -> tuple[list[Result], dict[str, float | None]]:
    """COCO results of a whole split, on every rank, and its metrics, on the first (elsewhere empty).

    Each image is looked at once, by one of them.
    """
    here.share_buffers(detector.model)
    dataset = build_dataset(cfg, split, training=False)
    batches = evaluation_loader(dataset, IMAGES, here.rank, here.size, cfg.runtime.num_workers)
    shares = here.gather(detect_all(detector, batches, split.category_ids, here.device))
    results = [result for share in shares for result in share]
    return results, all_metrics(split, results) if here.is_main else {}
