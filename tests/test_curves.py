"""The functions of Parameterized AP loss: golden curves and control points, hand values and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import golden_files

from rankdet.losses.curves import FORMS, control_points, functions, piecewise_curve

CPU = torch.device("cpu")
# From (0, 0) over (1/4, 0.1), (1/2, 0.5), (5/8, 0.5) and (3/4, 0.9) to (1, 1); slopes 0.4, 1.6, 0, 3.2, 0.4.
ROW = [0.0, 0.0, 0.25, 0.1, 0.5, 0.5, 0.625, 0.5, 0.75, 0.9, 1.0, 1.0]


def rows(count=5, **changed):
    """count times ROW, with changed coordinates x1=..., y1=... in the last."""
    points = torch.tensor([ROW] * count, dtype=torch.float64)
    for name, value in changed.items():
        points[-1, 2 * int(name[1]) + "xy".index(name[0])] = value
    return points


def test_golden_curves():
    visited = 0
    files = golden_files("pap_curve")
    for file in files:
        z = np.load(file)
        for points, y, slope in zip(z["curves"], z["y"], z["dydx"], strict=True):
            computed = piecewise_curve(torch.from_numpy(z["x"]).double(), torch.from_numpy(points).double())
            np.testing.assert_allclose(computed[0], y, atol=1e-10)
            np.testing.assert_allclose(computed[1], slope, atol=1e-10)
            visited += 1
    assert visited > len(files)


def test_golden_control_points():
    """Four, two and six inner points."""
    visited = 0
    for file in golden_files("pap_theta"):
        z = np.load(file)
        for suffix in ("", "_k2", "_k6"):
            points = control_points(torch.from_numpy(z[f"theta{suffix}"]))
            np.testing.assert_allclose(points, z[f"ctrl{suffix}"], atol=1e-12)
            visited += 1
    assert visited >= 3


def test_curve_by_hand():
    """On a knot the slope is that of the segment on its left, at 0 of the first; outside, the curve is at its ends."""
    x = torch.tensor([-1.0, 0, 0.125, 0.25, 0.5, 0.5625, 0.6875, 0.75, 0.875, 1, 2], dtype=torch.float64)
    y, slope = piecewise_curve(x, torch.tensor(ROW, dtype=torch.float64))
    np.testing.assert_allclose(y, [0, 0, 0.05, 0.1, 0.5, 0.5, 0.7, 0.9, 0.95, 1, 1], atol=1e-15)
    np.testing.assert_allclose(slope, [0.4, 0.4, 0.4, 0.4, 1.6, 0, 3.2, 3.2, 0.4, 0.4, 0.4], atol=1e-15)


def test_curve_of_any_shape():
    x = torch.rand(6, 2, 3, dtype=torch.float64).permute(2, 0, 1)
    y, slope = piecewise_curve(x, torch.tensor(ROW, dtype=torch.float64))
    np.testing.assert_allclose(y, np.interp(x, ROW[0::2], ROW[1::2]), atol=1e-15)
    assert slope.shape == x.shape


def test_control_points_by_hand():
    """x by halves: 1/2, then 3/4; y by quarters: 1/4, then 1/4 + 3/4 * 1/3 = 1/2. And the line: 1/5, 1/4, 1/3, 1/2."""
    theta = torch.tensor([1 / 2, 1 / 4, 1 / 2, 1 / 3], dtype=torch.float64)
    np.testing.assert_allclose(control_points(theta), [0, 0, 1 / 2, 1 / 4, 3 / 4, 1 / 2, 1, 1], atol=1e-15)
    line = torch.tensor([1 / 5, 1 / 5, 1 / 4, 1 / 4, 1 / 3, 1 / 3, 1 / 2, 1 / 2], dtype=torch.float64)
    np.testing.assert_allclose(control_points(line), np.repeat([0, 0.2, 0.4, 0.6, 0.8, 1], 2), atol=1e-15)
    with pytest.raises(ValueError, match=r"^theta must be \[\.\.\., 2 K\], x and y in turn, got \(2, 3\)"):
        control_points(torch.zeros(2, 3))


@settings(max_examples=50, deadline=None)
@given(theta=st.lists(st.floats(0.01, 0.99), min_size=40, max_size=40))
def test_any_theta_gives_points_that_are_taken(theta):
    """They ascend from (0, 0) to (1, 1), and follow the recursion."""
    theta = torch.tensor(theta, dtype=torch.float64).view(5, 8)
    points = control_points(theta)
    functions("searched", points, CPU)
    for row, steps in zip(points, theta, strict=True):
        for k in range(8):
            assert row[k + 2].item() == pytest.approx((row[k] + (1 - row[k]) * steps[k]).item(), abs=1e-15)


def test_rows_are_h2_i2_i3_i1_h1():
    """A row whose first inner point is (1/4, 0.01 r) gives r at 1/4; score differences are twice u less 1."""
    points = rows()
    points[:, 3] = 0.01 * torch.arange(1, 6)
    shapes = functions("searched", points, CPU)
    quarter, zero = torch.tensor([0.25], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for curve, row in ((shapes.i2, 2), (shapes.i3, 3), (shapes.i1, 4)):
        assert curve(quarter)[0].item() == pytest.approx(0.01 * row)
    for step, row in ((shapes.h2, 1), (shapes.h1, 5)):
        assert step.pairs(zero, 2 * quarter - 1).at_points().item() == pytest.approx(0.01 * row)


def test_four_rows_make_h1_the_sign():
    """Differences -1e-9, 0 and 1e-9 count 0, 1/2 and 1."""
    step = functions("searched", rows(4), CPU).h1
    x = torch.tensor([-1e-9, 0, 1e-9], dtype=torch.float64)
    assert step.pairs(torch.zeros(1), x).at_scores(torch.ones(1, dtype=torch.float64)).tolist() == [0, 0.5, 1]


# Table 3's forms: values and slopes at o = 0, 1/4 and 1.
OF_IOUS = {
    "sigmoid": ([1 / (1 + np.e), 1 / (1 + np.e**0.5), 1 / (1 + 1 / np.e)], None),
    "linear": ([0, 1 / 4, 1], [1, 1, 1]),
    "square": ([0, 1 / 16, 1], [0, 1 / 2, 2]),
    "sqrt": ([0, 1 / 2, 1], [0, 1, 1 / 2]),
}


def test_handcrafted_forms_of_ious():
    """sigmoid(2 o - 1) with slope 2 s (1 - s); o; o^2; and o^(1/2), whose slope at 0 is given as 0."""
    assert set(OF_IOUS) == set(FORMS) - {"searched"}
    o = torch.tensor([0, 0.25, 1], dtype=torch.float64)
    for form, (values, slopes) in OF_IOUS.items():
        if slopes is None:
            slopes = [2 * s * (1 - s) for s in values]
        for curve in functions(form, None, CPU)[2:]:
            np.testing.assert_allclose(curve(o)[0], values, atol=1e-15)
            np.testing.assert_allclose(curve(o)[1], slopes, atol=1e-15)


# Table 3's forms at differences -2, -1, -1/2, 0, 1 and 3: values and slopes.
OF_DIFFERENCES = {
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2),
    "linear": ([0, 0, 1 / 4, 1 / 2, 1, 1], [0, 0, 1 / 2, 1 / 2, 0, 0]),
    "square": ([0, 0, 1 / 16, 1 / 4, 1, 1], [0, 0, 1 / 4, 1 / 2, 0, 0]),
    "sqrt": ([0, 0, 1 / 2, 0.5**0.5, 1, 1], [0, 0, 1 / 2, 0.5**0.5 / 2, 0, 0]),
    "searched": ([0, 0, 0.1, 0.5, 1, 1], [0, 0, 0.2, 0.8, 0, 0]),
}


def test_forms_of_score_differences():
    """Both functions of u = x/2 + 1/2 inside -1 .. 1; the slope is 0 at both ends, and ROW's left one at its knots."""
    assert set(OF_DIFFERENCES) == set(FORMS)
    x, one = torch.tensor([-2, -1, -0.5, 0, 1, 3], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for form, (values, slopes) in OF_DIFFERENCES.items():
        if callable(values):
            values, slopes = values(x.numpy()), slopes(x.numpy())
        for step in functions(form, rows(), CPU)[:2]:
            pairs = step.pairs(torch.zeros(1), x)
            np.testing.assert_allclose(pairs.at_scores(one), values, atol=1e-15)
            np.testing.assert_allclose(pairs.slopes_at_scores(one), slopes, atol=1e-15)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (None, r"^control_points must be \[5, 12\] or \[4, 12\], got None"),
        (torch.zeros(12), r"got \(12,\)"),
        (torch.zeros(3, 12), r"got \(3, 12\)"),
        (torch.zeros(5, 8), r"got \(5, 8\)"),
        (rows(y2=torch.nan), r"^control_points must be finite"),
        (rows(x0=0.1), r"must ascend from \(0, 0\) to \(1, 1\), .* got row 4: \[0\.1, 0\.0, 0\.25, "),
        (rows(y0=0.1), "got row 4"),
        (rows(x5=0.9), "got row 4"),
        (rows(y5=1.1), "got row 4"),
        (rows(x2=0.25), "got row 4"),
        (rows(x2=0.2), "got row 4"),
        (rows(y2=0.05), "got row 4"),
        (rows(4, y2=0.05), "got row 3"),
        (rows(y1=0.0, y2=0.0), r"H1 \(row 4\) be positive at 1/2, got row 4"),
    ],
)
def test_bad_control_points(points, message):
    with pytest.raises(ValueError, match=message):
        functions("searched", points, CPU)


def test_flat_stretches_are_legal():
    """y may stay; H2 alone may even be 0 at 1/2, and so may the last of four rows, which is I1."""
    points = rows()
    points[0, [3, 5]] = 0.0
    functions("searched", points, CPU)
    functions("searched", rows(4, y1=0.0, y2=0.0), CPU)


def test_bad_form():
    with pytest.raises(ValueError, match=r"^form must be one of searched, sigmoid, linear, square, sqrt, got 'cubic'"):
        functions("cubic", None, CPU)
