"""FoveaBox's box deltas: by hand, there and back, and where they are cut."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdet.matching.fovea_coder import FoveaCoder

share = st.floats(0.0625, 16.0, width=32)


def test_by_hand():
    """Anchor (0, 0, 16, 16): centre (8, 8), z = 8. Box (4, 0, 24, 10): distances 4, 8, 16, 2 over 8, so logs of 1/2, 1,
    2 and 1/4. With stds of 0.5 they are twice that."""
    anchor, box = torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[4.0, 0, 24, 10]])
    expected = math.log(2) * torch.tensor([[-1.0, 0, 1, -2]])
    for std in (1.0, 0.5):
        coder = FoveaCoder([std] * 4)
        torch.testing.assert_close(coder.encode(anchor, box), expected / std)
        torch.testing.assert_close(coder.decode(anchor, expected / std), box)


def test_the_scale_is_by_axis():
    """A box of another shape than the anchor's (0, 0, 8, 32): z is 4 across and 16 down."""
    anchor = torch.tensor([[0.0, 0, 8, 32]])
    box = torch.tensor([[-4.0, 0, 8, 24]])  # distances 8, 16, 4, 8 from (4, 16)
    expected = math.log(2) * torch.tensor([[1.0, 0, 0, -1]])
    torch.testing.assert_close(FoveaCoder().encode(anchor, box), expected)


def test_zero_deltas_are_the_anchor():
    anchors = torch.tensor([[-4.0, 2, 12, 18], [0, 0, 1, 1]])
    torch.testing.assert_close(FoveaCoder().decode(anchors, torch.zeros(2, 4)), anchors)
    torch.testing.assert_close(FoveaCoder().encode(anchors, anchors), torch.zeros(2, 4))


@settings(deadline=None, max_examples=200)
@given(st.tuples(share, share, share, share), st.floats(-500, 500, width=32), st.sampled_from([8.0, 32.0, 512.0]))
def test_decode_undoes_encode(shares, centre, side):
    """Within 0.01 pixels in float32 where all distances are between z / 16 and 16 z."""
    x, y, z = centre, 2 * centre, side / 2
    anchor = torch.tensor([[x - z, y - z, x + z, y + z]])
    left, top, right, bottom = (z * s for s in shares)
    box = torch.tensor([[x - left, y - top, x + right, y + bottom]])
    coder = FoveaCoder([0.3, 0.5, 1.0, 2.0])
    torch.testing.assert_close(coder.decode(anchor, coder.encode(anchor, box)), box, atol=0.01, rtol=1e-5)


def test_distances_are_cut_when_learnt():
    """Anchor (0, 0, 16, 16), z = 8; box (8.1, -200, 9, 200): distances -0.1, 208, 1, 192 become 0.5, 128, 1, 128."""
    anchor, box = torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[8.1, -200, 9, 200]])
    deltas = FoveaCoder().encode(anchor, box)
    torch.testing.assert_close(deltas, torch.tensor([[1 / 16, 16.0, 1 / 8, 16.0]]).log())
    torch.testing.assert_close(FoveaCoder().decode(anchor, deltas), torch.tensor([[7.5, -120, 9, 136]]))


def test_huge_deltas_are_cut_and_take_no_gradient():
    """exp(1e4) is cut at 62.5: a distance of 62.5 times 4. No number of float32 makes a box inside out or infinite."""
    anchor = torch.tensor([[0.0, 0, 8, 8]])
    deltas = torch.tensor([[1e4, 0.5, 0, 0]], requires_grad=True)
    decoded = FoveaCoder().decode(anchor, deltas)
    torch.testing.assert_close(decoded, torch.tensor([[-246.0, 4 - 4 * math.exp(0.5), 8, 8]]))
    decoded.sum().backward()
    torch.testing.assert_close(deltas.grad, torch.tensor([[0.0, -4 * math.exp(0.5), 4, 4]]))
    extreme = torch.tensor([-torch.inf, -3e38, 3e38, torch.inf])
    boxes = FoveaCoder().decode(anchor, torch.cartesian_prod(extreme, extreme, extreme, extreme))
    assert boxes.shape == (256, 4)
    assert boxes.isfinite().all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()


def test_types():
    """Half deltas are decoded in float32; float64 in, float64 out; leading dimensions broadcast."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [5, 5, 9, 9]])
    deltas = torch.full((3, 2, 4), 0.3)
    exact = FoveaCoder().decode(anchors, deltas.bfloat16().float())
    assert exact.shape == (3, 2, 4)
    assert torch.equal(FoveaCoder().decode(anchors, deltas.bfloat16()), exact)
    assert FoveaCoder().decode(anchors, deltas.double()).dtype == torch.float64


def test_no_boxes():
    assert FoveaCoder().encode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    assert FoveaCoder().decode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("stds", [(1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 0.0)])
def test_bad_stds(stds):
    with pytest.raises(ValueError, match="stds must be four positive numbers"):
        FoveaCoder(stds)
