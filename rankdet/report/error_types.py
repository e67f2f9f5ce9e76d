"""What a detector does wrong: each false positive and each object not found put down to one cause, and its cost in AP.

The causes are those of TIDE (Bolya et al., ECCV 2020, Sec. 2), which refines Hoiem et al. (ECCV 2012).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rankdet.evaluation.curve import class_curve
from rankdet.evaluation.results import Result
from rankdet.report.verdicts import Verdicts, judge

FOUND, TOUCHED = 0.5, 0.1  # TIDE's foreground and background IoU
LOCALISATION, CONFUSION, DUPLICATE, BOTH, BACKGROUND, MISSED = range(6)
NO_ERROR = -1
# Name, meaning, and what the oracle does that repairs all errors of the kind.
KINDS = (
    ("localisation", "right class, but the box overlaps its object by an IoU of 0.1 to 0.5 only", "box moved onto it"),
    ("confusion", "the box fits an object of another class (IoU of at least 0.5)", "class corrected"),
    ("duplicate", "the object had already been found by a detection of higher score", "detection removed"),
    (
        "confusion and localisation",
        "overlaps another class's object by an IoU of 0.1 to 0.5",
        "detection removed",
    ),
    ("background", "lies on no object (every IoU below 0.1)", "detection removed"),
    ("missed", "an object that nothing found, not even with a wrong box or class", "object not asked for"),
)


class ErrorType(NamedTuple):
    """All errors of one kind."""

    name: str
    meaning: str  # for a reader, one sentence
    repair: str
    count: int  # among all detections
    count_above: int  # among those that reach the score given
    ap_cost: float  # AP50 with these errors repaired, minus AP50; a fraction, NaN where no class has an object


def error_types(ground_truth: dict[str, Any], results: Sequence[Result], score: float = 0.0) -> list[ErrorType]:
    """The six kinds, in the order of KINDS; `score` is for the second count only. Results may be empty."""
    return count_errors(judge(ground_truth, results, FOUND), score)


def count_errors(verdicts: Verdicts, score: float) -> list[ErrorType]:
    """The same from verdicts at IoU 0.5."""
    counts = []
    for these in (verdicts, verdicts.scoring(score)):
        kinds = kinds_of_detections(these)
        counts.append([*(int((kinds == kind).sum()) for kind in range(MISSED)), int(missed(these, kinds).sum())])
    costs = ap_costs(verdicts)
    return [ErrorType(*kind, *numbers) for kind, *numbers in zip(KINDS, *counts, costs, strict=True)]


def kinds_of_detections(verdicts: Verdicts) -> np.ndarray:
    """int64 [D]: the kind of each wrong detection, NO_ERROR for the others. Verdicts must be those at IoU 0.5.

    Where the words of several kinds fit, it is the first in the order of KINDS.
    """
    same, other = verdicts.same_iou, verdicts.other_iou
    conditions = [
        ~verdicts.wrong,
        (same >= TOUCHED) & (same < FOUND),
        other >= FOUND,
        same >= FOUND,  # and yet wrong: another has it
        other >= TOUCHED,
    ]
    return np.select(conditions, [NO_ERROR, LOCALISATION, CONFUSION, DUPLICATE, BOTH], BACKGROUND)


def missed(verdicts: Verdicts, kinds: np.ndarray) -> np.ndarray:
    """bool [G]: objects that count, that no detection found and that no localisation or confusion error is about."""
    reached = np.zeros(len(verdicts.objects.counts), bool)
    reached[verdicts.found[verdicts.right]] = True
    for kind in (LOCALISATION, CONFUSION):
        reached[_meant(verdicts, kind)[kinds == kind]] = True
    return verdicts.objects.counts & ~reached


def ap_costs(verdicts: Verdicts) -> list[float]:
    """By how much repairing each kind alone would raise AP50 (101 recall levels, mean over classes): TIDE's dAP.

    A localisation or confusion error becomes right; of all detections that an object then has, the best scored stays.
    Duplicates, "both" and background go. A missed object is no longer asked for; a class of which none is left has AP 1
    if nothing is predicted of it either, else 0. The costs do not add up to 1 - AP50: errors hide behind one another.
    """
    kinds = kinds_of_detections(verdicts)
    classes, num_objects = np.unique(verdicts.objects.category_id[verdicts.objects.counts], return_counts=True)
    before = _ap(verdicts.category_id, verdicts.score, verdicts.right, ~verdicts.ignored, classes, num_objects)
    costs = []
    for kind in range(MISSED):
        if kind in (LOCALISATION, CONFUSION):
            columns = _corrected(verdicts, kinds, kind)
        else:
            kept = ~verdicts.ignored & (kinds != kind)
            columns = (verdicts.category_id, verdicts.score, verdicts.right, kept)
        costs.append(_ap(*columns, classes, num_objects) - before)
    lost = verdicts.objects.category_id[missed(verdicts, kinds)]
    left = num_objects - (lost[:, None] == classes).sum(axis=0)
    columns = (verdicts.category_id, verdicts.score, verdicts.right, ~verdicts.ignored)
    return [*costs, _ap(*columns, classes, left) - before]


def _meant(verdicts: Verdicts, kind: int) -> np.ndarray:
    """int64 [D]: the object that a detection would have found, had it not made an error of this kind."""
    return verdicts.same_object if kind == LOCALISATION else verdicts.other_object


def _corrected(
    verdicts: Verdicts, kinds: np.ndarray, kind: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Category, score, right and kept (each [D]) after the detections of one kind found what they meant."""
    mended = kinds == kind
    aim = np.where(mended, _meant(verdicts, kind), verdicts.found)
    category = verdicts.category_id.copy()
    category[mended] = verdicts.objects.category_id[aim[mended]]
    right = verdicts.right | mended
    kept = ~verdicts.ignored
    order = np.argsort(-verdicts.score, kind="stable")
    order = order[right[order]]
    first = np.unique(aim[order], return_index=True)[1]
    kept[order[np.setdiff1d(np.arange(len(order)), first)]] = False
    return category, verdicts.score, right, kept


def _ap(
    category: np.ndarray,
    score: np.ndarray,
    right: np.ndarray,
    kept: np.ndarray,
    classes: np.ndarray,
    num_objects: np.ndarray,
) -> float:
    """Mean AP over the classes, of which num_objects (int [K]) are to be found; NaN without classes."""
    values = []
    for each, number in zip(classes, num_objects, strict=True):
        mine = kept & (category == each)
        values.append(class_curve(score[mine], right[mine], number).mean() if number else float(not mine.any()))
    return float(np.mean(values)) if values else float("nan")
