"""The toy search: its AP by hand, what its trainings come to, and a run of it with few samples."""

import pytest
import torch

from rankdet.errors import UserError
from rankdet.search import toy, toy_report
from rankdet.search.parameters import Space
from rankdet.search.rounds import load_start


def test_average_precision_by_hand():
    """Scores 3 2 1 0, the first and third anchor true with IoU .72 and .97: up to .70 both count, precisions 1 and
    2/3, AP 5/6; from .75 on the third alone, precision 1/3, AP 1/6. Five thresholds of each kind, AP 1/2."""
    scores, ious = torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([0.72, 0.97], dtype=torch.float64)
    assert toy.average_precision(scores, ious) == pytest.approx((5 * 5 / 6 + 5 / 6) / 10)


def test_of_equal_scores_the_background_comes_first():
    """2 anchors of 4 are true: at places 3 and 4, precisions 1/3 and 2/4."""
    assert toy.average_precision(torch.zeros(4), torch.ones(2, dtype=torch.float64)) == pytest.approx(
        (1 / 3 + 2 / 4) / 2
    )


def test_a_training_learns(monkeypatch):
    """From the detector that it starts with, which tells nothing, to one that does, the same each time."""
    space = Space(("loss",), "fixed", True)
    shape = space.shapes(space.start())["loss"]
    learnt, judged = toy.draw(0), toy.draw(1)
    ap = toy.trained_ap(shape, learnt, judged)
    assert ap == toy.trained_ap(shape, learnt, judged)
    monkeypatch.setattr(toy, "STEPS", 0)
    assert ap > toy.trained_ap(shape, learnt, judged) + 0.1
    assert not torch.equal(toy.draw(0).features, toy.draw(1).features)


def test_its_report(tmp_path, monkeypatch):
    """Two rounds of two: all families, each with the reward of its best sample, and files."""
    monkeypatch.setattr(toy, "STEPS", 4)
    monkeypatch.setattr(toy_report, "UNSEEN", toy_report.UNSEEN[:2])
    outcomes = [
        toy_report.outcome(toy_report.toy_search(family, 2, 2), tmp_path / family) for family in toy_report.FAMILIES
    ]
    assert [(one.family, one.size) for one in outcomes] == [("fixed", 1), ("shared", 9), ("separate", 41)]
    assert all(len(one.rounds) == 2 and len(one.unseen) == 2 for one in outcomes)
    for one in outcomes:
        assert one.reward == sorted(reward for each in one.rounds for reward in each.rewards)[3]
    line = load_start(tmp_path / "fixed")
    assert line == load_start(tmp_path / "separate")
    text = toy_report.markdown((line, [0.1, 0.2]), outcomes)
    assert "| the identity line, gradient scale 1 |" in text and " 15.0 ± 7.1 " in text
    assert len(toy_report.csv(outcomes).splitlines()) == 13
    toy_report.plot(line, outcomes, tmp_path / "toy.png")
    assert (tmp_path / "toy.png").stat().st_size > 5000
    monkeypatch.setattr(toy, "STEPS", 5)
    with pytest.raises(UserError, match="was begun with toy="):
        toy_report.outcome(toy_report.toy_search("fixed", 2, 2), tmp_path / "fixed")
