"""FoveaBox's assignment: cases by hand, a slow twin in exact arithmetic, and what is empty or equal."""

import itertools
import math

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from rankdet.matching.anchors import AnchorGenerator
from rankdet.matching.fovea import FoveaMatcher

SIZES = [(8, 8), (4, 4), (2, 2)]  # cells of 64 x 64 pixels at strides 8, 16 and 32
LEVELS = [64, 16, 4]


def boxes(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def cells() -> Tensor:
    """Three levels whose basic scales are 16, 32 and 64."""
    generator = AnchorGenerator([8, 16, 32], scale=2.0, octave_scales=[1.0], ratios=[1.0])
    return generator(SIZES, torch.device("cpu"))


def found(objects: Tensor, sigma: float = 0.4, eta: float = 2.0) -> dict[tuple[int, int, int], int]:
    """(level, x, y of a positive cell's centre) -> its object; all else must be negative."""
    matched = FoveaMatcher(sigma, eta)(cells(), objects, LEVELS)
    assert matched.dtype == torch.int64
    assert matched.shape == (84,)
    assert matched.min() == -1
    result = {}
    for a in (matched >= 0).nonzero().squeeze(1).tolist():
        x1, y1, x2, y2 = cells()[a].tolist()
        result[(0 if a < 64 else 1 if a < 80 else 2), int((x1 + x2) / 2), int((y1 + y2) / 2)] = int(matched[a])
    return result


def test_by_hand():
    """Object (10, 4, 50, 44): side 40, so levels of scale 32 and 64 (20 to 80), not 16. Centre (30, 24), reach 8.

    Level two's centres are 8, 24, 40, 56: x in [22, 38] is 24, y in [16, 32] is 24. Level three's are 16 and 48: y = 16
    is on the edge and counts, but no x is within. A larger sigma of 0.7 reaches 14: (24 and 40, 24) and (16, 16).
    """
    assert found(boxes((10, 4, 50, 44))) == {(1, 24, 24): 0}
    assert found(boxes((10, 4, 50, 44)), sigma=0.7) == {(1, 24, 24): 0, (1, 40, 24): 0, (2, 16, 16): 0}


def test_sizes_and_levels():
    """Squares about (24, 24), a cell's centre on level two alone (level one's are 20 and 28, level three's 16 and 48).

    With sigma = 1 an object of side s reaches s / 2: level one's from 8, level two's from 0, level three's from 16 on.
    Level one takes s <= 32, level two 16 <= s <= 64, level three 32 <= s.
    """
    seen = {}
    for side in (2, 8, 15, 16, 31, 32, 33, 64, 65, 200):
        square = boxes((24 - side / 2, 24 - side / 2, 24 + side / 2, 24 + side / 2))
        seen[side] = sorted({level for level, _, _ in found(square, sigma=1.0)})
    assert seen == {2: [], 8: [0], 15: [0], 16: [0, 1], 31: [0, 1], 32: [0, 1, 2], 33: [1, 2], 64: [1, 2]} | {
        65: [2],
        200: [2],
    }


def test_a_sizes_measure_is_the_root_of_the_area():
    """128 x 2 and 16 x 16 have the same: 16, the least of level two; 127 x 2 has less, and only level one takes it."""
    assert {level for level, _, _ in found(boxes((-40, 23, 88, 25)), sigma=1.0)} == {1}  # no level-one centre at 23..25
    assert found(boxes((-39, 23, 88, 25)), sigma=1.0) == {}
    assert {level for level, _, _ in found(boxes((16, 16, 32, 32)), sigma=1.0)} == {0, 1}


def test_the_smaller_object_wins_a_cell_in_either_order():
    """Both have their centre at (24, 24), where the smaller one has level two's cell; the larger keeps those around."""
    small, large = (14, 14, 34, 34), (0, 0, 48, 48)
    alone = found(boxes(large), sigma=0.7)
    assert (1, 24, 24) in alone
    assert len(alone) > 1
    assert found(boxes(large, small), sigma=0.7)[1, 24, 24] == 1
    both = found(boxes(small, large), sigma=0.7)
    assert both[1, 24, 24] == 0
    assert all(both[cell] == 1 for cell in alone if cell != (1, 24, 24))


def test_of_equal_objects_the_earlier_one_has_the_cells():
    """Also of two with equal areas only."""
    assert set(found(boxes(*[(10, 4, 50, 44)] * 3)).values()) == {0}
    assert set(found(boxes((14, 4, 34, 44), (4, 14, 44, 34)), sigma=0.1).values()) == {0}
    assert found(boxes((4, 14, 44, 34))) != {}


def test_an_object_between_the_centres_has_no_cell():
    """18 x 18 about (32, 32), where cells of all levels meet: it reaches 3.6 and the nearest centre is 4 away."""
    assert found(boxes((23, 23, 41, 41))) == {}
    assert len(found(boxes((22, 22, 42, 42)))) == 4


def test_an_object_outside_all_cells_gets_none():
    assert found(boxes((500, 500, 560, 560))) == {}


def test_nothing_to_match():
    assert found(boxes()) == {}
    matched = FoveaMatcher()(boxes(), boxes((0, 0, 1, 1)), [0, 0])
    assert matched.shape == (0,)
    assert FoveaMatcher()(boxes(), boxes(), [0]).shape == (0,)


def test_a_level_without_cells():
    """In the middle it changes nothing. As the finest it takes the opening to small objects along, as the coarsest that
    to large ones: 4 x 4 about (4, 4), and 200 x 200 about (16, 16)."""
    tiny, huge = (2, 2, 6, 6), (-84, -84, 116, 116)
    for levels, expected in (([64, 0, 16, 4], {0, 1}), ([0, 64, 16, 4], {1}), ([64, 16, 4, 0], {0})):
        matched = FoveaMatcher()(cells(), boxes(tiny, huge), levels)
        assert set(matched[matched >= 0].tolist()) == expected


def test_one_level_takes_all_sizes():
    anchors = cells()[:64]
    for side in (4, 40, 400):
        square = boxes((28 - side / 2, 28 - side / 2, 28 + side / 2, 28 + side / 2))
        assert (FoveaMatcher()(anchors, square, [64]) == 0).any()


def slow_match(objects: list[list[int]], quarters: int, eta: int) -> list[int]:
    """The rule of FoveaMatcher's docstring, cell by cell and object by object, in integers; sigma is quarters / 4."""
    result = []
    for level, (height, width) in enumerate(SIZES):
        stride = 8 * 2**level
        basic = 2 * stride
        for y, x in itertools.product(range(height), range(width)):
            winner, least = -1, math.inf
            for g, (x1, y1, x2, y2) in enumerate(objects):
                area = (x2 - x1) * (y2 - y1)
                low = level == 0 or area * eta**2 >= basic**2
                high = level == len(SIZES) - 1 or area <= basic**2 * eta**2
                near_x = 4 * abs((2 * x + 1) * stride - x1 - x2) <= quarters * (x2 - x1)  # both sides times 8
                near_y = 4 * abs((2 * y + 1) * stride - y1 - y2) <= quarters * (y2 - y1)
                if low and high and near_x and near_y and area < least:
                    winner, least = g, area
            result.append(winner)
    return result


@st.composite
def integer_box(draw) -> list[int]:
    x, y = draw(st.integers(-8, 60)), draw(st.integers(-8, 60))
    return [x, y, x + draw(st.integers(1, 80)), y + draw(st.integers(1, 80))]


@settings(deadline=None, max_examples=100)
@given(st.lists(integer_box(), max_size=5), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 3]))
def test_slow_twin(objects, quarters, eta):
    """Sigmas that are exact in float32, so that a centre on an edge is one here and there."""
    matched = FoveaMatcher(quarters / 4, float(eta))(cells(), boxes(*map(tuple, objects)), LEVELS)
    assert matched.tolist() == slow_match(objects, quarters, eta)


def test_config_gives_the_papers_numbers(repo):
    matcher = instantiate(OmegaConf.load(repo / "configs" / "matching" / "foveabox.yaml"))
    assert (matcher.sigma, matcher.eta) == (0.4, 2.0)


@pytest.mark.parametrize(("sigma", "eta", "name"), [(0.0, 2.0, "sigma"), (1.5, 2.0, "sigma"), (0.4, 0.5, "eta")])
def test_bad_numbers(sigma, eta, name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        FoveaMatcher(sigma, eta)
