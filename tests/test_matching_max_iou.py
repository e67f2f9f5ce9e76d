"""Max-IoU matching: hand-worked cases and a slow twin in exact arithmetic."""

import itertools
from fractions import Fraction

import pytest
import torch
from box_twins import boxes, exact_iou
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from rankdet.matching.anchors import AnchorGenerator
from rankdet.matching.max_iou import MaxIoUMatcher


def match(anchors: Tensor, objects: Tensor, **thresholds: float | bool) -> list[int]:
    result = MaxIoUMatcher(**thresholds)(anchors, objects)
    assert result.dtype == torch.int64
    return result.tolist()


def slow_match(
    anchors: list[list[int]], objects: list[list[int]], high: Fraction, low: Fraction, claim_best: bool
) -> list[int]:
    """The rule of MaxIoUMatcher's docstring, anchor by anchor and object by object."""
    best = [max((exact_iou(anchor, obj) for anchor in anchors), default=Fraction(0)) for obj in objects]
    result = []
    for anchor in anchors:
        winner, winning, highest = -1, Fraction(0), Fraction(0)
        for g, obj in enumerate(objects):
            iou = exact_iou(anchor, obj)
            highest = max(highest, iou)
            if iou > winning and (iou >= high or (claim_best and iou == best[g])):
                winner, winning = g, iou
        result.append(winner if winner >= 0 else -1 if highest < low else -2)
    return result


def test_thresholds_by_hand():
    """One object (0, 0, 10, 10) and anchors (0, 0, 10, h): IoU = h / 10; 0.5 is positive, 0.4 ignored."""
    anchors = boxes(*((0, 0, 10, h) for h in (10, 6, 5, 4.5, 4, 3.9, 1)), (20, 20, 30, 30))
    assert match(anchors, boxes((0, 0, 10, 10))) == [0, 0, 0, -2, -2, -1, -1, -1]
    assert match(anchors, boxes((0, 0, 10, 10)), positive_iou=0.6, negative_iou=0.6) == [0, 0, -1, -1, -1, -1, -1, -1]


def test_an_object_takes_all_anchors_that_tie_for_its_best():
    """Anchors 10 x 10 at x = 0 and x = 4 around an object (4, 0, 10, 2): IoU 12 / 100 with both. A third misses."""
    assert match(boxes((0, 0, 10, 10), (4, 0, 14, 10), (10, 0, 20, 10)), boxes((4, 0, 10, 2))) == [0, 0, -1]


def test_ties_survive_float_rounding():
    """An object the shape of an anchor, centred where four cells meet, overlaps four anchors alike.

    Their corners are irrational and round differently: in float32 some of these 294 objects have IoUs 8e-7 apart.
    """
    generator = AnchorGenerator([8])
    anchors = generator([(64, 64)], torch.device("cpu"))
    checked = 0
    for half_width, half_height in ((8 * width, 8 * height) for width, height in generator.shapes):
        for x, y in itertools.product(range(80, 440, 56), repeat=2):
            rectangle = boxes((x - half_width, y - half_height, x + half_width, y + half_height))
            matched = MaxIoUMatcher(0.99)(anchors, rectangle)
            centres = (anchors[:, :2] + anchors[:, 2:])[matched >= 0] / 2
            assert centres.round().tolist() == [[x - 4, y - 4], [x + 4, y - 4], [x - 4, y + 4], [x + 4, y + 4]]
            checked += 1
    assert checked == 6 * 7 * 7


def test_a_small_object_gets_its_best_anchor_only():
    """2 x 2 in a 32 x 32 anchor: IoU 4 / 1024, below every threshold, yet positive; the rest is negative."""
    anchors = boxes((0, 0, 32, 32), (0, 0, 64, 64), (31, 31, 63, 63))
    assert match(anchors, boxes((10, 10, 12, 12))) == [0, -1, -1]


def test_without_the_best_anchor_s_claim_an_overlap_must_be_large():
    """As above, but background; and of 0.45 with the only anchor, ignored. One of exactly the threshold is positive."""
    anchors = boxes((0, 0, 32, 32), (0, 0, 64, 64), (31, 31, 63, 63))
    assert match(anchors, boxes((10, 10, 12, 12)), claim_best=False) == [-1, -1, -1]
    assert match(boxes((0, 0, 10, 10)), boxes((0, 0, 10, 4.5)), claim_best=False) == [-2]
    assert match(boxes((0, 0, 10, 10)), boxes((0, 0, 10, 5)), claim_best=False) == [0]
    assert match(boxes(), boxes((0, 0, 10, 5)), claim_best=False) == []


def test_an_object_outside_all_anchors_gets_none():
    """IoU 0 ties everywhere, and claims nothing."""
    assert match(boxes((0, 0, 10, 10), (10, 0, 20, 10)), boxes((50, 50, 60, 60))) == [-1, -1]


def test_the_higher_iou_wins_a_shared_anchor():
    """Anchor (0, 0, 10, 10); objects (0, 0, 10, 6) and (0, 0, 10, 8): IoU 0.6 and 0.8, in either order."""
    anchor, small, large = boxes((0, 0, 10, 10)), (0, 0, 10, 6), (0, 0, 10, 8)
    assert match(anchor, boxes(small, large)) == [1]
    assert match(anchor, boxes(large, small)) == [0]


def test_the_earlier_object_wins_at_equal_iou():
    assert match(boxes((0, 0, 10, 10)), boxes((0, 0, 10, 6), (0, 4, 10, 10))) == [0]


def test_a_best_anchor_beats_a_higher_overlap_that_claims_nothing():
    """Anchors a (0, 0, 10, 10) and b (6, 0, 16, 10). Object g (0, 0, 10, 3): IoU 0.3 with a, its best.

    Object h (4, 0, 14, 10): 60 / 140 = 0.43 with a, 80 / 120 = 0.67 with b, its best. h does not claim a (0.43 < 0.5),
    so a is g's although it overlaps h more; b is h's.
    """
    assert match(boxes((0, 0, 10, 10), (6, 0, 16, 10)), boxes((0, 0, 10, 3), (4, 0, 14, 10))) == [0, 1]


def test_no_objects():
    assert match(boxes((0, 0, 10, 10), (5, 5, 6, 6)), boxes()) == [-1, -1]


@st.composite
def integer_box(draw) -> list[int]:
    x, y = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    return [x, y, x + draw(st.integers(1, 5)), y + draw(st.integers(1, 5))]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(integer_box(), min_size=1, max_size=12),
    st.lists(integer_box(), max_size=6),
    st.sampled_from(
        [(Fraction(1, 2), Fraction(2, 5)), (Fraction(1, 3), Fraction(1, 3)), (Fraction(3, 4), Fraction(1, 4))]
    ),
    st.booleans(),
)
def test_slow_twin(anchors, objects, thresholds, claim_best):
    """Small integer boxes tie all the time, and two unequal IoUs differ by more than 1 / 150^2 = 4e-5."""
    high, low = thresholds
    settings = {"positive_iou": float(high), "negative_iou": float(low), "claim_best": claim_best}
    fast = match(boxes(*anchors), boxes(*objects), **settings)
    assert fast == slow_match(anchors, objects, high, low, claim_best)


@pytest.mark.parametrize(("high", "low"), [(0.4, 0.5), (0.5, 0.0), (1.5, 0.5)])
def test_bad_thresholds(high, low):
    with pytest.raises(ValueError, match="0 < negative_iou <= positive_iou <= 1"):
        MaxIoUMatcher(high, low)


def test_config_gives_the_papers_thresholds(repo):
    matcher = instantiate(OmegaConf.load(repo / "configs" / "matching" / "max_iou.yaml"))
    assert (matcher.positive_iou, matcher.negative_iou) == (0.5, 0.4)
