"""The benchmark of the losses: its twins, its clock, its memory gauge, its verdicts, and the script on tiny sizes."""

import csv
import inspect
import json
import pkgutil
import re
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rankdet.losses
from rankdet.losses.ap import ap_loss
from rankdet.profiling import contestants
from rankdet.profiling.contestants import AP, LOOP, MATRIX, NONE, YARDSTICK, losses
from rankdet.profiling.goals import MEMORY, TIME, Goal, Outcome, goals, outcome, slopes
from rankdet.profiling.memory import gauge_process, peak_bytes
from rankdet.profiling.problems import Size, make_problem
from rankdet.profiling.sweeps import Measurement, full_sweeps, peaks_at, quick_sweeps
from rankdet.profiling.timing import Budget, interleaved, seconds
from rankdet.profiling.twins import ap_loss_by_loop, ap_loss_by_matrix

CPU = torch.device("cpu")
MIB = 2**20


def value_and_gradient(function, scores, labels, *arguments):
    leaf = scores.clone().requires_grad_()
    value = function(leaf, labels, *arguments)
    value.backward()
    return value.detach(), leaf.grad


LEVELS = st.one_of(st.integers(-8, 8).map(lambda i: i / 4), st.floats(-3, 3, width=32))


@settings(max_examples=60, deadline=None)
@given(
    cases=st.lists(st.tuples(LEVELS, st.sampled_from([1, 0, 0, -1])), max_size=20),
    delta=st.sampled_from([0.25, 1.0, 2.0]),
)
def test_the_loop_is_ap_loss(cases, delta):
    scores = torch.tensor([0.5, *(score for score, _ in cases)], dtype=torch.float64)
    labels = torch.tensor([1, *(label for _, label in cases)], dtype=torch.int8)
    torch.testing.assert_close(
        value_and_gradient(ap_loss_by_loop, scores, labels, delta), value_and_gradient(ap_loss, scores, labels, delta)
    )


@settings(max_examples=60, deadline=None)
@given(cases=st.lists(st.tuples(LEVELS, st.sampled_from([1, 0])), max_size=20), delta=st.sampled_from([0.25, 1.0]))
def test_the_matrix_is_ap_loss_without_interpolation(cases, delta):
    scores = torch.tensor([0.5, *(score for score, _ in cases)], dtype=torch.float64)
    labels = torch.tensor([1, *(label for _, label in cases)], dtype=torch.int8)
    torch.testing.assert_close(
        value_and_gradient(ap_loss_by_matrix, scores, labels, delta),
        value_and_gradient(ap_loss, scores, labels, delta, False),
    )


def test_a_problem_holds_what_its_size_says():
    size = Size(2, 3000, 20, 50, "late")
    problem = make_problem(size, CPU)
    labels, logits = problem.labels.view(-1), problem.logits.detach().view(-1)
    assert problem.logits.shape == problem.quality.shape == (2, 3000, 20)
    assert problem.softmax_logits.shape == (2, 3000, 21)
    assert size.scores == len(logits) == 120_000
    assert labels.nonzero().squeeze(1).equal(problem.positives)
    assert len(problem.positives) == len(problem.ious) == 50
    assert (problem.quality.view(-1) > 0).equal(labels == 1)
    again = make_problem(size, CPU)
    assert problem.logits.equal(again.logits)
    median = logits[labels == 0].median()
    assert median == pytest.approx(-10.77, abs=0.1)
    early = make_problem(size._replace(stage="early"), CPU).logits.detach()
    assert early.mean() == pytest.approx(-4.6, abs=0.01)
    assert early.std() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(("stage", "share"), [("early", 1.0), ("midway", 0.8), ("late", 0.007)])
def test_how_many_negatives_are_within_reach_of_a_positive(stage, share):
    """Those above the lowest positive - 1, all of which a loop over the positives goes through each time."""
    problem = make_problem(Size(4, 5000, 20, 800, stage), CPU)
    lowest = problem.logits[problem.labels == 1].min()
    relevant = (problem.logits[problem.labels == 0] > lowest - 1).double().mean()
    assert relevant == pytest.approx(share, rel=0.25)


def public_losses():
    """The functions of rankdet.losses that take logits and are a loss: name -> function."""
    found = {}
    for module in pkgutil.iter_modules(rankdet.losses.__path__, "rankdet.losses."):
        for name, function in inspect.getmembers(import_module(module.name), inspect.isfunction):
            if name.endswith("_loss") and next(iter(inspect.signature(function).parameters)) == "logits":
                found[name] = function
    return found


def test_every_loss_is_measured_and_works():
    names = public_losses().keys() - {"error_driven_loss"}  # which the others are made with
    assert len(names) >= 12
    assert not [name for name in names if not hasattr(contestants, name)]
    problem = make_problem(Size(2, 60, 20, 12), CPU)
    for name, loss in losses(CPU).items():
        value = loss(problem)
        value.backward()
        gradients = [leaf.grad for leaf in (problem.logits, problem.softmax_logits) if leaf.grad is not None]
        assert value.isfinite(), name
        assert len(gradients) == 1, name
        assert gradients[0].isfinite().all(), name
        assert gradients[0].any(), name
        problem.clear_gradients()
    assert problem.logits.grad is problem.softmax_logits.grad is problem.ious.grad is None


def test_calls_take_turns(monkeypatch):
    """Of a budget of 1 s and 4 repeats: A takes 0.3 s, so 4 repeats; B 0.6, so 3, the least; C 2 s, so its first."""
    order, cost = [], {"A": 0.3, "B": 0.6, "C": 2.0}

    def clock(call, device):
        call()
        return cost[order[-1]]

    monkeypatch.setattr("rankdet.profiling.timing.seconds", clock)
    calls = {name: lambda name=name: order.append(name) for name in cost}
    times = interleaved(calls, CPU, Budget(1.0, 4))
    assert times == {"A": [0.3] * 4, "B": [0.6] * 3, "C": [2.0]}
    assert "".join(order) == "ABC" + "AB" * 3 + "A"


def test_the_clock_sees_the_call():
    def busy():
        torch.zeros(200_000).sort()

    assert seconds(lambda: [busy() for _ in range(20)], CPU) > seconds(busy, CPU) > 0


class FakeGPU:
    """Stands in for torch.cuda: writes down what is asked of it, and counts 3 s and 5 MiB for a call."""

    def __init__(self):
        self.log = []

    def note(self, word, answer=None):
        return lambda *_, **__: self.log.append(word) or answer

    def event(self, enable_timing):
        assert enable_timing
        event = type("Event", (), {})()
        event.record = self.note("record")
        event.elapsed_time = lambda end: 3000.0
        return event

    def install(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "Event", self.event)
        for name, answer in {
            "synchronize": None, "reset_peak_memory_stats": None, "memory_allocated": 2 * MIB,
            "max_memory_allocated": 7 * MIB,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, self.note(name, answer))


def test_on_a_gpu_nothing_is_read_before_the_work_is_done(monkeypatch):
    gpu, device = FakeGPU(), torch.device("cuda")
    gpu.install(monkeypatch)
    assert seconds(gpu.note("call"), device) == 3.0
    assert gpu.log == ["synchronize", "record", "call", "record", "synchronize"]
    gpu.log.clear()
    assert peak_bytes(gpu.note("call"), device) == 5 * MIB
    wait = ["synchronize", "reset_peak_memory_stats", "memory_allocated", "call", "synchronize", "max_memory_allocated"]
    assert gpu.log == wait


def together():
    return [torch.ones(2 * MIB) for _ in range(3)]  # 8 MiB each


def in_turn():
    for _ in range(3):
        torch.ones(2 * MIB)


def highest_of_many():
    return torch.rand(4 * MIB).topk(10)


def gauged(calls):
    """Runs in the gauge's process; the first call there also pays for what is loaded only once."""
    return [peak_bytes(call, CPU) for call in (calls[0], *calls)][1:]


def test_memory_is_the_most_at_a_time():
    """Freed blocks are not reused unseen; and what topk copies aside for 16 MiB of scores is seen, 32 to 64 MiB that
    torch does not count. Of a million scores, nothing but the gradient is 4 million bytes.
    """
    with gauge_process() as process:
        found = process.submit(gauged, [together, in_turn, together, in_turn, highest_of_many]).result()
        peaks = process.submit(peaks_at, Size(8, 6250, 20, 80), (NONE, YARDSTICK), CPU).result()
    if None in found:
        pytest.skip("needs Linux")
    assert [peak / MIB for peak in found[:4]] == pytest.approx([24, 8, 24, 8], abs=0.5)
    assert 16 + 32 <= found[4] / MIB <= 16 + 64 + 1
    assert peaks[NONE] == pytest.approx(4e6, abs=7e5)
    assert peaks[YARDSTICK] > 3 * peaks[NONE]


def row(sweep, loss, size, seconds, peak=None):
    grows = {"images": size} if sweep == "batch" else {"positives": size} if sweep == "positives" else {"scores": size}
    return Measurement(
        **{
            "sweep": sweep, "loss": loss, "stage": "early", "images": 1, "scores": 1, "positives": 1,
            "seconds": seconds, "repeats": 3, "peak_bytes": peak, **grows,
        }
    )  # fmt: skip


def test_verdicts_by_hand():
    """AP 0.2 s and 40 bytes, focal 0.1 s and 80 bytes, the loop 7 s: ratios 2, 1/2 and 35."""
    rows = [row("early", AP, 9, 0.2, 40), row("early", YARDSTICK, 9, 0.1, 80), row("early", LOOP, 9, 7.0)]
    for goal, value, verdict in (
        (Goal("early", TIME, AP, YARDSTICK, 1.0), 2.0, "not met"),
        (Goal("early", MEMORY, AP, YARDSTICK, 1.0), 0.5, "met"),
        (Goal("early", TIME, LOOP, AP, 30.0, at_least=True), 35.0, "met"),
        (Goal("early", TIME, LOOP, AP, 100.0, at_least=True), 35.0, "not met"),
        (Goal("early", MEMORY, LOOP, AP, 1.0), None, "not measured"),
        (Goal("late", TIME, AP, YARDSTICK, 1.0), None, "not measured"),
    ):
        found = outcome(goal, rows)
        assert (found.value, found.verdict) == (pytest.approx(value) if value else None, verdict), goal
    assert Outcome(Goal("early", TIME, AP, YARDSTICK, 1.0), 1.0).verdict == "met"


def test_growth_is_that_of_the_worst_decade():
    """Times 1, 3, 12 and 18 at 1, 2, 10 and 20: a decade apart are 1 and 10 (12x), 2 and 20 (6x)."""
    rows = [row("scores", AP, size, time) for size, time in ((1, 1.0), (2, 3.0), (10, 12.0), (20, 18.0))]
    found = outcome(Goal("scores", TIME, AP, None, 11.0), rows)
    assert (found.value, found.verdict) == (12.0, "not met")
    assert outcome(Goal("positives", TIME, AP, None, 2.0), rows).value is None


def test_slopes_leave_out_what_fixed_costs_hide():
    """time = size^2 from 100 to 1000; at 10 it stands still. Three sizes at least."""
    rows = [row("pairs", MATRIX, size, max(100, size) ** 2.0, 7 * size) for size in (10, 100, 300, 1000)]
    rows += [row("pairs", AP, size, 1.0, 0) for size in (100, 1000)]
    found = slopes(rows)
    assert [(s.sweep, s.quantity, s.loss, s.sizes) for s in found] == [
        ("pairs", TIME, MATRIX, 3), ("pairs", MEMORY, MATRIX, 3)
    ]  # fmt: skip
    assert [s.exponent for s in found] == pytest.approx([2.0, 1.0])


def test_the_plan_holds_what_the_goals_ask_for():
    """Every goal is about a loss and a sweep that are measured, and every sweep's losses exist."""
    every = losses(CPU)
    for sweeps in (full_sweeps(every), quick_sweeps(every)):
        measured = {(sweep.name, loss) for sweep in sweeps for loss in sweep.losses}
        assert {loss for _, loss in measured} == set(every)
        wanted = {(goal.sweep, loss) for kind in ("cpu", "cuda") for goal in goals(kind) for loss in goal[2:4] if loss}
        assert len(wanted) >= 15
        assert wanted <= measured
    main, *_ = full_sweeps(every)
    assert (main.sizes[0].scores, main.sizes[0].positives) == (5_237_760, 800)
    limits = [{goal.limit for goal in goals(kind) if goal.loss == LOOP} for kind in ("cpu", "cuda")]
    assert limits == [{30.0}, {100.0}]


@pytest.fixture
def main(front_end):
    """The script's."""
    return front_end("profile_loss")


def test_the_script_measures_prints_and_writes(main, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")  # read by processes that start, so without effect here
    assert main(["--quick", "--output", str(tmp_path / "out"), "--json", str(tmp_path / "all.json")]) == 0
    printed = capsys.readouterr().out
    sweeps = quick_sweeps(losses(CPU))
    num_rows = sum(len(sweep.sizes) * len(sweep.losses) for sweep in sweeps)
    with (tmp_path / "out" / "profile.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == num_rows
    assert all(float(row["seconds"]) > 0 and int(row["repeats"]) >= 1 for row in rows)
    content = json.loads((tmp_path / "all.json").read_text())
    assert len(content["measurements"]) == num_rows
    assert content["about"]["threads"] == 1
    assert {goal["verdict"] for goal in content["goals"]} <= {"met", "not met", "not measured"}
    assert len(content["goals"]) == len(goals("cpu"))
    assert torch.__version__ in printed
    assert "; MALLOC_ARENA_MAX=7" in printed
    for goal in content["goals"]:
        assert goal["text"] in printed
    page = (tmp_path / "out" / "profile.md").read_text()
    assert page in printed
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == [
        "against_positives.png", "against_scores.png", "memory_against_batch.png", "time_against_batch.png",
    ]  # fmt: skip
    assert sorted(re.findall(r"\]\(([^)]+)\)", page)) == pictures


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threads", "0"],
        pytest.param(["--device", "cuda"], marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")),
    ],
)
def test_a_mistake_is_one_line(main, arguments, capsys):
    assert main([*arguments, "--quick"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {' '.join(arguments)}: ")
    assert error.count("\n") == 1
