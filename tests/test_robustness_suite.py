"""DeepFool on test images of several shapes: padding that makes a batch of them changes nothing."""

from dataclasses import replace

import pytest
import torch
from drawn_sets import drawn_set
from torch import nn

from rankdet.build import build_detector
from rankdet.config import compose
from rankdet.data.loader import evaluation_loader, without_padding
from rankdet.data.view_dataset import ViewDataset
from rankdet.data.views import KeepAspect, Stretch
from rankdet.errors import UserError
from rankdet.robustness import suite
from rankdet.robustness.fooling import best_detections, fool_detector
from rankdet.robustness.suite import Suite

CPU = torch.device("cpu")
LEVEL = 0.5  # the threshold; every image's best detection scores more


@pytest.fixture
def images(tmp_path):
    """Four pictures, three of 40 x 60 and one of 50 x 30."""
    return drawn_set(tmp_path, 4)


@pytest.fixture
def detector():
    """The mini protocol's network with group norm, which sees the whole input, and random weights."""
    torch.manual_seed(0)
    made = build_detector(compose(["model.backbone.norm=gn", "prior=0.5"]), 3)
    nn.init.normal_(made.model.heads.class_output.weight, std=0.3)
    made.model.eval()
    return made


def keep(stride, fill=0):
    """A shorter side of 40: 40 x 60 and 66 x 40."""
    return KeepAspect(40, 1.66, [1.0], False, stride, [fill] * 3)


def attacked(detector, batches):
    """Image id -> best class, score, number of its anchors, perturbation, in float64."""
    found = {}
    for batch in batches:
        pixels = batch.images.double()
        best = best_detections(detector, pixels)
        fooled = fool_detector(detector, pixels, best, LEVEL)
        assert fooled.success.all()
        number = best.anchors.sum(dim=1)
        for target, *parts in zip(
            batch.targets, best.classes, best.scores, number, fooled.perturbations, fooled.norms, strict=True
        ):
            found[target.image_id] = parts
    return found


def test_bounds_need_objects(images):
    """Where a server keeps them, nothing is right or wrong here."""
    split = replace(images, labelled=False)
    with pytest.raises(UserError, match="bounds need its objects, which a server keeps"):
        Suite(None, None, split, None, CPU).measure("upper_bound")


def test_images_of_a_padded_batch_are_attacked_as_if_alone(detector, images):
    """In float64: the same best detections, perturbations of the image's own size, the same norms."""
    detector.model.double()
    (padded,) = evaluation_loader(ViewDataset(images, keep(128, fill=200)), 4)
    assert padded.images.shape == (4, 3, 128, 128)
    alone = attacked(detector, evaluation_loader(ViewDataset(images, keep(1)), 1))
    together = attacked(detector, without_padding([padded]))
    assert together.keys() == alone.keys() == {100, 101, 102, 103}
    for image_id, (label, score, number, perturbation, norm) in together.items():
        theirs = alone[image_id]
        assert (label, number) == (theirs[0], theirs[2])
        assert perturbation.shape[1:] == ((66, 40) if image_id == 103 else (40, 60))
        torch.testing.assert_close(score, theirs[1], rtol=1e-9, atol=0)
        torch.testing.assert_close(norm, theirs[4], rtol=1e-6, atol=0)
        assert norm > 0.1


def fooled(detector, images, views):
    outcome = Suite(detector, None, images, views, CPU).fool()
    assert outcome.metrics["attacked"] == 4
    return outcome


@pytest.fixture
def low_threshold(monkeypatch):
    """The untrained network finds nothing right, so that its own threshold would leave no detection to attack."""
    monkeypatch.setattr(suite, "operating_point", lambda verdicts, num_objects: LEVEL)


@pytest.mark.usefixtures("low_threshold")
def test_the_suite_attacks_images_without_their_padding(detector, images):
    """Whatever colour it has, the padding leaves norms, also over the image's own, and pictures to the bit."""
    dark, bright = (fooled(detector, images, keep(128, fill)) for fill in (0, 255))
    assert dark.metrics == bright.metrics
    assert [picture.shape for picture in dark.pictures] == [(40, 60, 3), (66, 40, 3)]
    bare = fooled(detector, images, keep(1)).metrics
    for name in ("norm", "median_norm", "relative_norm", "fooled"):
        assert dark.metrics[name] == pytest.approx(bare[name], rel=1e-3), name


@pytest.mark.usefixtures("low_threshold")
def test_stretched_images_are_attacked_batch_by_batch_as_they_come(detector, images, monkeypatch):
    """To the bit what it is without a look at padding."""
    views = Stretch((64, 96))
    ours = fooled(detector, images, views)
    monkeypatch.setattr(suite, "without_padding", lambda batches: batches)
    theirs = fooled(detector, images, views)
    assert ours.metrics == theirs.metrics
    assert ours.metrics["norm"] > 0.1
    assert all((one == other).all() for one, other in zip(ours.pictures, theirs.pictures, strict=True))
