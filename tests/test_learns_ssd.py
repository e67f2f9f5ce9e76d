"""The mini SSD learns, in a minute."""

import learning
import pytest


@pytest.mark.full
def test_it_learns(tmp_path):
    learning.assert_learns(tmp_path, ["model=ssd_eighth", "matching=best_prior", "loss=ap"], floor=0.25)
