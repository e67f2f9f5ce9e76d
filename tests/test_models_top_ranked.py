"""Training on the anchors that a network of one class ranks highest: which they are, and the whole way by commands."""

import json

import pytest
import tiny
import torch
from torch import nn

from rankdet import train
from rankdet.config import compose, config_hash
from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.matching.assign import build_loss_inputs
from rankdet.matching.boxes import BoxCoder
from rankdet.matching.max_iou import MaxIoUMatcher
from rankdet.models.output import DetectorOutput
from rankdet.models.top_ranked import TopRanked

BOXES = torch.tensor([[10.0 * i, 0.0, 10.0 * i + 10, 10.0] for i in range(5)])


class Fixed(nn.Module):
    """Always the same scores, float [B, A, C], of five anchors in a row."""

    def __init__(self, scores, anchors=BOXES):
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores))
        self.anchors = anchors

    def forward(self, _images):
        logits = self.scores * 1.0
        return DetectorOutput(logits, torch.zeros(*logits.shape[:2], 4), self.anchors, (len(self.anchors),))


def ranked(num, scores=(((0.5,), (0.1,), (0.9,), (0.3,), (0.7,)),), **ranker):
    model = Fixed([[[0.0, 0.0]] * 5])
    model.register_forward_hook(TopRanked(Fixed(scores, **ranker), num))
    return model


class TestWhichTakePart:
    """By the scores .5 .1 .9 .3 .7 of five anchors."""

    @pytest.mark.parametrize(("num", "expected"), [(1, [2]), (2, [2, 4]), (3, [0, 2, 4]), (5, [0, 1, 2, 3, 4])])
    def test_the_highest(self, num, expected):
        assert ranked(num)(torch.zeros(1)).taking_part[0].nonzero().flatten().tolist() == expected

    def test_each_image_has_its_own(self):
        scores = [[[0.1], [0.2], [0.3], [0.4], [0.5]], [[0.5], [0.4], [0.3], [0.2], [0.1]]]
        taking_part = ranked(2, scores)(torch.zeros(1)).taking_part
        assert taking_part.tolist() == [[False, False, False, True, True], [True, True, False, False, False]]

    def test_in_evaluation_all(self):
        assert ranked(2).eval()(torch.zeros(1)).taking_part is None

    def test_positive_ones_join_them(self):
        """An object on anchor 1, ranked last: labels of the top two and of it; the others take no part."""
        target = Target(BOXES[1:2], torch.tensor([1]), torch.tensor([False]), 0, (10, 50))
        output = ranked(2)(torch.zeros(1))
        inputs = build_loss_inputs(output, [target], MaxIoUMatcher(), BoxCoder(), 2)
        assert inputs.labels[0].tolist() == [[-1, -1], [0, 1], [0, 0], [-1, -1], [0, 0]]

    def test_the_ranker_learns_nothing_and_is_no_part_of_the_model(self):
        ranker = Fixed([[[0.5], [0.1], [0.9], [0.3], [0.7]]])
        model = Fixed([[[0.0]] * 5])
        model.register_forward_hook(TopRanked(ranker, 2))
        model(torch.zeros(1)).logits.sum().backward()
        assert ranker.scores.grad is None
        assert not ranker.training
        assert list(model.state_dict()) == ["scores"]


class TestMistakes:
    """Each says what to do."""

    def test_no_anchor(self):
        with pytest.raises(UserError, match=r"candidates\.num=0: must be 1 or more"):
            ranked(0)

    def test_more_than_there_are(self):
        with pytest.raises(UserError, match=r"candidates\.num=6: an image has 5 anchors; candidates=all takes all"):
            ranked(6)(torch.zeros(1))

    @pytest.mark.parametrize("anchors", [BOXES + 1, BOXES[:4]])
    def test_other_anchors(self, anchors):
        scores = [[[0.0]] * len(anchors)]
        with pytest.raises(UserError, match="other anchors"):
            ranked(1, scores, anchors=anchors)(torch.zeros(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranked")
    assert tiny.call(train.main, tiny.overrides(folder, "one_class=true", "box_loss=none", "loss=focal")).code == 0
    return folder


@pytest.fixture(scope="module")
def weights(folder):
    (path,) = folder.rglob("weights.pt")
    return path


class TestCommands:
    """A network of one class, and a training among what it ranks highest."""

    def test_the_ranker_knows_objects_only(self, weights):
        assert torch.load(weights)["classes"] == ("object",)
        metrics = json.loads((weights.parent / "record.json").read_text())["metrics"]
        assert [key for key in metrics if "/" in key and "object" not in key] == []

    def test_a_training_among_few(self, folder, weights):
        few = ["box_loss=none", "loss=ap", "candidates=top_ranked", "candidates.num=20", f"candidates.rpn={weights}"]
        done = tiny.call(train.main, tiny.overrides(folder, *few))
        assert done.code == 0, done.err
        assert len(list(folder.rglob("record.json"))) == 2

    def test_a_file_that_is_no_such_network(self, folder, weights):
        few = ["candidates=top_ranked", "candidates.rpn="]
        other = tiny.call(train.main, tiny.overrides(folder, few[0], f"{few[1]}{folder}/nothing/weights.pt"))
        assert (other.code, other.err.count("\n")) == (2, 1)
        assert "nothing/config.yaml: no such file" in other.err
        other = tiny.call(train.main, tiny.overrides(folder, few[0], f"{few[1]}{weights.parent}"))
        assert "give the weights.pt of a finished run with one_class=true" in other.err

    def test_one_with_classes_is_refused(self, folder):
        arguments = tiny.overrides(folder, "loss=focal", "schedule.length=4", "schedule.milestones=[]")
        assert tiny.call(train.main, arguments).code == 0
        paths = [path for path in folder.rglob("weights.pt") if len(torch.load(path)["classes"]) > 1]
        done = tiny.call(train.main, tiny.overrides(folder, "candidates=top_ranked", f"candidates.rpn={paths[0]}"))
        assert done.code == 2
        assert "train it with one_class=true" in done.err

    def test_the_published_runs_are_the_same(self):
        """What was not there when they were made has no part in their identity where it does nothing."""
        plain = config_hash(compose([]))
        assert config_hash(compose(["one_class=true"])) != plain
        assert config_hash(compose(["candidates=all", "one_class=false", "micro_batch=0", "rpn=none"])) == plain
