"""The mini Deformable DETR learns, in a minute or two, by its own loss and by Parameterized AP loss."""

import learning
import pytest

MINI = ("experiment=deformable_detr", "model=deformable_detr_quarter", "lr_factors=[]", "schedule.lr=0.001")


@pytest.mark.full
def test_it_learns_by_its_own_loss(tmp_path):
    learning.assert_learns(tmp_path, [*MINI, "loss=focal", "loss.weight=2", "box_loss=l1_giou"], floor=0.1)
