"""A detector of several stages in training: weights, names, the loop, micro-batches, checkpoints."""

import json
import math

import pytest
import tiny
import torch
from test_training_gradients import batch, config, difference, flat, steps, training
from torch import nn

from rankdet import train as command
from rankdet.build import Detector, build_criterion, make
from rankdet.config import compose, run_directory
from rankdet.data.records import Batch
from rankdet.losses.criterion import Criterion
from rankdet.losses.inputs import LossOutput
from rankdet.losses.sampling import OHEMSampler
from rankdet.matching.boxes import BoxCoder
from rankdet.matching.max_iou import MaxIoUMatcher
from rankdet.models.output import DetectorOutput
from rankdet.training.checkpoint import load_newest
from rankdet.training.stage import Stage

CODER = BoxCoder()
ANCHORS = torch.tensor([[0.0, 0, 24, 20], [30, 10, 60, 44], [8, 24, 26, 44], [40, 0, 60, 10]])


class TwoStages(nn.Module):
    """A toy: one score and box for each of four anchors, then three of each for the anchors moved by these boxes.

    Like proposals, the second stage's anchors are other boxes in each image; the last of them takes no part.
    """

    coder = rpn_coder = CODER

    def __init__(self, num_classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 7, stride=8), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.first, self.second = nn.Linear(8, 5), nn.Linear(8, 5 * num_classes)
        self.num_classes = num_classes
        self.seen = []

    def forward(self, images, targets):
        self.seen.append([target.image_id for target in targets])
        cells = self.body(images / 255 - 0.5).flatten(2).transpose(1, 2)  # [B, 4, 8]
        found = self.first(cells)
        moved = CODER.decode(ANCHORS, found[..., 1:].detach())
        then = self.second(cells).unflatten(2, (self.num_classes, 5))
        taking_part = torch.ones(len(images), 4, dtype=torch.bool)
        taking_part[:, 3] = False
        return (
            DetectorOutput(found[..., :1], found[..., 1:], ANCHORS, (4,)),
            DetectorOutput(then[..., 0], then[..., 1:], moved, (4,), taking_part),
        )


def stages(weight=1.0, sampler=None, loss="ap") -> list[Stage]:
    first, second = (build_criterion(config(name), number, 0.01)[0] for name, number in (("focal", 1), (loss, 3)))
    for criterion in (first, second):
        criterion.set_epoch_length(2)
    matcher = MaxIoUMatcher(0.5, 0.5)
    return [Stage(first, matcher, CODER, 1, sampler, weight, "rpn "), Stage(second, matcher, CODER, 3)]


def two_stages(weight=1.0, micro_batch=0, lr=0.0, loss="ap"):
    """A training of the toy."""
    trained = training(config(), micro_batch, lr)
    torch.manual_seed(0)
    trained.model, trained.stages = TwoStages(), stages(weight, loss=loss)
    trained.optimizer = torch.optim.SGD(trained.model.parameters(), lr=123.0)
    return trained


def test_a_weight_scales_the_loss_and_its_gradient_and_not_its_parts():
    """Of one stage by itself: 0.2 times the total; parts are as the criterion reports them, under the stage's name."""
    found = {}
    for weight in (1.0, 0.2):
        torch.manual_seed(0)
        output = TwoStages()(batch().images, batch().targets)[0]
        leaf = output.logits.detach().requires_grad_()
        (stage, _) = stages(weight)
        total, parts = stage.loss(stage.assign(output._replace(logits=leaf), batch().targets))
        total.backward()
        found[weight] = float(total.detach()), {name: float(part) for name, part in parts.items()}, leaf.grad
    assert found[1.0][1].keys() == {"rpn focal", "rpn box"}
    assert found[0.2][1] == found[1.0][1]
    assert found[0.2][0] == pytest.approx(0.2 * found[1.0][0]) != 0
    torch.testing.assert_close(found[0.2][2], 0.2 * found[1.0][2])


def test_a_stage_of_one_class_takes_objects_of_all_and_its_sampler_leaves_negatives_out():
    """Image 0 has its three objects on anchors 0, 1 and 2 and one negative, which OHEM without negatives drops."""
    output, then = TwoStages()(batch().images, batch().targets)
    plain, sampled = (stages(sampler=sampler)[0] for sampler in (None, OHEMSampler(0.0, 0)))
    labels = plain.assign(output, batch().targets).labels
    assert labels.shape == (5, 4, 1)
    assert labels[0, :, 0].tolist() == [1, 1, 1, 0]
    assert sampled.assign(output, batch().targets).labels[0, :, 0].tolist() == [1, 1, 1, -1]
    assert stages()[1].assign(then, batch().targets).labels.shape == (
        5,
        4,
        3,
    )


def test_probabilities_are_the_loss_s():
    logits = torch.tensor([[0.0, math.log(3)]])
    torch.testing.assert_close(stages()[1].probabilities(logits), torch.tensor([[0.5, 0.75]]))


def test_a_step_adds_up_the_stages():
    """Parts of both under their names; the total and the gradient are those of an ordinary backward pass."""
    trained = two_stages(weight=0.2)
    ((parts, found),) = steps(trained, [batch()])
    assert parts.keys() == {"loss", "rpn focal", "rpn box", "ap", "box"}
    expected = 0.2 * (parts["rpn focal"] + parts["rpn box"]) + parts["ap"] + parts["box"]
    assert parts["loss"] == pytest.approx(expected)
    assert trained.model.seen == [[70, 71, 72, 73, 74]]
    again = two_stages(weight=0.2)
    outputs = again.model.train()(batch().images, batch().targets)
    sum(
        stage.loss(stage.assign(output, batch().targets)).total
        for stage, output in zip(again.stages, outputs, strict=True)
    ).backward()
    ordinary = torch.cat([p.grad.double().flatten() for p in again.model.parameters()])
    assert difference(found, ordinary) < 1e-6


def test_a_stage_of_weight_0_teaches_nothing():
    trained = two_stages(weight=0.0)
    steps(trained, [batch()])
    assert not trained.model.first.weight.grad.any()
    assert trained.model.second.weight.grad.any()


@pytest.mark.parametrize("loss", ["ap", "alrp"])
def test_micro_batches(loss):
    """Each share comes with its own targets; the second stage's anchors and who takes part are joined."""
    whole, ours = two_stages(0.2, loss=loss), two_stages(0.2, 2, loss=loss)
    for trained in (whole, ours):
        trained.model.body[1].eval()
        trained.model.body[1].train = lambda mode=True: None  # its statistics are of a micro-batch otherwise
    (parts, expected), (mine, found) = steps(whole, [batch()])[0], steps(ours, [batch()])[0]
    assert ours.model.seen == 2 * [[70, 71], [72, 73], [74]]
    assert mine == pytest.approx(parts, rel=1e-5)
    assert difference(found, expected) < 2e-5


def test_a_value_that_is_not_finite_names_the_parts_of_all_stages():
    trained = two_stages(lr=0.1)
    before = flat(trained.model)
    criterion = trained.stages[1].criterion

    class Spoilt(nn.Module):
        def forward(self, inputs):
            total, parts = criterion(inputs)
            return LossOutput(total * math.nan, parts)

    trained.stages[1].criterion = Spoilt()
    with pytest.raises(
        FloatingPointError, match=r"step 0: the loss is not finite, rpn focal=.*, rpn box=.*, ap=.*70, "
    ):
        steps(trained, [batch()])
    assert torch.equal(flat(trained.model), before)


def test_no_object_in_either_stage():
    trained = two_stages()
    whole = batch((0, 0))
    ((parts, found),) = steps(trained, [Batch(whole.images, whole.targets)])
    assert parts["ap"] == parts["box"] == parts["rpn box"] == 0
    assert bool(found.isfinite().all())
    assert all(p.grad is not None for p in trained.model.parameters())


def toy_detector(cfg, num_classes) -> Detector:
    """The toy instead of cfg's model: aLRP in both stages, whose balance changes once an epoch."""
    torch.manual_seed(0)
    matcher = MaxIoUMatcher(0.5, 0.5)
    losses = [build_criterion(config("alrp"), number, 0.01)[0] for number in (1, num_classes)]
    pair = [
        Stage(losses[0], matcher, CODER, 1, None, 0.2, "rpn "),
        Stage(losses[1], matcher, CODER, num_classes),
    ]
    return Detector(TwoStages(num_classes), pair, make(cfg.evaluation))


def states(folder) -> list[dict[str, torch.Tensor]]:
    """What the newest checkpoint says of the criteria."""
    content, notes = load_newest(folder / "checkpoints")
    assert not notes
    (process,) = content["processes"]
    return process["criteria"]


def test_a_run_saves_the_criteria_of_each_stage_and_resumes_to_the_same_bits(tmp_path, monkeypatch):
    """Eight steps of two images from ten: the self-balance of both stages is set at the end of the epoch, step 5."""
    monkeypatch.setattr(command, "build_detector", toy_detector)
    short = ["batch_size=2", "schedule.length=16", "schedule.milestones=[]", "splits.monitor=null"]
    arguments = tiny.overrides(tmp_path, *short, "data.source.num_test=2", "data.source.num_train=10")
    run = run_directory(compose(arguments))
    assert tiny.call(command.main, arguments).code == 0
    weights, last = torch.load(run / "weights.pt")["model"], states(run)
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    parts = {name.removeprefix("train/") for name in entries[0] if name.startswith("train/")}
    own = {name for name in parts if f"rpn {name}" in parts}
    assert len(own) >= 2
    assert parts == own | {f"rpn {name}" for name in own} | {"loss", "lr", "grad_norm"}
    for path in (run / "record.json", run / "checkpoints" / "step-00000008.pt"):
        path.unlink()
    before = states(run)
    assert len(before) == len(last) == 2
    assert before[0].keys() == before[1].keys() != set()
    assert any(not torch.equal(before[0][name], before[1][name]) for name in before[0])
    done = tiny.call(command.main, arguments)
    assert "continuing at step 6" in done.err
    assert all(torch.equal(value, torch.load(run / "weights.pt")["model"][name]) for name, value in weights.items())
    for ours, theirs in zip(states(run), last, strict=True):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert isinstance(toy_detector(compose(arguments), 3).last.criterion, Criterion)
