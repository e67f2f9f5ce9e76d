"""Precision against recall, as COCO reads it."""

import numpy as np

RECALLS = np.linspace(0.0, 1.0, 101)  # the levels at which precision is read


def class_curve(scores: np.ndarray, right: np.ndarray, num_objects: int) -> np.ndarray:
    """float64 [101]: the best precision at a recall of at least 0, 0.01 ... 1, and 0 where that is never reached.

    Of D detections of one class, `scores` float [D] and `right` bool [D]; num_objects >= 1. Equal scores keep the order
    given, as in pycocotools. A threshold just below each score gives one point of precision and recall.
    """
    right = right[np.argsort(-scores, kind="stable")]
    num_right = np.cumsum(right)
    precision = num_right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(num_right / num_objects, RECALLS, side="left")  # that reaches each recall
    return np.append(envelope, 0.0)[first]
