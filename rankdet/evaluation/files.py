"""A results file measured against a file or folder of annotations: whoever made them, without a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankdet.data.voc import VOCSource
from rankdet.errors import UserError
from rankdet.evaluation.coco import coco_ground_truth
from rankdet.evaluation.ground_truth import read_ground_truth
from rankdet.evaluation.metrics import metrics_of
from rankdet.evaluation.results import Result, check_results, load_results

ANNOTATIONS, SPLITS = "Annotations", "ImageSets/Main"  # the parts of a VOC folder that hold ground truth


def evaluate_files(results_file: Path, annotations: Path, split: str, groups: Sequence[str]) -> dict[str, float | None]:
    """Metrics, as metrics_of gives them, of a COCO results file.

    annotations: a COCO annotation file, or a folder in VOC layout, of which `split` is measured. For VOC an image's id
    is its place in the split's file, from 0, and a class's its place among the sorted names, from 1; results may give
    the image's name without suffix and the class's name instead. UserError names the file and what is wrong with it,
    also where one changes under way.
    """
    before = [_state(path) for path in (results_file, annotations)]
    if annotations.is_dir():
        ground_truth = _voc_ground_truth(annotations, split)
        results = _with_ids(ground_truth, load_results(results_file))
    else:
        ground_truth = read_ground_truth(annotations)
        results = load_results(results_file)
    check_results(ground_truth, results, str(results_file))
    metrics = metrics_of(ground_truth, results, groups)
    for path, state in zip((results_file, annotations), before, strict=True):
        if _state(path) != state:
            raise UserError(f"{path}: changed while it was being evaluated; nothing was written, so start again")
    return metrics


def _voc_ground_truth(folder: Path, split: str) -> dict[str, Any]:
    for part in (ANNOTATIONS, SPLITS):
        if not (folder / part).is_dir():
            raise UserError(
                f"{folder}: has no folder {part}, so it is not in VOC layout; for COCO name the file, "
                "e.g. annotations=DIR/annotations/instances_val2017.json"
            )
    return coco_ground_truth(VOCSource(folder).read(split))


def _with_ids(ground_truth: dict[str, Any], results: list[Result]) -> list[Result]:
    """results with ids in the place of names."""
    ids = {
        "image_id": {Path(image["file_name"]).stem: image["id"] for image in ground_truth["images"]},
        "category_id": {category["name"]: category["id"] for category in ground_truth["categories"]},
    }
    return [
        result
        | {key: known.get(result[key], result[key]) for key, known in ids.items() if type(result.get(key)) is str}
        if isinstance(result, dict)
        else result
        for result in results
    ]


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the files that hold the annotations or results at path; empty where there are none."""
    files = [file for part in (ANNOTATIONS, SPLITS) for file in (path / part).glob("*")] if path.is_dir() else [path]
    return [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in sorted(files) if file.is_file()]
