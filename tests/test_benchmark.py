"""The benchmark of a training step: equal work on both sides, its arithmetic, its memory, the script on tiny images."""

import csv
import io
import json
import re
from contextlib import nullcontext
from itertools import islice

import pytest
import torch
from torch import nn

from rankdet.benchmark.contestants import (
    LOSSES,
    NONE,
    OUR_DEFAULT,
    OURS,
    THEIR_DEFAULT,
    THEIRS,
    PlainSum,
    our_detector,
    their_detector,
)
from rankdet.benchmark.goals import duels
from rankdet.benchmark.inputs import VOC_CLASSES, Setup, batches, make_setup
from rankdet.benchmark.memory import resident
from rankdet.benchmark.plots import save_plots
from rankdet.benchmark.report import csv_text, markdown
from rankdet.benchmark.steps import make_step
from rankdet.benchmark.sweeps import (
    BY_LOSS,
    BY_OPTION,
    LAPS,
    RACE,
    Measurement,
    Sweep,
    compiler_works,
    measure,
    num_stops,
    plan,
)
from rankdet.benchmark.through_training import course_csv, read_course, save_course
from rankdet.errors import UserError
from rankdet.losses.inputs import LossInputs
from rankdet.profiling.report import about, machine
from rankdet.profiling.timing import Budget
from rankdet.training.timing import Stopwatch

CPU = torch.device("cpu")
MIB = 2**20
WEIGHTS = 19_832_976  # trained ones of the network with ResNet-18, 20 classes and 6 anchors a cell


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """Ten drawn images, and VOC's number of classes; a smaller network, for the sake of time."""
    folder = tmp_path_factory.mktemp("drawn")
    sizes = [f"data.source.num_{split}={count}" for split, count in (("train", 10), ("val", 2), ("test", 2))]
    return make_setup(("data=shapes", f"data.root={folder}/shapes", *sizes), "resnet18")


def as_theirs(state):
    """Our weights under torchvision's names."""
    renamed = {}
    for name, value in state.items():
        for ours, theirs in (
            ("backbone.", "backbone.body."),
            ("fpn.pyramid.", "backbone.fpn."),
            ("heads.class_output.", "head.classification_head.cls_logits."),
            ("heads.box_output.", "head.regression_head.bbox_reg."),
        ):
            if name.startswith(ours):
                renamed[theirs + name.removeprefix(ours)] = value
        for ours, theirs in (("heads.class_tower.", "classification"), ("heads.box_tower.", "regression")):
            if name.startswith(ours):
                layer, kind = name.removeprefix(ours).split(".")
                renamed[f"head.{theirs}_head.conv.{int(layer) // 2}.0.{kind}"] = value
    return renamed


def test_both_sides_are_one_function_and_train_the_same_weights(setup):
    """With our weights torchvision's network gives our outputs."""
    ours = our_detector(OUR_DEFAULT, setup).model.train()
    theirs = their_detector(setup, Stopwatch(CPU)).train()
    theirs.load_state_dict(as_theirs(ours.state_dict()))  # strict: nothing missing, nothing left
    images = next(batches(setup, 64, 2)).images
    with torch.no_grad():
        output = ours(images)
        prepared = theirs.transform(list(images / 255))[0]
        head = theirs.head(list(theirs.backbone(prepared.tensors).values()))
    torch.testing.assert_close(head["cls_logits"], output.logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(head["bbox_regression"], output.deltas, rtol=1e-3, atol=1e-4)
    trained = [sorted(p.numel() for p in model.parameters() if p.requires_grad) for model in (ours, theirs)]
    assert trained[0] == trained[1]
    assert sum(trained[0]) == WEIGHTS
    anchors = theirs.anchor_generator(prepared, list(theirs.backbone(prepared.tensors).values()))
    assert len(anchors[0]) == len(output.anchors) == 6 * (64 + 16 + 4 + 1 + 1)


def test_no_loss_has_a_gradient_of_one():
    """2 scores of 1.5 and 2 positive deltas' worth of 4 x 0.5: 3 + 4 = 7."""
    logits, deltas = torch.full((1, 2, 1), 1.5, requires_grad=True), torch.full((2, 4), 0.5, requires_grad=True)
    boxes = torch.zeros(2, 4)
    labels, positives = torch.ones(1, 2, 1, dtype=torch.int8), torch.arange(2)
    total, parts = PlainSum()(LossInputs(logits, labels, positives, deltas, boxes, boxes, boxes))
    total.backward()
    assert (float(total.detach()), parts) == (7.0, {})
    assert logits.grad.eq(1).all()
    assert deltas.grad.eq(1).all()


def test_every_stream_has_the_same_batches(setup):
    one, other = ([batch for batch in islice(batches(setup, 64, 3), 2)] for _ in range(2))
    assert one[0].images.shape == (3, 3, 64, 64)
    assert not one[0].images.equal(one[1].images)
    for a, b in zip(one, other, strict=True):
        assert a.images.equal(b.images)
        assert all(x.boxes.equal(y.boxes) for x, y in zip(a.targets, b.targets, strict=True))


@pytest.mark.parametrize("contestant", [OUR_DEFAULT._replace(loss=NONE), THEIR_DEFAULT])
def test_a_step_trains_but_moves_no_weight(setup, contestant):
    """All weights that are trained get a gradient and momentum, and stay, so that repeats are alike."""
    step = make_step(contestant, setup, CPU)
    before = [p.detach().clone() for p in step.model.parameters()]
    stream = batches(setup, 64, 1)
    for _ in range(2):
        step(stream)
    trained = [p for p in step.model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert any(p.grad.any() for p in trained)
    assert len(step.optimizer.state) == len(trained) > 40
    assert all(torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))
    own = {"data", "forward", "matching", "loss", "backward"}
    assert [set(laps) for laps in step.laps] == 2 * [own if contestant.side == OURS else own - {"matching"}]
    assert all(seconds > 0 for laps in step.laps for seconds in laps.values())


def test_what_stays_between_steps():
    """20 weights, as many gradients and momenta, and 5 constants, at 4 bytes; another 5 weights are not trained."""
    model = nn.Linear(4, 5)
    model.register_buffer("constant", torch.zeros(5))
    model.bias.requires_grad_(False)

    class Trained:
        pass

    step = Trained()
    step.model, step.optimizer = model, torch.optim.SGD([model.weight], lr=0.1, momentum=0.9)
    model(torch.ones(1, 4)).sum().backward()
    assert resident(step.model, step.optimizer) == 4 * (20 + 5 + 20 + 5)
    step.optimizer.step()
    assert resident(step.model, step.optimizer) == 4 * (20 + 5 + 20 + 5 + 20)


def test_the_plan():
    sweeps = plan(512, 256, (1, 2, 4, 8), Budget(60.0, 3), compiles=True)
    assert [(sweep.name, sweep.size, sweep.images) for sweep in sweeps] == [
        (RACE, 512, (1, 2, 4, 8)), (BY_LOSS, 256, (1, 2, 4, 8)), (BY_OPTION, 256, (2,))
    ]  # fmt: skip
    assert [sweep.budget.seconds for sweep in sweeps] == [60.0, 60.0, 10.0]
    race, losses, options = (sweep.contestants for sweep in sweeps)
    assert [str(each) for each in race] == ["rankdet", "rankdet, channels first", "torchvision"]
    assert tuple(each.loss for each in losses) == LOSSES
    assert [str(each) for each in options] == [
        "rankdet", "rankdet, channels first", "rankdet, torch.compile", "rankdet, bf16", "rankdet, checkpointing",
        "rankdet, micro-batches of 1", "torchvision", "torchvision, channels last", "torchvision, bf16",
    ]  # fmt: skip
    # 4 + 4 + 1 sizes; 3 + 4 (focal is there) + 6 contestants
    assert num_stops(sweeps) == 9 + 13
    least = plan(64, 64, (1,), Budget(0.0, 1), compiles=False)[2].contestants
    assert not any(each.compiled or each.micro_batch for each in least)
    assert len(least) == 7


def test_without_a_compiler_its_option_is_left_out(monkeypatch):
    def fails(_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", fails)
    assert not compiler_works(CPU)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    assert compiler_works(CPU)


def row(sweep, contestant, images, seconds, laps, peak=None, size=64):
    return Measurement(sweep, contestant, size, images, (seconds,) * 3, laps, peak)


def laps_of(*seconds):
    return dict(zip(LAPS, seconds, strict=True))


THEIR_LAPS = {"data": 0.5, "forward": 1.0, "loss": 0.5, "backward": 2.0}
ROWS = [
    row(RACE, OUR_DEFAULT, 1, 2.0, laps_of(0.1, 0.5, 0.1, 0.3, 1.0), 300 * MIB),
    row(RACE, THEIR_DEFAULT, 1, 4.0, THEIR_LAPS, 600 * MIB),
    row(RACE, OUR_DEFAULT, 2, 5.0, laps_of(0.1, 0.5, 0.1, 0.3, 1.0)),
    row(RACE, THEIR_DEFAULT, 2, 4.0, THEIR_LAPS, 800 * MIB),
    row(BY_LOSS, OUR_DEFAULT._replace(loss=NONE), 1, 1.0, laps_of(0.1, 0.3, 0.1, 0.0, 0.5), 200 * MIB),
    row(BY_LOSS, OUR_DEFAULT._replace(loss="ap"), 1, 1.5, laps_of(0.1, 0.3, 0.1, 0.5, 0.5), 275 * MIB),
    row(BY_OPTION, OUR_DEFAULT, 2, 1.0, laps_of(0.1, 0.3, 0.1, 0.0, 0.5), 400 * MIB),
    row(BY_OPTION, OUR_DEFAULT._replace(checkpoint=True), 2, 1.6, laps_of(0.1, 0.3, 0.1, 0.6, 0.5), 100 * MIB),
    row(BY_OPTION, THEIR_DEFAULT, 2, 3.0, THEIR_LAPS),
]


def test_speeds_shares_and_verdicts_by_hand():
    """1 image in 2 s against 4 s: 0.5 images/s, twice as fast, half the memory. 2 images in 5 s against 4 s: slower."""
    assert ROWS[0].images_per_second == 0.5
    assert [ROWS[0].share(lap) for lap in LAPS] == pytest.approx([0.05, 0.25, 0.05, 0.15, 0.5])
    assert [ROWS[1].share(lap) for lap in LAPS] == [0.125, 0.25, None, 0.125, 0.5]
    first, second = duels(ROWS)
    assert (first.speed, first.memory, first.verdict) == (2.0, 0.5, "met")
    assert (second.speed, second.memory, second.verdict) == (0.8, None, "not met")
    assert duels([row(RACE, side, 1, 4.0, {}) for side in (OUR_DEFAULT, THEIR_DEFAULT)])[0].verdict == "met"


def test_turns_are_compared_one_by_one():
    """Ours 2, 4, 2, 9 s against 1, 4.4, 1.5 s: 0.5, 1.1 and 0.75 times as fast; the fourth has none to compare with."""
    ours = row(RACE, OUR_DEFAULT, 1, 0.0, {})._replace(turns=(2.0, 4.0, 2.0, 9.0))
    first = OUR_DEFAULT._replace(channels_last=False)
    theirs = row(RACE, THEIR_DEFAULT, 1, 0.0, {})._replace(turns=(1.0, 4.4, 1.5))
    found, other = duels([ours, row(RACE, first, 1, 1.2, {}), theirs])
    assert found.speeds == pytest.approx([0.5, 0.75, 1.1])
    assert (found.speed, found.verdict) == (0.75, "no difference seen")
    assert other.ours.contestant == first
    assert (other.speed, other.verdict) == (pytest.approx(1.25), "met")
    assert (found.ours.seconds, found.ours.repeats) == (3.0, 4)


def cells(text, start):
    """The cells of the first table line that starts with these."""
    for line in text.splitlines():
        found = [cell.strip() for cell in line.strip("|").split("|")]
        if found[: len(start)] == start:
            return found[len(start) :]
    raise AssertionError(f"no line starts with {start}")


def test_the_report_shows_them():
    """AP's loss: 500 ms of 1.5 s, a third, and 75 MiB more than none; checkpointing: 0.62 times the speed."""
    where = about(CPU)
    text = markdown(where, "two images", Setup(), ROWS, ["A note."])
    last = "channels last"
    assert cells(text, [last, "1"]) == ["0.50", "0.25", "2.00", "2.00 to 2.00", "met", "300", "600", "0.50", "3, 3"]
    assert cells(text, [last, "2"]) == ["0.40", "0.50", "0.80", "0.80 to 0.80", "not met", "-", "800", "-", "3, 3"]
    assert cells(text, [OURS, "1"]) == ["2", "5.0", "25.0", "5.0", "15.0", "50.0"]
    assert cells(text, [THEIRS, "1"]) == ["4", "12.5", "25.0", "-", "12.5", "50.0"]
    assert cells(text, ["ap", "1"]) == ["500.0", "1.5", "33.3", "275", "75.0", "3"]
    assert cells(text, ["rankdet, checkpointing"]) == ["1.25", "0.62", "100", "0.25", "3"]
    assert cells(text, [THEIRS, "0.67"]) == ["1.00", "-", "-", "3"]
    assert "two images" in text
    assert "\nA note.\n" in text
    assert torch.__version__ in text
    lines = list(csv.DictReader(io.StringIO(csv_text(ROWS))))
    assert len(lines) == len(ROWS)
    assert (lines[1]["side"], lines[1]["seconds"], lines[1]["matching_seconds"]) == (THEIRS, "4.0", "")
    assert lines[1]["turns_seconds"] == "4.0;4.0;4.0"
    assert (lines[5]["loss"], lines[5]["loss_seconds"]) == ("ap", "0.5")
    assert (lines[2]["peak_bytes"], lines[7]["checkpoint"]) == ("", "True")


def test_the_plots(tmp_path):
    paths = save_plots(ROWS, machine(about(CPU)), tmp_path)
    assert sorted(path.name for path in paths) == [
        "memory_against_batch.png", "race.png", "shares.png", "time_against_batch.png"
    ]  # fmt: skip
    assert all(path.stat().st_size > 5000 for path in paths)
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_what_is_measured(setup, monkeypatch):
    """A step of each side on one image, whose laps add up to it, and the peak at its size."""
    monkeypatch.setattr("rankdet.benchmark.sweeps.gauge_process", nullcontext)
    monkeypatch.setattr("rankdet.benchmark.sweeps.peaks", lambda contestant, _, places, device: [len(contestant.side)])
    sweeps = [Sweep(RACE, 64, (1,), (OUR_DEFAULT, THEIR_DEFAULT), Budget(0.0, 1))]
    said = []
    rows = measure(sweeps, setup, CPU, said.append)
    assert said == ["time: race, 1 images of 64 x 64", "memory: rankdet, focal", "memory: torchvision, focal"]
    assert num_stops(sweeps) == 3
    assert [(each.contestant, each.peak_bytes) for each in rows] == [(OUR_DEFAULT, 7), (THEIR_DEFAULT, 11)]
    for each in rows:
        assert (each.images, each.size, each.repeats) == (1, 64, 1)
        assert 0.8 * each.seconds < sum(each.laps.values()) <= each.seconds


@pytest.fixture
def finished(tmp_path):
    """A run of 4 images a step that logged twice: 8 images/s and a quarter for the loss, then 16 and an eighth."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("batch_size: 4\nloss: {_target_: rankdet.losses.ap.APLoss}\n")
    entries = [(50, 8.0, 0.25), (100, 16.0, 0.125)]
    lines = [{"step": s, "speed/images_per_s": v, "speed/share_loss": share} for s, v, share in entries]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"step": 100, "val/AP": 0.5}]))
    return run


def test_time_through_training(finished, tmp_path):
    """4 images at 8 a second: a step of 0.5 s, its loss 0.125 s; then 0.25 and 1/32."""
    course = read_course(finished)
    assert (course.loss, course.batch_size) == ("ap", 4)
    assert course.entries == [(50, 0.125, 0.5), (100, 0.03125, 0.25)]
    assert course_csv(course.entries) == "step,loss_seconds,step_seconds\n50,0.125,0.5\n100,0.03125,0.25\n"
    save_course(course, tmp_path / "course.png")
    assert (tmp_path / "course.png").stat().st_size > 5000


def test_a_run_that_tells_nothing(finished):
    (finished / "log.jsonl").write_text('{"step": 1, "val/AP": 0.5}\n')
    with pytest.raises(UserError, match="tells no step's time"):
        read_course(finished)
    (finished / "log.jsonl").write_text('{"step": 1\n')
    with pytest.raises(UserError, match="line 1 is not JSON"):
        read_course(finished)
    (finished / "log.jsonl").unlink()
    with pytest.raises(UserError, match="no such file"):
        read_course(finished)


def test_data_with_few_classes_are_trained_for_as_many_as_voc_has(setup):
    assert setup.num_classes == VOC_CLASSES == 20


@pytest.fixture
def main(front_end):
    """The script's."""
    return front_end("benchmark")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--threads", "0"], "--threads 0"),
        (["--size", "-1"], "--size -1"),
        (["--small-size", "0"], "--small-size 0"),
        (["--images", "2", "0"], "--images 0"),
        (["--data", "nowhere"], "DATA=nowhere"),
        (["--run", "nowhere"], "nowhere/config.yaml"),
        pytest.param(
            ["--device", "cuda"],
            "--device cuda",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU"),
        ),
    ],
)
def test_a_mistake_is_one_line(main, arguments, named, tmp_path, capsys):
    assert main([*arguments, "--quick", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {named}")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.full
def test_the_script_measures_prints_and_writes(main, finished, tmp_path, capsys, monkeypatch):
    """On images of 96 pixels: no layer of stride 2 sees a map of one cell, for which the weight gradient in bf16 is in
    part memory that nobody wrote, by torch's library for some processors."""
    monkeypatch.chdir(tmp_path)  # the shapes are drawn below it
    assert (
        main(
            [
                "--quick",
                "--size",
                "96",
                "--small-size",
                "96",
                "--images",
                "1",
                "--run",
                str(finished),
                "--output",
                "out",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    page = (tmp_path / "out" / "benchmark.md").read_text()
    assert page in printed
    assert sorted(re.findall(r"\]\(([^)]+)\)", page)) == [
        "memory_against_batch.png", "race.png", "shares.png", "time_against_batch.png",
    ]  # fmt: skip
    told = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert told["about"]["device"] == "cpu"
    with (tmp_path / "out" / "benchmark.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 + 5 + 7
    assert all(float(each["seconds"]) > 0 for each in rows)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "benchmark.csv", "benchmark.json", "benchmark.md", "memory_against_batch.png", "race.png", "shares.png",
        "through_training.csv", "through_training.png", "time_against_batch.png",
    ]  # fmt: skip
    for each in rows:
        laps = sum(float(each[f"{lap}_seconds"] or 0) for lap in LAPS)
        assert 0.8 * float(each["seconds"]) < laps <= float(each["seconds"])
        assert not each["peak_bytes"] or 8 * WEIGHTS < int(each["peak_bytes"]) < 24 * WEIGHTS
    by_loss = {each["loss"]: each["peak_bytes"] for each in rows if each["sweep"] == BY_LOSS}
    assert by_loss.keys() == set(LOSSES)
    plain, checkpointed = (
        next(each["peak_bytes"] for each in rows if each["sweep"] == BY_OPTION and each["checkpoint"] == flag)
        for flag in ("False", "True")
    )
    assert not plain or int(checkpointed) < 1.05 * int(plain)
