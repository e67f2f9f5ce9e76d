"""Images and objects at which a detector has next to nothing to look at: defined, finite, and said where impossible."""

import json
import math

import pytest
import tiny
import torch
from omegaconf import OmegaConf
from test_training_gradients import batch, config, flat, steps, training

from rankdet import train
from rankdet.build import build_dataset, build_detector, open_source
from rankdet.config import compose, run_directory
from rankdet.data.loader import evaluation_loader
from rankdet.data.records import Batch, Target
from rankdet.data.view_dataset import image_batches
from rankdet.data.views import KeepAspect
from rankdet.errors import UserError
from rankdet.evaluation.inference import candidates, detect_image
from rankdet.models.output import DetectorOutput

DEVICE = torch.device("cpu")
PYRAMID = ("model.fpn.extra_levels=2", "model.anchors.scale=4.0")  # of strides 8 to 128, as on GPUs


def five_levels(loss="ap", norm="gn"):
    cfg = config(loss, norm)
    return OmegaConf.merge(cfg, {"model": {"fpn": {"extra_levels": 2}, "anchors": {"scale": 4.0}}})


def images_of(height, width, boxes, number=2) -> Batch:
    """The same objects of class 0 in each image."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (number, 3, height, width), generator=generator, dtype=torch.uint8)
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    none = torch.zeros(len(boxes))
    targets = [Target(boxes, none.long(), none.bool(), 70 + i, (height, width)) for i in range(number)]
    return Batch(images, targets)


class TestSmallImages:
    """Smaller than the largest stride, 128, and than the smallest, 8."""

    @pytest.mark.parametrize(
        ("size", "cells"),
        [
            ((1, 1), [1, 1, 1, 1, 1]),
            ((5, 7), [1, 1, 1, 1, 1]),
            ((33, 20), [15, 6, 2, 1, 1]),
            ((130, 9), [34, 9, 5, 3, 2]),
        ],
    )
    def test_every_level_keeps_a_cell_and_a_step_is_a_step(self, size, cells):
        """Cells of a level: height and width over its stride, rounded up. An object as large as the image is found an
        anchor, and all weights move."""
        trained = training(five_levels(), lr=0.01)
        height, width = size
        whole = images_of(height, width, [[0, 0, width, height]])
        with torch.no_grad():
            output: DetectorOutput = trained.model(whole.images)
        assert [number // 6 for number in output.level_sizes] == cells
        labels = trained.stages[0].assign(output, whole.targets).labels
        assert ((labels == 1).sum((1, 2)) >= 1).all()
        before = flat(trained.model)
        ((parts, found),) = steps(trained, [whole])
        assert math.isfinite(parts["loss"])
        assert parts["ap"] > 0
        assert bool(found.isfinite().all())
        assert not torch.equal(flat(trained.model), before)

    @pytest.mark.parametrize("size", [(1, 1), (5, 7), (33, 20)])
    def test_detections_lie_in_them(self, size):
        """Alone and in a padded batch alike."""
        torch.manual_seed(0)
        detector = build_detector(five_levels("focal"), 3)
        detector.model.heads.class_output.bias.data.fill_(0.0)
        image = images_of(*size, [])[0][0].permute(1, 2, 0).numpy()
        plain, padded = (KeepAspect(min(size), 2.0, [1.0], False, stride, [124, 116, 104]) for stride in (1, 32))
        found = [detect_image(detector, image_batches(image, views), DEVICE) for views in (plain, padded)]
        height, width = size
        for detections in found:
            assert len(detections.scores) >= 1
            assert (detections.boxes >= 0).all()
            assert (detections.boxes <= torch.tensor([width, height, width, height])).all()
        torch.testing.assert_close(found[0].scores, found[1].scores)
        torch.testing.assert_close(found[0].boxes, found[1].boxes, rtol=1e-4, atol=1e-3)

    @pytest.mark.full
    def test_a_run_on_them(self, tmp_path):
        """Trained, monitored, recorded: 20 x 24 pixels, and objects of 3 to 10."""
        short = ["schedule.length=8", "schedule.milestones=[]", "schedule.monitor_every=4", "data.source.num_test=3"]
        arguments = tiny.overrides(tmp_path, *PYRAMID, *short, "data.image_size=[20,24]")
        assert tiny.call(train.main, arguments).code == 0
        record = json.loads((run_directory(compose(arguments)) / "record.json").read_text())
        assert 0 <= record["metrics"]["AP50"] <= 1

    @pytest.mark.parametrize("setting", ["micro_batch=1", pytest.param("batch_size=1", marks=pytest.mark.full)])
    def test_one_at_a_time_batch_norm_says_what_it_lacks(self, tmp_path, setting):
        """One value per channel has no variance."""
        arguments = tiny.overrides(tmp_path, "splits.monitor=null", setting, "data.image_size=[20,24]")
        done = tiny.call(train.main, arguments)
        assert done.code == 2
        assert done.err.splitlines()[-1] == (
            "error: model.backbone.norm=bn: one image of 20 x 24 at a time leaves it one value to take statistics "
            "from; use larger images, a larger batch_size or micro_batch, or model.backbone.norm=gn"
        )

    def test_another_value_error_stays_what_it_is(self):
        trained = training(config())

        def broken(_module, _inputs):
            raise ValueError("something else")

        trained.model.register_forward_pre_hook(broken)
        with pytest.raises(ValueError, match="something else"):
            steps(trained, [batch()])


def tiny_anchors(loss):
    """Anchors of 0.8 x 0.8 pixels and thereabouts in the middle of cells of 8, 16 and 32."""
    return OmegaConf.merge(config(loss), {"model": {"anchors": {"scale": 0.1}}})


class TestUntouchedObjects:
    """Objects that no anchor touches: they are not learnt from, and the others are."""

    CORNER = (31.0, 31, 33, 33)  # where four cells of 8, of 16 and of 32 meet, whose anchors lie in their middle
    CENTRE = (10.0, 2, 14, 6)  # around that of the cell of 8 at x 8 ... 16, y 0 ... 8

    @pytest.mark.parametrize(
        "loss", ["ap", "focal", *(pytest.param(name, marks=pytest.mark.full) for name in ("alrp", "ce_ohem"))]
    )
    def test_alone_they_are_as_none(self, loss):
        """No positive, so the loss and the gradient of an image without objects."""
        results = []
        for boxes in ([self.CORNER], []):
            trained = training(tiny_anchors(loss), lr=0.0)
            whole = images_of(48, 64, boxes)
            inputs = trained.stages[0].assign(trained.model(whole.images), whole.targets)
            assert len(inputs.positives) == 0
            assert not inputs.labels.any()
            results += steps(trained, [whole])
        (parts, found), (expected, gradient) = results
        assert parts == expected
        assert torch.equal(found, gradient)
        assert bool(found.isfinite().all())
        assert (parts["loss"] == 0) == (loss in ("ap", "alrp"))

    def test_beside_one_that_is_touched(self):
        trained = training(tiny_anchors("ap"))
        whole = images_of(48, 64, [self.CORNER, self.CENTRE])
        inputs = trained.stages[0].assign(trained.model(whole.images), whole.targets)
        assert len(inputs.positives) >= 2
        assert inputs.target_boxes.unique(dim=0).tolist() == [list(self.CENTRE)]
        ((parts, _),) = steps(trained, [whole])
        assert parts["ap"] > 0

    @pytest.mark.full
    def test_a_run_in_which_no_object_is_ever_touched(self, tmp_path):
        """Anchors a billionth of their cell are empty in float32. It trains on nothing, finds nothing, and ends."""
        short = ["schedule.length=8", "schedule.milestones=[]", "splits.monitor=null", "data.source.num_test=3"]
        arguments = tiny.overrides(tmp_path, *short, "model.anchors.scale=1e-9", "data.image_size=[48,64]")
        done = tiny.call(train.main, arguments)
        assert done.code == 0, done.err
        run = run_directory(compose(arguments))
        entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert [entry["train/loss"] for entry in entries if "train/loss" in entry] == [0.0]
        assert json.loads((run / "record.json").read_text())["metrics"]["AP50"] == 0.0


def test_an_image_with_a_single_cell_in_a_padded_batch():
    """1 x 1 pixels beside 96 x 128: all anchors but those of one cell of each level are ignored; an object has some."""
    trained = training(five_levels())
    for boxes in ([], [[0, 0, 1, 1]]):
        whole = images_of(96, 128, boxes)
        targets = [whole.targets[0]._replace(shown=(1, 1)), whole.targets[1]]
        labels = trained.stages[0].assign(trained.model(whole.images), targets).labels
        positives = (labels == 1).sum((1, 2))
        taking_part = (labels != -1).any(2).sum(1)
        assert bool((positives > 0).all()) == bool(boxes)
        assert taking_part[0] - positives[0] <= 6 * 5 <= taking_part[0]
        assert taking_part[1] == labels.shape[1]
        ((parts, found),) = steps(trained, [Batch(whole.images, targets)])
        assert math.isfinite(parts["loss"])
        assert bool(found.isfinite().all())


def test_a_split_of_single_pixels_is_evaluated(tmp_path):
    """Views of 1 x 1 pixels: candidates have the shapes of candidates."""
    cfg = compose([*tiny.overrides(tmp_path, "data.source.num_test=2", *PYRAMID), "data.image_size=[1,1]"])
    dataset = build_dataset(cfg, open_source(cfg).read("test"), training=False)
    detector = build_detector(cfg, 6)
    (views,) = evaluation_loader(dataset, 2)
    found = candidates(detector, views, DEVICE)
    assert [each.boxes.shape[1:] for each in found] == [(4,)] * 2
    with pytest.raises(UserError, match="image_size must be"):
        build_dataset(compose(["data.image_size=[0,1]"]), dataset.detection_set, training=False)
