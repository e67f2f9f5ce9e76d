"""The mini Faster R-CNN learns, in a minute, by plain cross entropy and by AP-loss."""

import learning
import pytest

MINI = ("model=faster_rcnn_quarter", "rpn=ce", "matching=roi")


@pytest.mark.full
def test_it_learns_by_cross_entropy(tmp_path):
    learning.assert_learns(tmp_path, [*MINI, "loss=cross_entropy"], floor=0.2)


@pytest.mark.full
def test_it_learns_by_ap_loss(tmp_path):
    learning.assert_learns(tmp_path, [*MINI, "loss=ap", "box_loss.weight=4"], floor=0.2)
