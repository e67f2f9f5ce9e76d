"""Numbering intervals by a grid against bisection, on scores that hit edges, ties, and every scale."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdet.losses import intervals
from rankdet.losses.intervals import are_few, by_grid, number_intervals

FLOATS = st.one_of(
    st.integers(-40, 40).map(lambda i: i / 8),
    st.sampled_from([0.0, 1e4, -1e4, 1e-30, 3e38, -3e38, 1e-45]),
    st.floats(-20, 20, width=32),
)


def bisected(scores, edges):
    return torch.bucketize(scores, edges, right=True, out_int32=True)


def test_by_hand():
    """Edges 0, 1, 1 and 3: at most -1 are none of them, 0 one, 1 three, 2 three, 3 and 9 all four."""
    edges, scores = torch.tensor([0.0, 1.0, 1.0, 3.0]), torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 9.0])
    for form in (by_grid, number_intervals):
        found = form(scores, edges)
        assert (found.tolist(), found.dtype) == ([0, 1, 1, 3, 3, 4, 4], torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=200, deadline=None)
@given(edges=st.lists(FLOATS, min_size=1, max_size=12), others=st.lists(FLOATS, max_size=20))
def test_the_grid_is_exact(dtype, edges, others):
    """At the edges themselves and their neighbours on both sides, too."""
    edges = torch.tensor(edges, dtype=dtype).sort().values
    beside = [torch.nextafter(edges, torch.full_like(edges, end)) for end in (-torch.inf, torch.inf)]
    scores = torch.cat((edges, *beside, torch.tensor(others, dtype=dtype)))
    scores = scores[scores.isfinite()]
    assert torch.equal(by_grid(scores, edges), bisected(scores, edges))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_many_scores(scale):
    """300 000 scores: as many as take the grid; with 3 edges, 3 000, and more than there may be cells."""
    generator = torch.Generator().manual_seed(0)
    scores = scale * torch.randn(300_000, generator=generator)
    assert len(scores) >= intervals.LARGE
    for num_edges in (3, 3000, intervals.MAX_CELLS + 10):
        edges = (scale * torch.randn(num_edges, generator=generator)).sort().values
        assert torch.equal(number_intervals(scores, edges), bisected(scores, edges))


def test_without_scores_or_edges():
    assert number_intervals(torch.zeros(0), torch.zeros(2)).tolist() == []
    assert not number_intervals(torch.zeros(intervals.LARGE), torch.zeros(0)).any()
    assert by_grid(torch.zeros(0), torch.zeros(2)).tolist() == []


def test_are_few():
    """Asked only of many scores; 10 % of them lie at 1 or right of it, then 50 %."""
    scores = torch.zeros(intervals.LARGE)
    scores[::10] = 2.0
    assert are_few(scores, torch.tensor(1.0))
    assert not are_few(scores[:-10], torch.tensor(1.0))
    scores[::2] = 2.0
    assert not are_few(scores, torch.tensor(1.0))
    with mock.patch.object(intervals, "LARGE", 1):
        assert are_few(torch.zeros(1), torch.tensor(1.0))
