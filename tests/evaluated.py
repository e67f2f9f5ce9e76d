"""Ground truth and results for the tests of the metrics: made by hand, drawn at random, golden, and a detector's."""

import json
import os
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
GOLDEN = Path(os.environ.get("RANKDET_GOLDEN") or HERE / "golden")


def ground_truth(boxes, categories=("a",), images=1, **fields):
    """One object of category 1 in image 1 per box; or (image, category, box)."""
    annotations = []
    for entry in boxes:
        image, category, bbox = entry if len(entry) == 3 else (1, 1, entry)
        annotations.append({"image_id": image, "category_id": category, "bbox": list(bbox)} | fields)
    return {
        "images": [{"id": i + 1, "height": 200, "width": 200} for i in range(images)],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(categories)],
        "annotations": annotations,
    }


def result(bbox, score, image=1, category=1):
    return {"image_id": image, "category_id": category, "bbox": list(bbox), "score": score}


def random_data(seed, crowds=True, difficult=False, images=10):
    """Ten images, three categories with holes in their ids, jittered detections."""
    rng = np.random.default_rng(seed)
    categories = [{"id": i, "name": f"class {i}"} for i in (2, 5, 11)]
    pictures = [{"id": i, "height": 300, "width": 300} for i in range(10, 10 + images)]
    annotations, results = [], []
    for image in pictures:
        for _ in range(rng.integers(0, 8)):
            bbox = [*rng.uniform(0, 150, 2), *rng.uniform(8, 140, 2)]
            category = int(rng.choice([2, 5, 11]))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": [float(x) for x in bbox],
                    "area": float(bbox[2] * bbox[3]),
                    "iscrowd": int(crowds and rng.random() < 0.1),
                }
            )
            for _ in range(rng.integers(0, 4)):
                found = np.asarray(bbox) + rng.normal(size=4) * 5
                score = round(float(rng.random()), 1)  # with ties
                results.append(result([float(x) for x in np.maximum(found, 1)], score, image["id"], category))
    for annotation in annotations if difficult else ():
        annotation["difficult"] = int(rng.random() < 0.2)
    return {"images": pictures, "categories": categories, "annotations": annotations}, results


def golden(name):
    """(ground truth, results, expected) of lrp or lrp_edge."""
    return [json.loads((GOLDEN / f"{name}_{part}.json").read_text()) for part in ("gt", "dt", "expected")]


def predictions():
    """(ground truth, results) of a trained detector on ten photographs of blood cells."""
    content = json.loads((HERE / "predictions_bccd.json").read_text())
    return content["ground_truth"], content["results"]
