"""make reproduce-all: every target's command in turn, what it says between them, failures, and signals."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from paper_made_up import make_checkout
from results_made_up import make_run, record_content

from rankdet.overview import state
from rankdet.overview.cost import Work
from rankdet.overview.everything import reproduce_all
from rankdet.overview.targets import Part, Target
from rankdet.results import launch
from rankdet.results.front import exit_code

WRITE = "import sys; from pathlib import Path\n"
WRITE += "for p in sys.argv[2:]: q = Path(p); q.parent.mkdir(parents=True); q.write_text(sys.argv[1])"
FAIL = "import sys; from pathlib import Path; q = Path(sys.argv[1]); q.mkdir(parents=True)\n"
FAIL += "(q / 'log.txt').write_text('error: no such luck'); sys.exit(1)"
SIGNAL = "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
SIGNAL += "os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"


@pytest.fixture(autouse=True)
def length(monkeypatch):
    monkeypatch.setattr(state, "work", lambda run, root: Work(500, 4000, 8, None))


def target(name, *runs):
    parts = tuple(Part(run.label, (run,)) for run in runs)
    return Target("paper", name, "mini", "made", parts, runs)


@pytest.fixture
def targets(tmp_path):
    """Two tables and a figure of two trainings each; the first of the second table is the first table's last."""
    a, b, c, d, e = (make_run(tmp_path, key) for key in "abcde")
    return [target("table-1", a, b), target("table-2", b, c), target("figure-3", d, e)]


def writing(target):
    """A command that does what the target's trainings are for: their records, of 40 s each."""

    records = [run.directory / "record.json" for run in target.order if not run.finished]
    content = json.dumps(record_content(target.order[0], 0.3))
    return [sys.executable, "-c", WRITE, content, *map(str, records)]


def test_in_turn_with_the_whole_s_progress(targets, tmp_path, capsys):
    """Five trainings of 40 s: after two, three are left, so 120 s or, two at a time, 60 s."""
    assert reproduce_all(targets, writing, 2, tmp_path) == 0
    assert capsys.readouterr().err.splitlines() == [
        "[1/3] paper table-1, mini on made. In all: 0 of 5 trainings done, 5 waiting; "
        "time left: unknown until a training has finished",
        "[2/3] paper table-2, mini on made. In all: 2 of 5 trainings done, 3 waiting; "
        "about 60 s of training left with 2 at a time",
        "[3/3] paper figure-3, mini on made. In all: 3 of 5 trainings done, 2 waiting; "
        "about 40 s of training left with 2 at a time",
        "In all: 5 of 5 trainings done",
    ]


def test_a_failure_does_not_stop_the_others(targets, tmp_path, capsys):
    def command(target):
        return [sys.executable, "-c", FAIL, str(target.order[0].directory)] if target is targets[0] else writing(target)

    assert reproduce_all(targets, command, 2, tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 + 3
    assert lines[-3] == "In all: 4 of 5 trainings done, 1 failed"
    assert lines[-2].startswith("  table-1: exit code 1; ")
    assert lines[-1].startswith("  failed   a seed 0: error: no such luck (runs/made/mini/net-a-")


def test_a_signal_goes_to_the_command_and_ends_it_all(targets, tmp_path, capsys):
    """Only the first one's command is started, and it ends by its own handler."""
    started = []

    def command(target):
        started.append(target.name)
        return [sys.executable, "-c", SIGNAL]

    assert exit_code(lambda: reproduce_all(targets, command, 2, tmp_path)) == 128 + 15
    assert started == ["table-1"]
    assert "stopped by SIGTERM; the same command continues" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--jobs", "0"], "JOBS=0: "),
        (["--nodes", "2"], "NODES=2: "),
        (["--slurm", "a=b"], "SLURM="),
        (["--gpus", "2", "--jobs", "3"], "JOBS=3 trainings on GPUS=2 each need 6 GPUs, "),
        (["--launcher", "slurm"], "LAUNCHER=slurm: there is no sbatch on this machine"),
    ],
)
def test_where_to_run_is_looked_at_before_the_first_starts(
    repo, front_end, tmp_path, capsys, monkeypatch, given, message
):
    monkeypatch.setattr(launch, "which", lambda name: None)
    assert front_end("all")([*given, "table-1", "table-8"], make_checkout(repo, tmp_path)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


@pytest.mark.full
def test_the_command_itself(repo, tmp_path):
    """Trainings of four steps: table 1's two, and the one that table 8 has beside; then again, when nothing is left."""
    root = make_checkout(repo, tmp_path)
    shutil.copytree(repo / "scripts", root / "scripts")
    for path in (root / "experiments" / "ap-loss").glob("*.yaml"):
        path.write_text(path.read_text().replace("[0, 1]", "[0]"))
    sizes = [f"data.source.num_{split}=8" for split in ("train", "val", "test")]
    short = ["schedule.length=32", "schedule.milestones=[]", *sizes]
    line = [sys.executable, str(root / "scripts" / "all.py"), "table-1", "table-8", *short]
    environment = os.environ | {"PYTHONPATH": str(repo)}
    first, again = (
        subprocess.run(line, cwd=root, env=environment, capture_output=True, text=True, timeout=400) for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert len(list(root.glob("runs/shapes/mini/*/seed0/record.json"))) == 3
    assert "In all: 3 of 3 trainings done" in first.stderr
    assert sorted(path.suffix for path in (root / "runs" / "tables" / "ap-loss").iterdir()) == [
        *[".csv"] * 2, *[".md"] * 2, *[".png"] * 2, *[".tex"] * 2,
    ]  # fmt: skip
    assert again.returncode == 0
    assert again.stdout == first.stdout
    assert "runs to train" not in again.stderr
    wrong = subprocess.run([*line, "--protocol", "tiny"], cwd=root, env=environment, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
