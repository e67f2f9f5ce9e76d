"""One run's weights as another's start."""

import pytest
import torch

from rankdet.build import build_detector
from rankdet.config import compose
from rankdet.errors import UserError
from rankdet.training.init import initialise_from

HEAD = {"heads.class_output.weight", "heads.class_output.bias"}


@pytest.fixture(scope="module")
def build():
    """build(number of classes, seed, more settings) -> a model with its own random weights."""

    def builder(num_classes, seed, *overrides):
        torch.manual_seed(seed)
        return build_detector(compose(list(overrides)), num_classes).model

    return builder


@pytest.fixture
def weights(build, tmp_path):
    """A finished run's weights.pt, three classes."""
    path = tmp_path / "weights.pt"
    torch.save({"model": build(3, 0).state_dict(), "classes": ("a", "b", "c"), "category_ids": (1, 2, 3)}, path)
    return path


def test_as_many_classes_take_everything(build, weights):
    model = build(3, 1)
    assert initialise_from(model, weights) == [f"initialised from {weights}"]
    theirs = torch.load(weights)["model"]
    assert model.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in model.state_dict().items())


def test_another_number_of_classes_starts_the_class_head_fresh_and_says_so(build, weights):
    model = build(5, 1)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    notes = initialise_from(model, weights)
    theirs = torch.load(weights)["model"]
    assert len(notes) == 2
    assert "start fresh" in notes[1]
    assert all(key in notes[1] for key in HEAD)
    for key, value in model.state_dict().items():
        assert torch.equal(value, fresh[key] if key in HEAD else theirs[key]), key
    assert not torch.equal(fresh["backbone.conv1.weight"], theirs["backbone.conv1.weight"])


def test_the_class_head_starts_fresh_where_it_is_told_to(build, weights):
    model = build(3, 1)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    notes = initialise_from(model, weights, fresh_class_head=True)
    assert notes[1].startswith("fresh_class_head=true: ") and all(key in notes[1] for key in HEAD)
    theirs = torch.load(weights)["model"]
    for key, value in model.state_dict().items():
        assert torch.equal(value, fresh[key] if key in HEAD else theirs[key]), key
    assert "another number of classes" in initialise_from(build(5, 1), weights, fresh_class_head=True)[1]


PROPOSALS, REGIONS, BOXES = (
    {f"{part}.{kind}" for kind in ("weight", "bias")}
    for part in ("rpn.score_output", "roi_head.score_output", "roi_head.box_output")
)


@pytest.mark.parametrize(
    ("num_classes", "fresh_class_head", "expected"),
    [
        (3, False, set()),
        (3, True, PROPOSALS | REGIONS),
        (5, False, REGIONS | BOXES),
        (5, True, PROPOSALS | REGIONS | BOXES),
    ],
)
def test_two_stages(build, tmp_path, num_classes, fresh_class_head, expected):
    """A region has scores and boxes for each class; a proposal has one score, whatever their number."""
    two_stages = ("model=faster_rcnn_quarter", "rpn=ce", "matching=roi")
    torch.save({"model": build(3, 0, *two_stages).state_dict()}, tmp_path / "weights.pt")
    model = build(num_classes, 1, *two_stages)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    notes = initialise_from(model, tmp_path / "weights.pt", fresh_class_head)
    theirs = torch.load(tmp_path / "weights.pt")["model"]
    for key, value in model.state_dict().items():
        assert torch.equal(value, fresh[key] if key in expected else theirs[key]), key
    assert not torch.equal(fresh["rpn.score_output.weight"], theirs["rpn.score_output.weight"])
    assert [note.partition(": ")[2] for note in notes[1:]] == [f"{', '.join(sorted(expected))} start fresh"] * bool(
        expected
    )


def test_another_architecture_is_refused_and_nothing_changed(build, weights):
    model = build(3, 1, "model.fpn.channels=32")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match=r"another architecture, differs in .*fpn"):
        initialise_from(model, weights)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("damage", ["missing", "garbage", "cut", "no model", "a list"])
def test_what_is_no_weights_file_is_named(build, weights, damage):
    if damage == "missing":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "garbage":
        weights.write_bytes(b"garbage")
    else:
        torch.save({"epoch": 3} if damage == "no model" else [1, 2], weights)
    with pytest.raises(UserError) as caught:
        initialise_from(build(3, 1), weights)
    assert str(caught.value).startswith(f"init_from={weights}: ")
    assert "\n" not in str(caught.value)
