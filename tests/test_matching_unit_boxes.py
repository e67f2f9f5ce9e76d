"""Boxes in units of their anchor: by hand, there and back, any shapes, half types."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdet.matching.unit_boxes import UnitBoxCoder

CODER = UnitBoxCoder()
SIDES = st.floats(1.0, 2000.0, width=32)


def test_by_hand():
    """In an image of 200 x 100 the box (20, 10, 60, 90) has its centre at (40, 50) and is 40 x 80."""
    image, box = torch.tensor([[0.0, 0, 200, 100]]), torch.tensor([[20.0, 10, 60, 90]])
    deltas = CODER.encode(image, box)
    torch.testing.assert_close(deltas, torch.tensor([[0.2, 0.5, 0.2, 0.8]]))
    torch.testing.assert_close(CODER.decode(image, deltas), box)
    moved = torch.tensor([[1000.0, 500, 1000, 500]])  # an anchor elsewhere, and its box with it
    torch.testing.assert_close(CODER.encode(image + moved, box + moved), deltas)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(SIDES, SIDES, SIDES, SIDES), min_size=1, max_size=5))
def test_there_and_back(rows):
    anchors = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows], dtype=torch.float64)
    boxes = anchors.flip(0) + 3
    torch.testing.assert_close(CODER.decode(anchors, CODER.encode(anchors, boxes)), boxes)


def test_shapes_and_types():
    """Each anchor with each box; nothing; bfloat16 deltas."""
    anchors, boxes = torch.tensor([[0.0, 0, 10, 20]]).expand(3, 4), torch.rand(5, 4)
    pairs = CODER.encode(anchors[:, None], boxes)
    assert pairs.shape == (3, 5, 4)
    torch.testing.assert_close(pairs[2], CODER.encode(anchors[:1], boxes))
    assert CODER.encode(anchors[:, None], boxes[:0]).shape == (3, 0, 4)
    assert CODER.decode(anchors, torch.rand(3, 4).bfloat16()).dtype == torch.float32
