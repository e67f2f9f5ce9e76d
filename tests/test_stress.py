"""kill -9 at random moments, over and over: what is given again ends as if nobody had touched it."""

import csv
import os
import random
import runpy
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tiny
from results_made_up import record_content
from test_results_scripts import root  # noqa: F401
from test_train_command import Run, assert_same, copy_of

from rankdet import train
from rankdet.results import today
from rankdet.results.datasets import choose_data
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import make_plan
from rankdet.results.registry import load_registry
from rankdet.training.checkpoint import list_checkpoints

KILLS = 20
FIGURES = Path(__file__).resolve().parents[1] / "experiments" / "faults.csv"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("unbroken"))
    assert tiny.call(train.main, run.arguments).code == 0
    return run


def trained(arguments):
    """A training in a process that has imported everything, so that kills hit the training itself."""
    sys.argv = ["train", *arguments]
    train.main()


def killed(function, arguments, seconds):
    """Whether kill -9 after so many seconds came before the end of function(*arguments), which is 0."""
    process = tiny.child(function, *arguments)
    process.join(timeout=seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.stress
@pytest.mark.parametrize("phase", ["training", "evaluation"])
def test_a_run(unbroken, tmp_path_factory, phase):
    """From nothing, or from the last checkpoint, after which there is an evaluation and what is written at the end."""

    def begun():
        run = copy_of(unbroken, tmp_path_factory.mktemp(phase), checkpoints=phase == "evaluation")
        assert [path.stem for path in list_checkpoints(run.file("checkpoints"))][:1] == (
            ["step-00000016"] if phase == "evaluation" else []
        )
        return run

    first = begun()
    start = time.monotonic()
    assert tiny.in_child(trained, first.arguments) == 0
    longest = time.monotonic() - start
    assert_same(first, unbroken)
    draw, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:
        run = begun()
        runs += 1
        while kills < KILLS and killed(trained, [run.arguments], draw.uniform(0, longest)):
            kills += 1
        assert tiny.in_child(trained, run.arguments) == 0
        assert_same(run, unbroken)
    note(phase, kills, runs, time.monotonic() - start)


def collect(repo, checkout, moment=None):
    """make reproduce-table-1 where all is trained; kill -9 as the moment-th file (from 0) is to take its place."""
    today.data_hash = lambda run: "aaaa-bbbb"

    def replace(path, target, whole=Path.replace, count=iter(range(100))):  # noqa: B008
        if next(count) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(path, target)

    Path.replace = replace
    sys.exit(runpy.run_path(str(repo / "scripts" / "reproduce.py"))["main"](["table-1"], checkout))


def finish_all(repo, checkout):
    """Records of all runs of the checkout's table 1."""
    registry = load_registry(repo / "experiments" / "registry.yaml")
    manifest = load_manifest(checkout / "experiments" / "ap-loss" / "table-1.yaml", registry)
    for run in make_plan(manifest, "mini", choose_data("shapes"), checkout).runs():
        run.directory.mkdir(parents=True)
        train.write_json(run.directory / "record.json", record_content(run, 0.2 + run.seed / 100))


def files(checkout):
    """Name -> content of the table's files that are in place."""
    folder = checkout / "runs" / "tables" / "ap-loss"
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


def test_a_table_half_written(repo, root):  # noqa: F811
    """Killed at the second of its four files: the first is whole, the others are not there; then it is as without."""
    finish_all(repo, root)
    assert tiny.in_child(collect, repo, root, 1) == -signal.SIGKILL
    left = files(root)
    assert list(left) == ["table-1.mini.md"]
    assert tiny.in_child(collect, repo, root) == 0
    whole = files(root)
    assert sorted(whole) == [f"table-1.mini.{kind}" for kind in ("csv", "md", "png", "tex")]
    assert whole["table-1.mini.md"] == left["table-1.mini.md"]


@pytest.mark.stress
def test_collecting(repo, root):  # noqa: F811
    """At random moments: each file is whole or not there, and in the end all have the bytes of the first time."""
    finish_all(repo, root)
    start = time.monotonic()
    assert tiny.in_child(collect, repo, root) == 0
    longest, expected = time.monotonic() - start, files(root)
    assert len(expected) == 4
    draw, kills, rounds = random.Random(0), 0, 0
    while kills < KILLS:
        for name in expected:
            (root / "runs" / "tables" / "ap-loss" / name).unlink()
        rounds += 1
        while kills < KILLS and killed(collect, [repo, root], draw.uniform(0, longest)):
            kills += 1
            assert files(root).items() <= expected.items()
        assert tiny.in_child(collect, repo, root) == 0
        assert files(root) == expected
    note("collecting", kills, rounds, time.monotonic() - start)


def note(what, kills, ends, seconds):
    """Puts a line of experiments/faults.csv in the place of the last run's."""
    header = ["killed", "kills", "ended as unbroken", "seconds", "date"]
    rows = list(csv.reader(FIGURES.open()))[1:] if FIGURES.is_file() else []
    mine = [what, kills, ends, round(seconds), datetime.now(UTC).strftime("%Y-%m-%d")]
    rows = sorted([[str(cell) for cell in mine], *(row for row in rows if row[0] != what)])
    with FIGURES.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
