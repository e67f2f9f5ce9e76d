"""A step in micro-batches: the joined batch's loss and gradients, its draws, less memory, the same complaints."""

import copy
import json
import math
import time
import weakref
from functools import lru_cache

import pytest
import tiny
import torch
from omegaconf import DictConfig, OmegaConf
from spoilt import InfiniteGradient, Spoilt
from test_train_distributed import one_of_two
from torch import nn

from rankdet import train as command
from rankdet.build import Detector, build_detector
from rankdet.config import compose, config_hash, identity, option_of, run_directory
from rankdet.data.records import Batch, Target
from rankdet.errors import UserError
from rankdet.training.gradients import statistics_kept
from rankdet.training.loop import Training, train
from rankdet.training.schedule import StepSchedule

CLASSES = 3
WITH_BOX_LOSS = ("alrp", "parameterized_ap")
OBJECTS = (3, 0, 1, 0, 2)  # of the five images; with micro-batches of one some have none


def batch(objects=OBJECTS, height=48, width=64, first_id=70) -> Batch:
    """An image of random pixels a number of objects, in turn."""
    generator = torch.Generator().manual_seed(first_id)
    images = torch.randint(0, 256, (len(objects), 3, height, width), generator=generator, dtype=torch.uint8)
    boxes = torch.tensor([[2.0, 2, 22, 20], [30, 10, 60, 44], [8, 24, 26, 44]])
    labels = torch.tensor([0, 1, 2])
    none = torch.zeros(3, dtype=torch.bool)
    size = (height, width)
    return Batch(images, [Target(boxes[:n], labels[:n], none[:n], first_id + i, size) for i, n in enumerate(objects)])


@lru_cache
def plain() -> DictConfig:
    return compose([])


def config(loss="ap", norm="gn", sampler="none") -> DictConfig:
    """The mini config with another loss, norm of the backbone or sampler."""
    cfg = copy.deepcopy(plain())
    OmegaConf.set_struct(cfg, False)
    box_loss = "none" if loss in WITH_BOX_LOSS else "smooth_l1"
    for group, option in (("loss", loss), ("box_loss", box_loss), ("sampler", sampler)):
        cfg[group] = option_of(group, option)
    cfg.model.backbone.norm = norm
    return cfg


def training(cfg: DictConfig, micro_batch=0, lr=0.0, precision="fp32") -> Training:
    """Under plain gradient descent at a constant rate, the same weights each time."""
    torch.manual_seed(0)
    detector: Detector = build_detector(cfg, CLASSES)
    detector.last.criterion.set_epoch_length(10)
    schedule = StepSchedule(lr, 10, (), 0.1, 0, 1.0, 10)
    optimizer = torch.optim.SGD(detector.model.parameters(), lr=123.0)
    device = torch.device("cpu")
    stages = detector.stages
    return Training(detector.model, stages, optimizer, schedule, device, precision, micro_batch=micro_batch)


def gradient(trained: Training) -> torch.Tensor:
    return torch.cat([p.grad.double().flatten() for p in trained.model.parameters() if p.grad is not None])


def steps(trained: Training, batches) -> list[tuple[dict[str, float], torch.Tensor]]:
    """The parts and the whole gradient of each step, from a fixed seed on."""
    found = []
    torch.manual_seed(1)
    train(trained, batches, [lambda report: found.append((as_numbers(report.parts), gradient(trained)))])
    return found


def as_numbers(parts):
    return {name: float(value) for name, value in parts.items()}


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative, of whole vectors."""
    assert float(theirs.norm()) > 0
    return float((ours - theirs).norm() / theirs.norm())


class TestTheJoinedBatch:
    """What micro-batches may not change."""

    @pytest.mark.parametrize("loss", ["ap", "alrp", "ce_ohem", "parameterized_ap"])
    @pytest.mark.parametrize(
        ("norm", "objects", "sizes"),
        [
            ("gn", OBJECTS, (2,)),
            pytest.param("gn", OBJECTS, (1, 3), marks=pytest.mark.full),
            pytest.param("frozen_bn", OBJECTS[:4], (3,), marks=pytest.mark.full),
        ],
    )
    def test_its_loss_and_gradients(self, loss, norm, objects, sizes):
        """Of five images and of four, but for float32's rounding. Scores lie apart as after some training: at first
        they nearly tie, and which of two comes first in a ranking is itself a matter of rounding. Parameterized AP loss
        has a form without knots, at which its slopes would jump likewise."""
        cfg = config(loss, norm)
        if loss == "parameterized_ap":
            cfg.loss.form = "sigmoid"

        def step(micro_batch):
            trained = training(cfg, micro_batch)
            trained.model.heads.class_output.weight.data *= 30
            (found,) = steps(trained, [batch(objects)])
            return found

        parts, whole = step(0)
        for micro_batch in sizes:
            ours, found = step(micro_batch)
            assert ours == pytest.approx(parts, rel=1e-5)
            assert difference(found, whole) < 2e-5

    def test_as_much_or_more_at_a_time_is_one_pass(self):
        """Bit for bit, and the network is called once."""
        ((parts, whole),) = steps(training(config()), [batch()])
        for micro_batch in (5, 6):
            trained = training(config(), micro_batch)
            calls = []
            trained.model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
            ((ours, found),) = steps(trained, [batch()])
            assert (ours, len(calls)) == (parts, 1)
            assert torch.equal(found, whole)

    def test_without_objects(self):
        """Every weight still gets a gradient, for other processes wait for it; of AP-loss it is 0."""
        trained = training(config(), 2)
        ((parts, found),) = steps(trained, [batch((0, 0, 0))])
        assert parts["loss"] == 0
        assert not found.any()
        assert all(p.grad is not None for p in trained.model.parameters())

    @pytest.mark.full
    def test_a_training_of_steps(self):
        """Rounding grows, and no further: after five steps the weights' ways are the same to a thousandth."""
        ways = []
        for micro_batch in (0, 2):
            trained = training(config("focal"), micro_batch, lr=0.1)
            before = flat(trained.model)
            steps(trained, [batch(first_id=70 + 10 * i) for i in range(5)])
            ways.append(flat(trained.model) - before)
        assert difference(ways[1], ways[0]) < 1e-3

    def test_shares_are_ranked_together(self):
        """Else the loss of five images one by one would be the mean of theirs."""
        cfg = config()
        ((joined, _),) = steps(training(cfg, 1), [batch()])
        alone = []
        for index in range(5):
            whole = batch()
            one = Batch(whole.images[index : index + 1], whole.targets[index : index + 1])
            alone.append(steps(training(cfg), [one])[0][0]["ap"])
        assert abs(joined["ap"] - sum(alone) / 5) > 0.01


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


class TestBatchNorm:
    """Where its statistics are trained."""

    def test_they_are_those_of_each_micro_batch_taken_in_once(self):
        """As if the micro-batches had been shown one after the other, bit for bit."""
        trained = training(config(norm="bn"), 2)
        shown = copy.deepcopy(trained.model).train()
        steps(trained, [batch()])
        with torch.no_grad():
            for first in (0, 2, 4):
                shown(batch().images[first : first + 2])
        ours, theirs = dict(trained.model.named_buffers()), dict(shown.named_buffers())
        counters = [name for name in ours if name.endswith("num_batches_tracked")]
        assert len(counters) > 15
        assert all(int(ours[name]) == 3 for name in counters)
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())

    def test_both_passes_agree(self):
        """The outputs that the loss ranks are those whose graph the gradient goes back through."""
        trained = training(config(norm="bn"), 2)
        seen = []
        trained.model.register_forward_hook(lambda _m, _i, output: seen.append((output.logits, output.deltas)))
        steps(trained, [batch()])
        assert len(seen) == 6
        for first, second in zip(seen[:3], seen[3:], strict=True):
            assert [x.requires_grad for x in (*first, *second)] == [False, False, True, True]
            assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_layers_that_track_nothing_stay_so(self):
        model = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.BatchNorm2d(2), nn.BatchNorm2d(2).eval())
        with statistics_kept(model):
            assert [layer.track_running_stats for layer in model] == [False, False, True]
        assert [layer.track_running_stats for layer in model] == [False, True, True]


class TestDraws:
    """Random numbers on the way."""

    def test_a_sampler_draws_as_without_micro_batches_and_anew_in_each_step(self):
        cfg = config("ap", sampler="random")
        whole, ours = (steps(training(cfg, micro_batch), [batch()] * 2) for micro_batch in (0, 2))
        for (parts, expected), (mine, found) in zip(whole, ours, strict=True):
            assert mine == pytest.approx(parts, rel=1e-5)
            assert difference(found, expected) < 2e-5
        assert difference(whole[1][1], whole[0][1]) > 1e-3  # nothing but the draw: the rate is 0

    def test_both_passes_draw_the_same_and_steps_do_not(self):
        """Dropout before the network: the pixels that each pass sees."""
        trained = training(config(), 2)
        seen = []

        class Dropped(nn.Module):
            def __init__(self, model):
                super().__init__()
                self.model = model

            def forward(self, images):
                images = nn.functional.dropout(images.float())
                seen.append(images)
                return self.model(images)

        trained.model = Dropped(trained.model)
        steps(trained, [batch()] * 2)
        assert len(seen) == 12
        for step in (seen[:6], seen[6:]):
            assert all(torch.equal(a, b) for a, b in zip(step[:3], step[3:], strict=True))
        assert not torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0], seen[6])


class Saved:
    """Bytes of activations that autograd keeps: now, and the most at once."""

    def __init__(self, model: nn.Module) -> None:
        self.own = {p.data_ptr() for p in (*model.parameters(), *model.buffers())}
        self.now = self.most = 0

    def pack(self, tensor: torch.Tensor):
        if tensor.data_ptr() in self.own:
            return tensor
        size = tensor.numel() * tensor.element_size()
        self.now += size
        self.most = max(self.most, self.now)
        kept = [tensor.detach()]
        holder = _Holder(kept)
        weakref.finalize(holder, self.drop, size)
        return holder

    def drop(self, size: int) -> None:
        self.now -= size

    def unpack(self, held) -> torch.Tensor:
        return held.kept[0] if isinstance(held, _Holder) else held


class _Holder:
    def __init__(self, kept) -> None:
        self.kept = kept


def test_memory_is_a_micro_batch_s():
    """Of four images one at a time autograd keeps a quarter, and what the loss needs; it all is given back."""
    most = {}
    for micro_batch in (0, 1):
        trained = training(config(), micro_batch)
        saved = Saved(trained.model)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, saved.unpack):
            steps(trained, [batch((3, 1, 0, 2), 96, 128)])
        most[micro_batch] = saved.most
        assert saved.now == 0
    assert most[0] > 10_000_000
    assert most[1] < 0.30 * most[0]


class TestHalfPrecision:
    """Autocast and the scaler."""

    def test_a_scaled_step(self):
        """fp16 gradients are scaled by 65 536 on their way; none overflows, and the step is that of one pass."""
        trained = training(config("focal"), 2, precision="fp16")
        ((parts, found),) = steps(trained, [batch()])
        assert math.isfinite(parts["loss"])
        ((_, joined),) = steps(training(config("focal"), precision="fp16"), [batch()])
        assert difference(found, joined) < 0.02
        assert trained.scaler.get_scale() == 65536

    def test_an_overflow_is_the_scaler_s_to_mend(self):
        trained = training(config(), 2, lr=0.1, precision="fp16")
        spoil(trained, InfiniteGradient.apply)
        before = flat(trained.model)
        train(trained, [batch()], [])
        assert torch.equal(flat(trained.model), before)
        assert trained.scaler.get_scale() == 32768


def spoil(trained: Training, function) -> None:
    """Puts a function on the total of the only stage's criterion."""
    (stage,) = trained.stages
    stage.criterion = Spoilt(stage.criterion, 0, function)


class TestNonFinite:
    """As without micro-batches: step, parts and all images of the batch, and the weights untouched."""

    @pytest.mark.parametrize(
        ("function", "what"),
        [
            (lambda total: total * math.nan, r"loss is not finite, ap="),
            (InfiniteGradient.apply, r"gradient is not finite, l"),
        ],
    )
    def test_loss_and_gradient(self, function, what):
        trained = training(config(), 2, lr=0.1)
        trained.step = 3
        before = flat(trained.model)
        spoil(trained, function)
        with pytest.raises(FloatingPointError, match=rf"^step 3: the {what}.*batch: 70, 71, 72, 73, 74\. ") as caught:
            train(trained, [batch()], [])
        assert "\n" not in str(caught.value)
        assert torch.equal(flat(trained.model), before)

    def test_an_output_of_the_last_share(self):
        trained = training(config(), 2)
        outputs = []

        def break_the_third(_module, _inputs, output):
            outputs.append(output)
            if len(outputs) == 3:
                output.logits.fill_(math.nan)

        trained.model.register_forward_hook(break_the_third)
        with pytest.raises(FloatingPointError, match=r"step 0: the network output is not finite; .*: 70, .* 74\."):
            train(trained, [batch()], [])
        assert len(outputs) == 3


def test_the_laps_of_a_step_add_up_to_it():
    """Sleeping in the first pass counts as forward, in the second as backward."""
    trained = training(config(), 2)

    def sleep(_module, _inputs):
        time.sleep(0.05 if torch.is_grad_enabled() else 0.1)

    trained.model.register_forward_pre_hook(sleep)
    totals = []
    begun = time.perf_counter()
    train(trained, [batch()] * 2, [lambda report: totals.append(report.stopwatch.totals())])
    spent = time.perf_counter() - begun
    assert [laps.keys() for laps in totals] == [{"data", "forward", "matching", "loss", "backward"}] * 2
    assert all(laps["forward"] >= 0.3 and laps["backward"] >= 0.15 for laps in totals)
    assert 0.9 * spent < sum(sum(laps.values()) for laps in totals) <= spent


class TestTheCommand:
    """python -m rankdet.train micro_batch=2."""

    @pytest.mark.full
    def test_a_run(self, tmp_path):
        """Its log is a run's, with shares of the time that add up; broken off, it ends with the same bits."""
        short = ["schedule.length=16", "schedule.milestones=[]", "splits.monitor=null", "micro_batch=2"]
        arguments = tiny.overrides(tmp_path, *short)
        run = run_directory(compose(arguments))
        assert tiny.call(command.main, arguments).code == 0
        weights = torch.load(run / "weights.pt")["model"]
        entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert [entry["step"] for entry in entries if "train/loss" in entry] == [2, 4]
        shares = {name: value for name, value in entries[0].items() if name.startswith("speed/share_")}
        assert len(shares) == 5
        assert sum(shares.values()) == pytest.approx(1)
        for path in (run / "record.json", run / "checkpoints" / "step-00000004.pt"):
            path.unlink()
        done = tiny.call(command.main, arguments)
        assert "continuing at step 2" in done.err
        again = torch.load(run / "weights.pt")["model"]
        assert all(torch.equal(value, again[name]) for name, value in weights.items())

    def test_its_identity(self):
        """The key is younger than the records: without it, and at 0, a run is the one it was."""
        assert "micro_batch" not in identity(plain())
        assert config_hash(compose(["micro_batch=2"])) != config_hash(plain())

    @pytest.mark.parametrize("value", ["-1", "1.5", "null"])
    def test_a_number_that_is_none(self, value):
        with pytest.raises(UserError, match=rf"micro_batch={value if value != 'null' else None}: must be a whole"):
            compose([f"micro_batch={value}"])


@pytest.mark.full
def test_two_processes_in_micro_batches_end_with_the_weights_of_two_without(tmp_path):
    """Three steps by gloo, of 4 images each: two processes with one image at a time, exchanging gradients once."""
    short = ["schedule.length=12", "schedule.milestones=[]", "splits.monitor=null", "optimizer=sgd", "gpus=2"]
    fast = ["schedule.lr=0.5", "schedule.warmup_steps=0", "loss=ce_ohem", "model.backbone.norm=gn"]
    weights = []
    for micro_batch in (0, 1):
        arguments = tiny.overrides(tmp_path, *short, *fast, f"micro_batch={micro_batch}")
        tiny.by_two(one_of_two, arguments)
        weights.append(torch.load(run_directory(compose(arguments)) / "weights.pt")["model"])
    torch.manual_seed(0)
    start = build_detector(config("ce_ohem"), 6).model.state_dict()
    names = [name for name, value in start.items() if value.dtype == torch.float32]
    whole, parts = (torch.cat([(w[name] - start[name]).double().flatten() for name in names]) for w in weights)
    assert float(whole.norm()) > 0.01
    assert difference(parts, whole) < 1e-3
