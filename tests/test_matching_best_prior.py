"""SSD's matching: hand-worked cases and a slow twin in exact arithmetic."""

from fractions import Fraction

import pytest
import torch
from box_twins import boxes, exact_iou
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from rankdet.matching.best_prior import BestPriorMatcher


def match(priors: Tensor, objects: Tensor, positive_iou: float = 0.5) -> list[int]:
    result = BestPriorMatcher(positive_iou)(priors, objects, [len(priors)])
    assert result.dtype == torch.int64
    return result.tolist()


def slow_match(priors: list[list[int]], objects: list[list[int]], threshold: Fraction) -> list[int]:
    """The rule of BestPriorMatcher's docstring, one pair after the other."""
    result = [-1] * len(priors)
    ious = {(g, p): exact_iou(obj, prior) for g, obj in enumerate(objects) for p, prior in enumerate(priors)}
    pairs = sorted((pair for pair in ious if ious[pair] > 0), key=lambda pair: (-ious[pair], pair))
    for g, p in pairs:
        if result[p] < 0 and g not in result:
            result[p] = g
    for p in range(len(priors)):
        of_prior = [ious[g, p] for g in range(len(objects))]
        if result[p] < 0 and objects and max(of_prior) >= threshold:
            result[p] = of_prior.index(max(of_prior))
    return result


def test_threshold_by_hand():
    """One object (0, 0, 10, 10) and priors (0, 0, 10, h): IoU = h / 10; from 0.5 on its, below negative."""
    priors = boxes(*((0, 0, 10, h) for h in (10, 6, 5, 4.9, 4, 1)), (20, 20, 30, 30))
    assert match(priors, boxes((0, 0, 10, 10))) == [0, 0, 0, -1, -1, -1, -1]
    assert match(priors, boxes((0, 0, 10, 10)), positive_iou=0.6) == [0, 0, -1, -1, -1, -1, -1]


def test_a_small_object_gets_one_prior_below_the_threshold():
    """2 x 2 in two priors of 32 x 32: IoU 4 / 1024 with both; the earlier is its, though they tie."""
    assert match(boxes((100, 0, 132, 32), (0, 0, 32, 32), (4, 4, 36, 36)), boxes((10, 10, 12, 12))) == [-1, 0, -1]


def test_each_object_gets_a_prior_of_its_own():
    """Prior a (0, 0, 10, 10), prior b (0, 5, 10, 15). Object g (0, 0, 10, 9): 0.9 with a, 4 / 15 with b. Object h
    (0, 0, 10, 8): 0.8 with a, 3 / 15 with b.

    a is g's, the higher; h takes b, the best that is left, although b overlaps g more.
    """
    priors, g, h = boxes((0, 0, 10, 10), (0, 5, 10, 15)), (0, 0, 10, 9), (0, 0, 10, 8)
    assert match(priors, boxes(g, h)) == [0, 1]
    assert match(priors, boxes(h, g)) == [1, 0]


def test_a_chain_of_displaced_objects():
    """Intervals of height 1, so that IoU is a matter of lengths. Priors a = [0, 10], b = [8, 18], c = [16, 26].

    Objects g = [0, 10] = a; h = [1, 11], 9 / 11 with a and 3 / 17 with b; i = [7, 17], 9 / 11 with b, 3 / 17 with a,
    1 / 19 with c. g takes a first (IoU 1), then i takes b, and h, which touches only a and b, gets none; the free c
    stays negative.
    """

    def interval(first: float, last: float) -> tuple[float, float, float, float]:
        return (first, 0, last, 1)

    priors = boxes(interval(0, 10), interval(8, 18), interval(16, 26))
    assert match(priors, boxes(interval(0, 10), interval(1, 11), interval(7, 17))) == [0, 2, -1]
    assert match(priors, boxes(interval(0, 10), interval(1, 11))) == [0, 1, -1]


def test_equal_objects_share_the_priors():
    """Three objects (0, 0, 10, 10) with IoU 1, 0.9, 0.8, 0.7 and 0.3: one prior each, in their order; the fourth is
    above the threshold and goes to the first; the fifth is not."""
    priors = boxes(*((0, 0, 10, h) for h in (10, 9, 8, 7, 3)))
    assert match(priors, boxes(*[(0, 0, 10, 10)] * 3)) == [0, 1, 2, 0, -1]


def test_more_objects_than_priors():
    """The two best pairs, of IoU 1 and 0.9, take the two priors; the third object, with 0.8 and 0.7 / 1, gets none."""
    priors = boxes((0, 0, 10, 10), (0, 0, 10, 9))
    assert match(priors, boxes((0, 0, 10, 8), (0, 0, 10, 9), (0, 0, 10, 10))) == [2, 1]


def test_an_object_outside_all_priors_gets_none():
    assert match(boxes((0, 0, 10, 10), (10, 0, 20, 10)), boxes((50, 50, 60, 60), (0, 0, 10, 2))) == [1, -1]


def test_a_prior_above_the_threshold_goes_to_its_nearest_object():
    """Priors a (0, 0, 10, 10), b (0, 0, 10, 8), c (0, 1, 10, 10). Objects (0, 0, 10, 7) = g and a itself = h.

    h takes a. g: 7/8 with b. c: 6/10 with g, 9/10 with h.
    """
    priors = boxes((0, 0, 10, 10), (0, 0, 10, 8), (0, 1, 10, 10))
    assert match(priors, boxes((0, 0, 10, 7), (0, 0, 10, 10))) == [1, 0, 1]


def test_none_at_all():
    assert match(boxes((0, 0, 10, 10), (5, 5, 6, 6)), boxes()) == [-1, -1]
    assert match(boxes(), boxes((0, 0, 10, 10))) == []
    assert match(boxes(), boxes()) == []


@st.composite
def integer_box(draw) -> list[int]:
    x, y = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    return [x, y, x + draw(st.integers(1, 5)), y + draw(st.integers(1, 5))]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(integer_box(), max_size=10),
    st.lists(integer_box(), max_size=14),
    st.sampled_from([Fraction(1, 2), Fraction(1, 3), Fraction(3, 4)]),
)
def test_slow_twin(priors, objects, threshold):
    """Small integer boxes tie all the time; IoUs of integers that are equal are so in float32, too."""
    assert match(boxes(*priors), boxes(*objects), float(threshold)) == slow_match(priors, objects, threshold)


def test_many_objects_get_different_priors():
    """40 objects in a 256 x 256 image with 12 x 12 x 4 priors: no object without one, and the twin agrees."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 200, (40, 2), generator=generator)
    objects = torch.cat([corner, corner + torch.randint(4, 72, (40, 2), generator=generator)], dim=1)
    cells = torch.cartesian_prod(torch.arange(12), torch.arange(12)) * 20
    priors = torch.cat([torch.cat([cells, cells + side], dim=1) for side in (10, 20, 40, 80)])
    result = match(priors.float(), objects.float())
    assert set(range(40)) <= set(result)
    assert result == slow_match(priors.tolist(), objects.tolist(), Fraction(1, 2))


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.5])
def test_bad_threshold(threshold):
    with pytest.raises(ValueError, match="0 < positive_iou <= 1"):
        BestPriorMatcher(threshold)


def test_config_gives_the_papers_threshold(repo):
    assert instantiate(OmegaConf.load(repo / "configs" / "matching" / "best_prior.yaml")).positive_iou == 0.5
