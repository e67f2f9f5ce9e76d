"""Sums by interval and running sums, both as the CPU adds and as a GPU does, the latter called on the CPU."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdet.losses import sums
from rankdet.losses.sums import (
    blockwise_running_sums,
    fixed_point_sums,
    interval_sums,
    running_sums,
    sums_from_the_right,
)

both_forms = pytest.mark.parametrize("form", [interval_sums, fixed_point_sums])
both_running = pytest.mark.parametrize("form", [running_sums, blockwise_running_sums])
MAGNITUDES = [1.0, 1e-30, 5e-324, 1e-310, 1e30, 1e300]


def double(values):
    return torch.as_tensor(values, dtype=torch.float64)


def fixed_point_bound(values):
    """What fixed_point_sums may be off by: the unit's rounding, and float64's of a sum."""
    values = values.double().abs()
    return values.max().item() * len(values) ** 2 / 2**60 + values.sum().item() * 2.0**-52 + 5e-324


@both_forms
def test_by_hand(form):
    """Intervals 1, 3, 1 of five: values 1/2, 4, -2 add up to -3/2 in the first; without values they are counted."""
    interval = torch.tensor([1, 3, 1])
    assert form(interval, torch.tensor([0.5, 4.0, -2.0]), 5).tolist() == [0, -1.5, 0, 4, 0]
    assert form(interval, None, 5).tolist() == [0, 2, 0, 1, 0]
    assert form(interval.int(), torch.tensor([3, 1, 2]), 5).tolist() == [0, 5, 0, 1, 0]


@both_forms
@pytest.mark.parametrize("values", [None, torch.zeros(0)])
def test_of_nothing(form, values):
    empty = form(torch.zeros(0, dtype=torch.int32), values, 3)
    assert (empty.dtype, empty.tolist()) == (torch.float64, [0, 0, 0])


@both_forms
def test_all_zero(form):
    assert form(torch.tensor([0, 1]), torch.zeros(2), 2).tolist() == [0, 0]


@both_forms
@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(st.tuples(st.integers(0, 6), st.floats(-1, 1, width=32)), max_size=80),
    magnitude=st.sampled_from(MAGNITUDES),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    index_type=st.sampled_from([torch.int32, torch.int64]),
)
def test_equal_numpy(form, items, magnitude, dtype, index_type):
    """By interval, counted and weighted; float32 is added in float64."""
    interval = np.array([i for i, _ in items], dtype=np.int64)
    values = (double([v for _, v in items]) * magnitude).clamp(-3e38, 3e38).to(dtype)
    expected = np.bincount(interval, values.double().numpy(), minlength=7)
    found = form(torch.from_numpy(interval).to(index_type), values, 7)
    assert found.dtype == torch.float64
    atol = fixed_point_bound(values) if items else 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
    np.testing.assert_array_equal(form(torch.from_numpy(interval), None, 7), np.bincount(interval, minlength=7))


def test_fixed_point_sums_of_many():
    """100 000 values over nine orders of magnitude: within the bound that the docstring states."""
    generator = torch.Generator().manual_seed(0)
    interval = torch.randint(0, 50, (100_000,), generator=generator)
    values = torch.randn(100_000, generator=generator, dtype=torch.float64) * 10 ** torch.linspace(-6, 3, 100_000)
    exact = [math.fsum(values[interval == i].tolist()) for i in range(50)]
    found = fixed_point_sums(interval, values, 50)
    np.testing.assert_allclose(found, exact, rtol=0, atol=fixed_point_bound(values))


@pytest.mark.parametrize("size", [1, 7, 400, 3000])
def test_fixed_point_sums_have_no_order(size):
    """The same bits whatever the order of the input, however many copies it is added into; a float sum differs."""
    generator = torch.Generator().manual_seed(size)
    interval = torch.randint(0, size, (20_000,), generator=generator)
    values = torch.randn(20_000, generator=generator) * 10 ** torch.linspace(-8, 8, 20_000)
    sums_of = {form: form(interval, values, size) for form in (fixed_point_sums, interval_sums)}
    changed = 0
    for _ in range(5):
        order = torch.randperm(20_000, generator=generator)
        assert torch.equal(fixed_point_sums(interval[order], values[order], size), sums_of[fixed_point_sums])
        changed += not torch.equal(interval_sums(interval[order], values[order], size), sums_of[interval_sums])
    assert changed > 0


def test_fixed_point_sums_do_not_overflow():
    """Every value the largest there is, and N at and below powers of two, up to which the unit leaves room."""
    for count in (1, 2, 3, 127, 128, 1 << 16, (1 << 16) - 1):
        for value in (1.0, 1 - 2**-53, -1.0, 1.5):
            total = fixed_point_sums(torch.zeros(count, dtype=torch.int64), torch.full((count,), value).double(), 1)
            assert total.item() == pytest.approx(count * value, rel=1e-15)


def test_fixed_point_sums_hold_no_more_than_the_values(monkeypatch):
    """64 copies of 9000 sums would be 64 times the 9001 values; of few sums there are as many as there may be."""
    interval, zeros, held = torch.zeros(9001, dtype=torch.int64), torch.zeros, []
    monkeypatch.setattr(sums.torch, "zeros", lambda size, **kwargs: held.append(size) or zeros(size, **kwargs))
    for size in (9000, 100, 3):
        fixed_point_sums(interval, None, size)
    assert held == [9000, 64 * 100, 64 * 3]


@both_running
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 4096, 4097, 64 * 64 * 3 + 5])
def test_running_sums_equal_numpy(form, count):
    """Around the sizes where blocks, and blocks of blocks, are full; integers have one sum, in any order."""
    random = np.random.default_rng(count)
    values = random.normal(size=count)
    np.testing.assert_allclose(form(double(values)), values.cumsum(), rtol=0, atol=1e-12 * (1 + np.abs(values).sum()))
    whole = random.integers(-9, 9, count).astype(float)
    np.testing.assert_array_equal(form(double(whole)), whole.cumsum())


@both_running
def test_running_sums_of_small_before_huge(form):
    """1, then 1e20 at place 100: the sums before it are 1, exactly, though 1 + 1e20 is 1e20."""
    values = torch.zeros(300, dtype=torch.float64)
    values[0], values[100] = 1, 1e20
    assert form(values).tolist() == [1.0] * 100 + [1e20] * 200


def test_blockwise_running_sums_take_memory_in_proportion(monkeypatch):
    """100 000 sums by 64-fold blocks of blocks, three levels: not by one triangle over all 1563 blocks."""
    values, ones, sides = torch.ones(100_000, dtype=torch.float64), torch.ones, []
    monkeypatch.setattr(sums.torch, "ones", lambda *size, **kwargs: sides.append(size) or ones(*size, **kwargs))
    blockwise_running_sums(values)
    assert sides == [(64, 64)] * 3


def test_sums_from_the_right_by_hand():
    assert sums_from_the_right(double([1, 2, 4])).tolist() == [7, 6, 4, 0]
    assert sums_from_the_right(double([])).tolist() == [0]
