"""The mini Deformable DETR learns, in a minute; transformers need more steps than the other detectors."""

import learning
import pytest

MINI = ("experiment=deformable_detr", "model=deformable_detr_quarter", "lr_factors=[]", "schedule.lr=0.001")


@pytest.mark.full
def test_it_learns_by_its_own_loss(tmp_path):
    learning.assert_learns(tmp_path, [*MINI, "loss=focal", "loss.weight=2", "box_loss=l1_giou"], floor=0.06)
