"""ATSS: golden assignments, cases by hand, a slow twin in exact arithmetic, and what is empty or equal."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from box_twins import boxes, exact_iou
from hydra.utils import instantiate
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from reference import golden_files
from torch import Tensor

from rankdet.matching.atss import ATSSMatcher, nearest


def match(anchors: Tensor, objects: Tensor, level_sizes: list[int] | None = None, topk: int = 9) -> list[int]:
    result = ATSSMatcher(topk)(anchors, objects, [len(anchors)] if level_sizes is None else level_sizes)
    assert result.dtype == torch.int64
    assert result.shape == (len(anchors),)
    return result.tolist()


def test_golden():
    """gt_inds counts from 1 and writes 0 for a negative; in float32 and float64 alike."""
    files = golden_files("atss")
    for file in files:
        golden = np.load(file)
        for dtype in (torch.float32, torch.float64):
            anchors, objects = (torch.tensor(golden[name]).to(dtype) for name in ("anchors", "gt_boxes"))
            matched = ATSSMatcher(int(golden["topk"]))(anchors, objects, golden["num_level_anchors"].tolist())
            assert np.array_equal(matched.numpy() + 1, golden["gt_inds"])
            assert len(matched.unique()) == 1 + len(objects)
    assert len(files) == 3


def test_by_hand():
    """Level one: 4 x 4 at x = 0, 4, 8, 12; level two: 16 x 16 about (8, 2). Object (1, 0, 5, 4), centre (3, 2), topk 2.

    Candidates: x = 0 (1 away; IoU 12 / 20), x = 4 (3 away; 4 / 28), the large one (16 / 256). Mean 0.26845; squared
    deviations 0.10992, 0.01577, 0.04242, their sum over 2 is 0.08406, so 0.26845 + 0.28993 = 0.55838: the first alone.
    With topk 3 there is x = 8, too (IoU 0): mean 0.20134, deviation sqrt(0.22217 / 3) = 0.27213, together 0.47347.
    """
    anchors = boxes(*((x, 0, x + 4, 4) for x in (0, 4, 8, 12)), (0, -6, 16, 10))
    for topk in (2, 3):
        assert match(anchors, boxes((1, 0, 5, 4)), [4, 1], topk) == [0, -1, -1, -1, -1]


def test_the_sample_deviation_decides():
    """Objects (0, 0, 10, h) over anchors (0, 0, 10, 10) and two far ones: IoUs h / 10, 0, 0.

    Mean m = h / 30, deviation sqrt(m^2 (4 + 1 + 1) / 2) = sqrt(3) m: 2.73 m is below 3 m, the IoU. Of two candidates
    with IoUs a > b the larger misses (a + b) / 2 + (a - b) / sqrt(2), where n in the denominator would let it pass.
    """
    anchors = boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10))
    assert match(anchors, boxes((0, 0, 10, 8))) == [0, -1, -1]
    assert match(anchors[:2], boxes((0, 0, 10, 8))) == [-1, -1]


def test_a_lone_candidate_needs_its_centre_inside_only():
    """It has no deviation: the threshold is its own IoU, here 1 / 100."""
    assert match(boxes((0, 0, 10, 10)), boxes((4.5, 4.5, 5.5, 5.5))) == [0]
    assert match(boxes((0, 0, 10, 10)), boxes((6, 6, 7, 7))) == [-1]


def test_inside_by_a_hundredth_of_a_pixel():
    """Centre (5, 5) of a lone anchor; each side of the object in turn comes within 0.02 and 0.005 of it."""
    for side, sign in enumerate((-1, -1, 1, 1)):
        for margin, expected in ((0.02, 0), (0.005, -1), (-1, -1)):
            edges = [0.0, 0.0, 10.0, 10.0]
            edges[side] = 5 + sign * margin
            assert match(boxes((0, 0, 10, 10)), boxes(tuple(edges))) == [expected]


def test_equal_overlaps_reach_their_mean():
    """Nine equal candidates of IoU 1 / side^2: the threshold is that IoU, whose float32 mean may be the next number."""
    for side in range(2, 60):
        object_box = (side / 2 - 0.5, side / 2 - 0.5, side / 2 + 0.5, side / 2 + 0.5)
        assert match(boxes(*[(0, 0, side, side)] * 9), boxes(object_box)) == [0] * 9


def test_of_equal_distances_the_earlier_anchor():
    """Four cells of 8 about the object's centre (8, 8), their centres in it, 4 and 4 away: topk takes the first ones.

    All overlap alike, so every candidate is positive.
    """
    anchors = boxes((0, 0, 8, 8), (8, 0, 16, 8), (0, 8, 8, 16), (8, 8, 16, 16))
    for topk in (1, 2, 3, 4):
        assert match(anchors, boxes((2, 2, 14, 14)), topk=topk) == [0] * topk + [-1] * (4 - topk)


def test_the_higher_iou_wins_a_shared_anchor():
    """Lone anchor (0, 0, 10, 10); objects (0, 0, 10, 6) and (0, 0, 10, 8): IoU 0.6 and 0.8, in either order."""
    anchor, small, large = boxes((0, 0, 10, 10)), (0, 0, 10, 6), (0, 0, 10, 8)
    assert match(anchor, boxes(small, large)) == [1]
    assert match(anchor, boxes(large, small)) == [0]


def test_of_equal_objects_the_earlier_one_has_the_anchors():
    anchors = boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10))
    assert match(anchors, boxes(*[(0, 0, 10, 8)] * 3)) == [0, -1, -1]


def test_an_object_outside_all_anchors_gets_none():
    """Its candidates' IoUs are all 0 and reach their mean, but no centre is inside."""
    assert match(boxes((0, 0, 10, 10), (10, 0, 20, 10)), boxes((500, 500, 600, 600))) == [-1, -1]


def test_nothing_to_match():
    anchors = boxes((0, 0, 10, 10), (5, 5, 6, 6))
    assert match(anchors, boxes()) == [-1, -1]
    assert match(boxes(), boxes((0, 0, 1, 1)), [0, 0]) == []
    assert match(boxes(), boxes(), []) == []


def test_a_level_without_anchors_changes_nothing():
    anchors = boxes(*((x, 0, x + 4, 4) for x in (0, 4, 8, 12)), (0, -6, 16, 10))
    assert match(anchors, boxes((1, 0, 5, 4)), [0, 4, 0, 1, 0], topk=2) == [0, -1, -1, -1, -1]


def test_levels_that_do_not_add_up_are_refused():
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        match(boxes((0, 0, 10, 10)), boxes((0, 0, 10, 10)), [2])


@given(st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=3), st.integers(1, 9))
def test_nearest_by_sorting(rows, number):
    """Python's sort is stable."""
    expected = [[i in sorted(range(7), key=row.__getitem__)[:number] for i in range(7)] for row in rows]
    assert nearest(torch.tensor(rows, dtype=torch.float32), number).tolist() == expected


Row = list[int]


def slow_match(levels: list[list[Row]], objects: list[Row], topk: int) -> list[int]:
    """The rule of ATSSMatcher's docstring, object by object; given up where an IoU just about meets a threshold."""
    anchors = [anchor for level in levels for anchor in level]
    winner, winning = [-1] * len(anchors), [Fraction(-1)] * len(anchors)
    for g, box in enumerate(objects):
        candidates, start = [], 0
        for level in levels:

            def distance(a: int) -> int:
                anchor = anchors[a]
                return sum((anchor[i] + anchor[i + 2] - box[i] - box[i + 2]) ** 2 for i in (0, 1))  # noqa: B023

            candidates += sorted(range(start, start + len(level)), key=distance)[:topk]
            start += len(level)
        ious = [exact_iou(anchors[a], box) for a in candidates]
        mean = sum(ious, Fraction(0)) / max(1, len(ious))
        variance = sum(((iou - mean) ** 2 for iou in ious), Fraction(0)) / max(1, len(ious) - 1)
        for a, iou in zip(candidates, ious, strict=True):
            assume(variance == 0 or abs((iou - mean) ** 2 - variance) > Fraction(1, 10**6))
            centre = [Fraction(anchors[a][i] + anchors[a][i + 2], 2) for i in (0, 1)]
            inside = all(box[i] < centre[i] < box[i + 2] for i in (0, 1))  # by half a pixel if at all
            if inside and iou >= mean and (iou - mean) ** 2 >= variance and iou > winning[a]:
                winner[a], winning[a] = g, iou
    return winner


@st.composite
def integer_box(draw, side: int) -> Row:
    x, y = draw(st.integers(0, 16)), draw(st.integers(0, 16))
    return [x, y, x + draw(st.integers(1, side)), y + draw(st.integers(1, side))]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(integer_box(12), max_size=10), min_size=1, max_size=3),
    st.lists(integer_box(16), max_size=5),
    st.integers(1, 9),
)
def test_slow_twin(levels, objects, topk):
    """Integer boxes: distances and overlaps tie, and are exact in float32 (the means are in float64)."""
    anchors = boxes(*(tuple(anchor) for level in levels for anchor in level))
    matched = match(anchors, boxes(*map(tuple, objects)), [len(level) for level in levels], topk)
    assert matched == slow_match(levels, objects, topk)


def test_config_gives_the_papers_number(repo):
    assert instantiate(OmegaConf.load(repo / "configs" / "matching" / "atss.yaml")).topk == 9


def test_bad_number():
    with pytest.raises(ValueError, match="topk must be at least 1"):
        ATSSMatcher(0)
