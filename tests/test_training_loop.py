"""The training loop on a real detector and made-up images, a few steps at a time."""

import copy
import math
import time
from functools import lru_cache
from itertools import count

import pytest
import torch
from spoilt import InfiniteGradient, Spoilt

from rankdet.build import build_detector
from rankdet.config import compose
from rankdet.data.records import Batch, Target
from rankdet.errors import UserError
from rankdet.training import timing
from rankdet.training.loop import Training, train
from rankdet.training.schedule import StepSchedule

LOSSES = ("ap", "auc", "focal", "ce_ohem")
CLASSES = 3


def batch(num_objects=3, first_id=70):
    """Two images of 48 x 64 with up to three boxes each; ids 70 and 71."""
    generator = torch.Generator().manual_seed(first_id)
    images = torch.randint(0, 256, (2, 3, 48, 64), generator=generator, dtype=torch.uint8)
    boxes = torch.tensor([[2.0, 2, 22, 20], [30, 10, 60, 44], [8, 24, 26, 44]])[:num_objects]
    labels = torch.tensor([0, 1, 2])[:num_objects]
    none = torch.zeros(num_objects, dtype=torch.bool)
    return Batch(images, [Target(boxes, labels, none, first_id + i, (48, 64)) for i in range(2)])


@lru_cache
def config(loss, box_loss):
    return compose([f"loss={loss}", f"box_loss={box_loss}"])


def training(loss="ap", box_loss="smooth_l1", lr=1.0, precision="fp32", clip=None):
    """A quarter ResNet-18 under plain gradient descent at a constant rate."""
    torch.manual_seed(0)
    detector = build_detector(config(loss, box_loss), CLASSES)
    schedule = StepSchedule(lr, 10, (), 0.1, 0, 1.0, 10)
    optimizer = torch.optim.SGD(detector.model.parameters(), lr=123.0)  # the schedule's word counts
    device = torch.device("cpu")
    return Training(detector.model, detector.stages, optimizer, schedule, device, precision, clip)


def reports_of(trained, batches):
    reports = []
    train(trained, batches, [reports.append])
    return reports


def weights(trained):
    return [p.detach().clone() for p in trained.model.parameters()]


def gradients(trained):
    return [p.grad.clone() for p in trained.model.parameters()]


class TestSteps:
    """What one step does."""

    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_split_backward_gives_the_gradients_of_an_ordinary_one(self, loss):
        """The loss is differentiated on copies of the outputs, and the network from there; the chain rule is one."""
        trained = training(loss, lr=0.0)
        model = copy.deepcopy(trained.model).train()
        seen = []
        train(trained, [batch()], [lambda _: seen.extend(gradients(trained))])
        output = model(batch().images)
        (stage,) = trained.stages
        stage.loss(stage.assign(output, batch().targets)).total.backward()
        ordinary = [p.grad for p in model.parameters()]
        assert len(seen) == len(ordinary) > 50
        assert all(torch.equal(a, b) for a, b in zip(seen, ordinary, strict=True))
        assert sum(float(g.abs().sum()) for g in seen) > 0

    def test_a_step_is_the_rate_times_the_gradient(self):
        trained = training(lr=0.25)
        before = weights(trained)
        report = reports_of(trained, [batch()])[0]
        assert (report.step, report.lr, report.images, trained.step) == (1, 0.25, 2, 1)
        for old, new in zip(before, trained.model.parameters(), strict=True):
            torch.testing.assert_close(new.detach(), old - 0.25 * new.grad)

    def test_the_rate_follows_the_schedule_from_the_step_that_it_stands_at(self):
        """lr 1 with a milestone at step 3, from step 2 on: 1, 0.1, 0.1."""
        trained = training(lr=0.0)
        trained.schedule = StepSchedule(1e-3, 10, (3,), 0.1, 0, 1.0, 10)
        trained.step = 2
        reports = reports_of(trained, [batch()] * 3)
        assert [r.step for r in reports] == [3, 4, 5]
        assert [r.lr for r in reports] == pytest.approx([1e-3, 1e-4, 1e-4])

    def test_reported_parts_add_up_and_hold_no_graph(self):
        report = reports_of(training("focal"), [batch()])[0]
        assert report.parts.keys() == {"loss", "focal", "box"}
        assert float(report.parts["loss"]) == pytest.approx(float(report.parts["focal"] + report.parts["box"]))
        assert not any(part.requires_grad for part in report.parts.values())

    def test_clipping_bounds_the_step_and_reports_the_whole_norm(self):
        """At rate 1 the change of all weights together is as long as the clipped gradient."""
        free, clipped = training(), training(clip=0.01)
        before = weights(clipped)
        whole = float(reports_of(free, [batch()])[0].grad_norm)
        assert whole > 0.02
        assert whole == pytest.approx(math.sqrt(sum(float((g**2).sum()) for g in gradients(free))), rel=1e-5)
        assert float(reports_of(clipped, [batch()])[0].grad_norm) == pytest.approx(whole)
        change = [(a - b.detach()).double() for a, b in zip(before, clipped.model.parameters(), strict=True)]
        assert math.sqrt(sum(float((c**2).sum()) for c in change)) == pytest.approx(0.01, rel=1e-3)

    def test_a_norm_below_the_bound_is_left_alone(self):
        free, bounded = training(), training(clip=1e6)
        reports_of(free, [batch()]), reports_of(bounded, [batch()])
        assert all(torch.equal(a, b) for a, b in zip(weights(free), weights(bounded), strict=True))


class TestWithoutObjects:
    """Batches without an object are batches like others."""

    @pytest.mark.parametrize("box_loss", ["smooth_l1", "giou"])
    @pytest.mark.parametrize("loss", LOSSES)
    def test_every_parameter_has_a_finite_gradient(self, loss, box_loss):
        """Else other processes would wait for ever. AP and AUC have nothing to rank: loss 0, and nothing moves."""
        trained = training(loss, box_loss, lr=0.01)
        before = weights(trained)
        report = reports_of(trained, [batch(num_objects=0)])[0]
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in trained.model.parameters())
        assert math.isfinite(float(report.parts["loss"]))
        same = all(torch.equal(a, b) for a, b in zip(before, weights(trained), strict=True))
        assert same == (loss in ("ap", "auc"))
        assert (float(report.parts["loss"]) == 0) == (loss in ("ap", "auc"))

    def test_training_goes_on_after_one(self):
        reports = reports_of(training(lr=0.01), [batch(), batch(0), batch()])
        values = [float(r.parts["loss"]) for r in reports]
        assert values[1] == 0
        assert 0 < values[2] < values[0]


class TestNonFinite:
    """What is not finite stops the training before it reaches the weights."""

    def stopped(self, trained, num_batches=3):
        """The message, the steps done, and whether the parameters are bit for bit those after the last good step."""
        done = []
        with pytest.raises(FloatingPointError) as caught:
            train(
                trained,
                [batch(first_id=70 + 10 * i) for i in range(num_batches)],
                [lambda _: done.append(weights(trained))],
            )
        untouched = all(torch.equal(a, b) for a, b in zip(done[-1], trained.model.parameters(), strict=True))
        return str(caught.value), len(done), untouched

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_loss_names_step_parts_and_images(self, value):
        trained = training(lr=0.01)
        trained.stages[0].criterion = Spoilt(trained.stages[0].criterion, 2, lambda total: total * value)
        message, steps, untouched = self.stopped(trained)
        assert message.startswith("step 2: the loss is not finite, ap=")
        assert ", box=" in message
        assert "image ids of the batch: 90, 91." in message
        assert "\n" not in message
        assert (steps, trained.step, untouched) == (2, 2, True)

    def test_an_output_of_the_network_names_step_and_images(self):
        trained = training(lr=0.01)

        def break_a_weight(module, inputs):
            if trained.step == 1:
                module.bias.data[0] = math.nan

        trained.model.heads.class_output.register_forward_pre_hook(break_a_weight)
        with pytest.raises(FloatingPointError, match=r"step 1: the network output is not finite; .*: 80, 81\."):
            train(trained, [batch(), batch(first_id=80)], [])

    @pytest.mark.parametrize("clip", [None, 1.0])
    def test_a_gradient_of_a_finite_loss(self, clip):
        trained = training(lr=0.01, clip=clip)
        trained.stages[0].criterion = Spoilt(trained.stages[0].criterion, 1, InfiniteGradient.apply)
        message, steps, untouched = self.stopped(trained)
        assert message.startswith("step 1: the gradient is not finite, ")
        assert "80, 81" in message
        assert (steps, untouched) == (1, True)

    def test_with_fp16_an_overflow_is_the_scalers_to_mend(self):
        """It skips the step and halves its factor; that is how it finds the right one."""
        trained = training(lr=0.01, precision="fp16")
        trained.stages[0].criterion = Spoilt(trained.stages[0].criterion, 0, InfiniteGradient.apply)
        before, scale = weights(trained), trained.scaler.get_scale()
        train(trained, [batch()], [])
        assert all(torch.equal(a, b) for a, b in zip(before, weights(trained), strict=True))
        assert trained.scaler.get_scale() == scale / 2


class TestPrecision:
    """Half types for the network, float32 for losses and weights."""

    @pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
    def test_the_network_runs_in_it_and_the_loss_in_float32(self, precision, dtype):
        trained = training(lr=0.01, precision=precision)
        seen = {}
        trained.model.heads.class_output.register_forward_hook(lambda m, i, output: seen.update(network=output.dtype))
        trained.stages[0].criterion.register_forward_pre_hook(
            lambda m, inputs: seen.update(
                loss=inputs[0].logits.dtype,
                boxes=inputs[0].pred_deltas.dtype,
                autocast=torch.is_autocast_enabled("cpu"),
            )
        )
        reports = reports_of(trained, [batch(), batch()])
        assert seen == {"network": dtype, "loss": torch.float32, "boxes": torch.float32, "autocast": False}
        assert all(math.isfinite(float(r.parts["loss"])) for r in reports)
        assert all(p.dtype == torch.float32 for p in trained.model.parameters())

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_its_gradients_are_near_the_full_ones_and_not_scaled(self, precision):
        full, half = training("focal", lr=0.0), training("focal", lr=0.0, precision=precision)
        norms = [float(reports_of(t, [batch()])[0].grad_norm) for t in (full, half)]
        assert norms[1] == pytest.approx(norms[0], rel=0.1)
        assert norms[1] != norms[0]

    def test_another_word_is_refused(self):
        with pytest.raises(UserError, match="precision=bf32: must be one of fp32, bf16, fp16"):
            training(precision="bf32")


class TestStopwatch:
    """Where the time goes."""

    def test_the_loss_has_its_own_share_backward_included(self):
        """Sleeping 0.1 s in the loss forward and 0.1 s in its backward shows there and nowhere else."""

        class Slow(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                time.sleep(0.1)
                return x.clone()

            @staticmethod
            def backward(ctx, gradient):
                time.sleep(0.1)
                return gradient

        plain, slow = training(), training()
        slow.stages[0].criterion = Spoilt(slow.stages[0].criterion, 0, Slow.apply)
        laps = [reports_of(t, [batch()])[0].stopwatch.totals() for t in (plain, slow)]
        assert laps[0].keys() == laps[1].keys() == {"data", "forward", "matching", "loss", "backward"}
        assert laps[1]["loss"] >= 0.2
        assert all(seconds > 0 for seconds in laps[0].values())

    def test_few_laps_are_held_where_nobody_reads_them(self, monkeypatch):
        """Processes but the first write no log: a GPU's events of all their steps would fill the memory. Nothing is
        lost: 5000 laps of a clock that ticks at every look are 5000 ticks."""
        ticks = count()
        monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(ticks)))
        watch = timing.Stopwatch(torch.device("cpu"))
        for _ in range(2500):
            watch.lap("forward")
            watch.lap("backward")
            assert len(watch.laps) <= timing.MOST
        assert watch.totals() == {"forward": 2500.0, "backward": 2500.0}
        assert watch.totals() == {}

    def test_hooks_are_counted_nowhere_and_reading_starts_anew(self):
        totals = []

        def hook(report):
            totals.append(report.stopwatch.totals())
            time.sleep(0.3)

        begun = time.perf_counter()
        train(training(), [batch()] * 2, [hook])
        spent = time.perf_counter() - begun
        assert len(totals) == 2
        assert sum(sum(lap.values()) for lap in totals) <= spent - 0.3
