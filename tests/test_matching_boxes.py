"""Box deltas: by hand, there and back, and where decoding cuts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rankdet.matching.boxes import BoxCoder

side = st.floats(1.0, 500.0, width=32)
corner = st.floats(-100.0, 1000.0, width=32)


def box(x: float, y: float, width: float, height: float) -> Tensor:
    return torch.tensor([[x, y, x + width, y + height]])


def test_by_hand():
    """Anchor (0, 0, 10, 20), centre (5, 10); box (3, 8, 23, 18), centre (13, 13), 20 x 10.

    dx = 8/10/0.1 = 8, dy = 3/20/0.1 = 1.5, dw = ln(2)/0.2, dh = ln(1/2)/0.2.
    """
    anchor, target = torch.tensor([[0.0, 0.0, 10.0, 20.0]]), torch.tensor([[3.0, 8.0, 23.0, 18.0]])
    deltas = BoxCoder().encode(anchor, target)
    torch.testing.assert_close(deltas, torch.tensor([[8.0, 1.5, math.log(2) / 0.2, -math.log(2) / 0.2]]))
    torch.testing.assert_close(BoxCoder().decode(anchor, deltas), target)


def test_zero_deltas_are_the_anchor():
    anchors = torch.tensor([[-4.0, 2.0, 12.0, 10.0], [0.0, 0.0, 1.0, 1.0]])
    torch.testing.assert_close(BoxCoder((1.0, 1.0, 1.0, 1.0)).decode(anchors, torch.zeros(2, 4)), anchors)


@settings(deadline=None, max_examples=200)
@given(st.tuples(corner, corner, side, side), st.tuples(corner, corner, side, side), st.sampled_from([0.1, 0.5, 1.0]))
def test_decode_undoes_encode(anchor, target, std):
    """Within 0.02 pixels in float32 where no side grows more than 62.5-fold; beyond, the sides stop there."""
    coder = BoxCoder((std, std, 2 * std, 2 * std))
    anchor, target = box(*anchor), box(*target)
    decoded = coder.decode(anchor, coder.encode(anchor, target))
    expected = target.double().clone()
    for low, high in ((0, 2), (1, 3)):
        centre = (target[0, low].double() + target[0, high].double()) / 2
        half = min(target[0, high] - target[0, low], 62.5 * (anchor[0, high] - anchor[0, low])) / 2
        expected[0, low], expected[0, high] = centre - half, centre + half
    torch.testing.assert_close(decoded.double(), expected, atol=0.02, rtol=1e-5)


def test_huge_sizes_are_cut_and_take_no_gradient():
    """log dw = 1e4 * 0.2 is cut at log(62.5): an anchor 8 wide becomes 500 wide, centred on the same point."""
    anchor = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    deltas = torch.tensor([[0.0, 0.0, 1e4, 1.0]], requires_grad=True)
    decoded = BoxCoder().decode(anchor, deltas)
    torch.testing.assert_close(decoded[0, ::2], torch.tensor([-246.0, 254.0]))
    decoded[0, 2:].sum().backward()
    assert deltas.grad[0, 2] == 0
    assert deltas.grad[0, 3] == pytest.approx(0.2 * 4 * math.exp(0.2))


def test_types():
    """Half deltas are decoded in float32; float64 in, float64 out; leading dimensions broadcast."""
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 9.0, 9.0]])
    deltas = torch.full((3, 2, 4), 0.3)
    exact = BoxCoder().decode(anchors, deltas.bfloat16().float())
    assert exact.shape == (3, 2, 4)
    assert torch.equal(BoxCoder().decode(anchors, deltas.bfloat16()), exact)
    assert BoxCoder().decode(anchors, deltas.double()).dtype == torch.float64


def test_no_boxes():
    assert BoxCoder().encode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    assert BoxCoder().decode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("stds", [(0.1, 0.1, 0.2), (0.1, 0.1, 0.2, 0.0)])
def test_bad_stds(stds):
    with pytest.raises(ValueError, match="stds must be four positive numbers"):
        BoxCoder(stds)
