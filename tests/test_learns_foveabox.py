"""The mini FoveaBox learns, in a minute."""

import learning
import pytest


@pytest.mark.full
def test_it_learns(tmp_path):
    model = ["model=foveabox_quarter", "matching=foveabox"]
    learning.assert_learns(tmp_path, [*model, "loss=ap", "schedule.lr=0.004", "box_loss.weight=4"], floor=0.15)
