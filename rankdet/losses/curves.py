"""The one-dimensional functions of Parameterized AP loss: searched piecewise linear curves and handcrafted forms."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rankdet.losses.checks import check_finite, holds
from rankdet.losses.step_direct import power_step
from rankdet.losses.step_piecewise import curve_step, linear_step, sign_step
from rankdet.losses.step_sigmoid import SigmoidStep
from rankdet.losses.steps import Step

Curve = Callable[[Tensor], tuple[Tensor, Tensor]]  # float64 in [0, 1], any shape -> values and slopes

FORMS = ("searched", "sigmoid", "linear", "square", "sqrt")
NUM_COORDINATES = 12  # of a searched function: x and y of both ends and four points between
ASCEND = "control_points must ascend from (0, 0) to (1, 1), and H1 (row 4) be positive at 1/2"


class Functions(NamedTuple):
    """The five functions: h1 and h2 of score differences, i1, i2 and i3 of IoUs."""

    h1: Step
    h2: Step
    i1: Curve
    i2: Curve
    i3: Curve


def functions(form: str, control_points: Tensor | None, device: torch.device) -> Functions:
    """The functions of a form: "searched", through control_points, or one of the supplement's Table 3 for all five.

    control_points: float [5, 12] in the order H2, I2, I3, I1, H1, a row x_0, y_0, ..., x_5, y_5 from (0, 0) to (1, 1),
    x ascending, y not descending, H1 positive at 1/2, which a score counts for itself; [4, 12] makes H1 the hard step
    whose ties count 1/2. The step functions take u = clamp(x/2 + 1/2, 0, 1) of a score difference x, but for "sigmoid",
    which takes x itself. The slope of "sqrt" at 0 is 0.
    ValueError: an unknown form, control points of another shape or that break these rules.
    """
    if form == "searched":
        points = _checked(control_points).to(device, torch.float64)
        xs, ys = points[:, 0::2], points[:, 1::2]
        h2 = curve_step(xs[0].unbind(), ys[0].unbind())
        h1 = curve_step(xs[4].unbind(), ys[4].unbind()) if len(points) == 5 else sign_step()
        i2, i3, i1 = (_through(xs[row], ys[row]) for row in (1, 2, 3))
        return Functions(h1, h2, i1, i2, i3)
    if form == "sigmoid":
        return Functions(SigmoidStep(1.0), SigmoidStep(1.0), *[_sigmoid] * 3)
    if form == "linear":
        return Functions(linear_step(1.0), linear_step(1.0), *[lambda x: (x, torch.ones_like(x))] * 3)
    if form in ("square", "sqrt"):
        exponent = {"square": 2.0, "sqrt": 0.5}[form]
        step = power_step(exponent)
        return Functions(step, step, *[_power(exponent)] * 3)
    raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")


def control_points(theta: Tensor) -> Tensor:
    """The points of searched functions: float [..., 2 K], theta_x and theta_y in turn -> [..., 2 (K + 2)], x, y pairs.

    From (0, 0), then p_k = p_(k-1) + (1 - p_(k-1)) theta_k in x and in y alike, then (1, 1) (as released). theta in
    (0, 1) makes them ascend. ValueError: an odd number of coordinates.
    """
    if theta.shape[-1] % 2:
        raise ValueError(f"theta must be [..., 2 K], x and y in turn, got {tuple(theta.shape)}")
    inner = 1 - (1 - theta.unflatten(-1, (-1, 2))).cumprod(-2)  # 1 - p_k = (1 - p_(k-1)) (1 - theta_k)
    start = torch.zeros_like(inner[..., :1, :])
    return torch.cat((start, inner, start + 1), -2).flatten(-2)


def piecewise_curve(x: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope at x (float64 in [0, 1], clamped to it) of the line through points ([2 (K + 1)]: x, y pairs).

    At a knot the slope is that of the segment on its left; at 0, of the first.
    """
    return _through(points[0::2], points[1::2])(x)


def _through(xs: Tensor, ys: Tensor) -> Curve:
    def curve(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clamp(0, 1).contiguous()
        left = (torch.searchsorted(xs, x) - 1).clamp(0, len(xs) - 2)
        slopes = (ys.diff() / xs.diff())[left]
        return ys[left] + slopes * (x - xs[left]), slopes

    xs, ys = xs.contiguous(), ys.contiguous()
    return curve


def _power(exponent: float) -> Curve:
    return lambda x: (x**exponent, torch.where(x > 0, exponent * x ** (exponent - 1), 0))


def _sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """sigmoid(2 x - 1)."""
    value = (2 * x - 1).sigmoid()
    return value, 2 * value * (1 - value)


def _checked(points: Tensor | None) -> Tensor:
    if points is None or points.dim() != 2 or points.shape[0] not in (4, 5) or points.shape[1] != NUM_COORDINATES:
        shape = None if points is None else tuple(points.shape)
        raise ValueError(f"control_points must be [5, {NUM_COORDINATES}] or [4, {NUM_COORDINATES}], got {shape}")
    check_finite(points, "control_points")
    xs, ys = points[:, 0::2], points[:, 1::2]
    ends = torch.stack((xs[:, 0], ys[:, 0], 1 - xs[:, -1], 1 - ys[:, -1]))
    legal = (ends == 0).all(0) & (xs.diff() > 0).all(1) & (ys.diff() >= 0).all(1)
    h1_at_half, _ = piecewise_curve(points.new_full((1,), 0.5), points[-1])
    legal = torch.cat((legal[:-1], legal[-1:] & ((h1_at_half > 0) | (len(points) == 4))))
    if not holds(legal.all(), ASCEND):
        row = int((~legal).nonzero()[0])
        raise ValueError(f"{ASCEND}, got row {row}: {points[row].tolist()}")
    return points
