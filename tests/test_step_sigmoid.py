"""The sigmoid step's sums from binned moments against those pair by pair, and which of the two is taken when."""

from unittest import mock

import numpy as np
import pytest
import torch

from rankdet.losses import blocks, step_sigmoid, sums
from rankdet.losses.step_direct import DirectStep, PairsOfSome
from rankdet.losses.step_sigmoid import BINS_PER_SCALE, SigmoidPairs, SigmoidStep


def pair_by_pair(k, points, scores, takes_part=None):
    """The same sums in float64, of the scores as they are."""
    step = DirectStep(
        lambda x: 1 / (1 + torch.exp(-x / k)), lambda x: 1 / (k * (2 + torch.exp(x / k) + torch.exp(-x / k))), 0.5
    )
    return step.pairs(points, scores.double(), takes_part)


def assert_binned_equals_pairs(k, points, scores, takes_part, tolerance):
    """All four sums of positive weights, each relative to itself but for what is below 1e-16 of the largest possible.

    float32 results (to the scores) may besides be off by their own rounding.
    """
    random = np.random.default_rng(0)
    to_scores, to_points = (torch.from_numpy(random.uniform(0, 9, len(x))) for x in (points, scores))
    binned, exact = SigmoidStep(k).pairs(points, scores, takes_part), pair_by_pair(k, points, scores, takes_part)
    assert isinstance(binned, SigmoidPairs)
    assert len(binned.centres) < len(scores)
    for name in ("at_points", "slopes_at_points", "at_scores", "slopes_at_scores"):
        for weights in (to_scores,) if name.endswith("at_scores") else (to_points, None):
            found, expected = (getattr(pairs, name)(weights) for pairs in (binned, exact))
            rounding = torch.finfo(found.dtype).eps * 8
            scale = len(found) if weights is None else weights.sum()
            error = (found - expected).abs() - 1e-16 * scale / k
            assert (error <= (tolerance + rounding) * expected).all(), (name, (error / expected).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("k", "offset"), [(0.5, -4.6), (0.25, 0.0), (2.0, 1e4), (0.5, -1e4)])
def test_bins_at_the_size_of_an_image(k, offset, dtype):
    """200 000 scores: 1e-6 of each sum in float32 (the limit asked for), 1e-11 in float64."""
    generator = torch.Generator().manual_seed(4)
    scores = (torch.randn(200_000, generator=generator, dtype=torch.float64) + offset).to(dtype)
    points, takes_part = scores[:8] + 1, torch.rand(200_000, generator=generator) < 0.8
    assert_binned_equals_pairs(k, points, scores, takes_part, 1e-11 if dtype == torch.float64 else 1e-6)


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_bins_at_the_size_of_a_batch(dtype):
    """2 000 000 scores at the start of a training and an outlier, 40 points, with the sums as a GPU adds them too."""
    generator = torch.Generator().manual_seed(5)
    scores = torch.randn(2_000_000, generator=generator).to(dtype) * 0.3 - 4.6
    scores[7] = 1e4
    points = torch.randn(40, generator=generator).to(dtype) - 4
    for form in (sums.interval_sums, sums.fixed_point_sums):
        with mock.patch.object(step_sigmoid, "interval_sums", form):
            assert_binned_equals_pairs(0.5, points, scores, None, 1e-10 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_worst_place_in_a_bin(dtype):
    """All scores at the edges of bins, where the polynomials are furthest off: still 1e-6 and 1e-11."""
    width = 0.5 / BINS_PER_SCALE[dtype]
    scores = (torch.arange(800, dtype=dtype) * width).repeat(7)
    points = torch.linspace(-2, 8, 50, dtype=dtype)
    assert_binned_equals_pairs(0.5, points, scores, None, 1e-11 if dtype == torch.float64 else 1e-6)


def test_bins_where_they_take_less_than_the_pairs():
    """k = 1/2 in float32: 64 bins for each unit between the scores, and 40 k beyond the points at most. A bin takes as
    much as three scores."""
    cases = [
        (torch.linspace(0, 1, 196), SigmoidPairs),  # 65 bins
        (torch.linspace(0, 1, 195), PairsOfSome),  # 65 bins take as much
        (torch.linspace(0, 1, 196).double(), PairsOfSome),  # 513 bins
        (torch.linspace(-1e4, 1e4, 7684), SigmoidPairs),  # 40 units around the point: 2561 bins
        (torch.linspace(-1e4, 1e4, 7683), PairsOfSome),
        (torch.full((7,), -1e30), SigmoidPairs),
        (torch.tensor([]), PairsOfSome),
    ]
    for scores, kind in cases:
        pairs = SigmoidStep(0.5).pairs(torch.zeros(1, dtype=scores.dtype), scores)
        assert type(pairs) is kind, scores
    assert len(SigmoidStep(0.5).pairs(torch.zeros(1), cases[3][0]).centres) == 2561


def test_only_scores_that_take_part_count_as_such():
    """196 scores would go into 65 bins; 195 of them do not, and are looked at pair by pair, the other one never."""
    scores = torch.linspace(0, 1, 196)
    takes_part = torch.arange(196) != 7
    scores[7] = 0.5
    points, weights = torch.tensor([0.25, 0.75]), torch.tensor([3.0, 5.0]).double()
    pairs = SigmoidStep(0.5).pairs(points, scores, takes_part)
    assert type(pairs) is PairsOfSome
    some = SigmoidStep(0.5).pairs(points, scores[takes_part])
    u = torch.rand(196, generator=torch.Generator().manual_seed(0))
    for name in ("at_points", "slopes_at_points"):
        torch.testing.assert_close(getattr(pairs, name)(), getattr(some, name)(), rtol=0, atol=0)
        torch.testing.assert_close(getattr(pairs, name)(u), getattr(some, name)(u[takes_part]), rtol=0, atol=0)
    for name in ("at_scores", "slopes_at_scores"):
        found = getattr(pairs, name)(weights)
        assert found[7] == 0
        torch.testing.assert_close(found[takes_part], getattr(some, name)(weights), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("distance", [21.0, 100.0, 1e4, 1e30])
def test_all_scores_on_one_side(dtype, distance):
    """Left of all points by more than 40 k = 20, or right: all or nothing to 4e-18, from a single bin."""
    points = torch.tensor([0.0, 0.125], dtype=dtype)
    scores = torch.full((100,), distance, dtype=dtype) + torch.linspace(0, 1, 100, dtype=dtype)
    weights = torch.tensor([3, 5], dtype=torch.float64)
    for sign, count in ((1, 1), (-1, 0)):
        pairs = SigmoidStep(0.5).pairs(points, sign * scores)
        if sign == -1 or distance == 1e30:
            assert len(pairs.centres) == 1
        torch.testing.assert_close(pairs.at_points(), torch.full_like(weights, 100 * count), rtol=1e-14, atol=1e-15)
        torch.testing.assert_close(pairs.at_scores(weights), torch.full_like(scores, 8 * count), rtol=0, atol=1e-15)
        assert pairs.slopes_at_points().abs().max() < 1e-15
        assert pairs.slopes_at_scores(weights).abs().max() < 1e-15


def test_a_huge_range_takes_pairs_in_blocks():
    """Points 25 000 apart and k = 1/100 would take 80 million bins: pairs instead, so many (PAIRS_IN_CACHE) at a time.

    100 001 scores, 1/4 apart: of the lowest point all but itself lie above, and it is a half to itself.
    """
    held = []

    def value(step, x):
        held.append(x.numel())
        return (x / step.k).sigmoid()

    points, scores = torch.tensor([-12_500.0, 0.0, 12_500.0]).repeat(10), torch.arange(-50_000, 50_001) / 4
    with mock.patch.object(SigmoidStep, "_value", value):
        counts = SigmoidStep(0.01).pairs(points, scores).at_points()
    assert max(held) <= blocks.PAIRS_IN_CACHE
    assert len(held) == 23
    torch.testing.assert_close(
        counts[:3], torch.tensor([100_000.5, 50_000.5, 0.5], dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_a_range_beyond_all_numbers():
    """The span of these is infinite in float64; of three scores one is at the point, one above, one below."""
    huge = 1.7e308
    scores = torch.tensor([-huge, 0, huge], dtype=torch.float64)
    pairs = SigmoidStep(0.5).pairs(scores, scores)
    assert pairs.at_points().tolist() == [2.5, 1.5, 0.5]
    assert pairs.at_scores(torch.ones(3, dtype=torch.float64)).tolist() == [0.5, 1.5, 2.5]


def test_bins_are_taken_in_blocks():
    """64 pairs of points and bins at a time change no more than rounding."""
    generator = torch.Generator().manual_seed(0)
    points, scores = torch.rand(7, generator=generator).double(), torch.rand(6000, generator=generator).double()
    pairs, weights = SigmoidStep(0.3).pairs(points, scores), torch.arange(7).double()
    expected = pairs.at_points(), pairs.at_scores(weights)
    with mock.patch.object(blocks, "PAIRS_IN_CACHE", 64):
        assert [block for block, _ in pairs._derivatives(0)][:2] == [slice(0, 9), slice(9, 18)]
        torch.testing.assert_close((pairs.at_points(), pairs.at_scores(weights)), expected, rtol=1e-14, atol=0)


def test_k_scales_scores_and_slopes():
    """f of 4 times the scale at 4 times the scores is the same, its slope a quarter: exactly, 4 being a power of 2."""
    generator = torch.Generator().manual_seed(3)
    points, scores = torch.randn(5, generator=generator), torch.randn(3000, generator=generator)
    one, four = SigmoidStep(0.5).pairs(points, scores), SigmoidStep(2.0).pairs(4 * points, 4 * scores)
    assert isinstance(one, SigmoidPairs)
    assert torch.equal(one.at_points(), four.at_points())
    assert torch.equal(one.slopes_at_points(), 4 * four.slopes_at_points())
