"""make status: a run's state from what lies in its directory, and how long the rest will take."""

import json
import subprocess
import sys
import time

import pytest
from paper_made_up import make_checkout
from results_made_up import make_run, write_record

from rankdet.overview import state
from rankdet.overview.cost import Work
from rankdet.overview.state import DONE, FAILED, RUNNING, WAITING, Standing, seconds_left, standing
from rankdet.overview.status import counts
from rankdet.overview.targets import load_target
from rankdet.results.datasets import choose_data

TORCHRUN = "E1122 06:01:28.192000 10917 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 2)"
HOLD = "import sys, time; from pathlib import Path; from rankdet.training.lock import run_lock\n"
HOLD += "with run_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


@pytest.fixture(autouse=True)
def length(monkeypatch):
    """Runs of 500 steps of 8 images, but for those of the loss `unknown`."""

    def work(run, root):
        return Work(None, None, 8, None) if "loss=unknown" in run.overrides else Work(500, 4000, 8, None)

    monkeypatch.setattr(state, "work", work)


@pytest.fixture
def held():
    """Takes a run's lock in another process."""
    processes = []

    def hold(run):
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.directory)], stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout.readline() == b"held\n"

    yield hold
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def write_log(run, step, rate=40.0, text=None):
    """A log up to a step, its last line half written, and what was on the screen."""
    run.directory.mkdir(parents=True, exist_ok=True)
    entry = {"step": step, "speed/images_per_s": rate}
    (run.directory / "log.jsonl").write_text('{"step": 1}\n' + json.dumps(entry) + '\n{"step": 999, "spe')
    (run.directory / "log.txt").write_text(text or f"step {step}/500\n")


def test_each_state(tmp_path, held):
    done, running, failed, stopped, fresh = (make_run(tmp_path, key) for key in "abcde")
    write_record(done, 0.3)
    write_log(running, 250, rate=40.0)
    held(running)
    write_log(failed, 100, text="step 100/500\nerror: loss is nan at step 101\n\n")
    write_log(stopped, 200, text="step 200/500\nstopped by SIGTERM; the same command continues\n")
    found = [standing(run, tmp_path) for run in (done, running, failed, stopped, fresh)]
    assert [each.state for each in found] == [DONE, RUNNING, FAILED, WAITING, WAITING]
    assert (found[1].step, found[1].steps) == (250, 500)
    assert found[1].seconds == pytest.approx(250 * 8 / 40)
    assert found[2].says == "error: loss is nan at step 101"
    assert (found[3].step, found[4].step) == (200, None)
    assert counts(found) == "1 of 5 trainings done, 1 running, 1 failed, 2 waiting"


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("RuntimeError: out of memory", FAILED),
        ("torch.OutOfMemoryError: CUDA", FAILED),
        ("error: loss is nan at step 7\nprocess 1 ended with exit code 3", FAILED),
        (f"error: no such loss\n{TORCHRUN}\nprocess 0 ended with exit code 2", FAILED),
        ("torch.AcceleratorError: CUDA error: an assert\nFor debugging set CUDA_LAUNCH_BLOCKING=1", FAILED),
        ("error: no room\nrun runs/x\ncontinuing at step 50", WAITING),
        ("Exception ignored in: <function f>", WAITING),
        ("stopped by SIGUSR1; the same command continues\nprocess 0 ended with exit code 99", WAITING),
        ("KeyboardInterrupt", WAITING),
        ("runs/x: another process is training this run", WAITING),
        ("step  50/500  loss 0.5\rstep 100/500", WAITING),
        (" ", WAITING),
    ],
)
def test_how_a_log_ends(tmp_path, end, expected):
    run = make_run(tmp_path, "a")
    write_log(run, 100, text=f"step 50/500\n{end}\n")
    assert standing(run, tmp_path).state == expected


def test_the_time_left_by_hand(tmp_path):
    """A run of 4000 images took 40 s. One runs, with 30 s to go; of one waiting half is done: 20 s; one has not begun:
    40 s. A failed one does not count. Two at a time: 45 s."""
    done, running, failed, half, fresh = (make_run(tmp_path, key) for key in "abcde")
    write_record(done, 0.3)
    standings = [
        Standing(done, DONE),
        Standing(running, RUNNING, 250, 500, 30.0),
        Standing(failed, FAILED, 10, 500),
        Standing(half, WAITING, 250, 500),
        Standing(fresh, WAITING, None, 500),
    ]
    assert seconds_left(standings, tmp_path, 2) == pytest.approx(45.0)
    assert seconds_left(standings[1:], tmp_path, 2) is None  # nothing finished to judge by
    unknown = Standing(make_run(tmp_path, "unknown"), WAITING)
    assert seconds_left([standings[0], unknown], tmp_path, 1) is None


def test_another_detector_s_pace_counts_where_it_has_none_of_its_own(tmp_path):
    """RetinaNet's took 40 s, the SSD's 80 s: an SSD takes 80 s, a FoveaBox the mean of both."""
    runs = [make_run(tmp_path, key, detector=name) for key, name in (("a", "retinanet"), ("b", "ssd"))]
    write_record(runs[0], 0.3, train_seconds=40.0)
    write_record(runs[1], 0.3, train_seconds=80.0)
    done = [Standing(run, DONE) for run in runs]
    for name, expected in (("ssd", 80.0), ("foveabox", 60.0)):
        waiting = Standing(make_run(tmp_path, "c", detector=name), WAITING, None, 500)
        assert seconds_left([*done, waiting], tmp_path, 1) == pytest.approx(expected)


def test_the_command(repo, front_end, tmp_path, capsys):
    """Table 8 shares a training with table 1, which is told of once and counted once."""
    root = make_checkout(repo, tmp_path)
    runs = load_target("table-1", "ap-loss", "mini", choose_data("shapes"), root).order
    write_record(runs[0], 0.3)
    write_log(runs[1], 100, text="error: no such luck\n")
    main = front_end("status")
    assert main(["table-1", "table-8"], root) == 0
    lines = capsys.readouterr().out.splitlines()
    log = (runs[1].directory / "log.txt").relative_to(root)
    assert lines == [
        "ap-loss table-1, mini on shapes: 1 of 4 trainings done, 1 failed, 2 waiting",
        f"  failed   {runs[1].label} seed {runs[1].seed}: error: no such luck ({log})",
        "ap-loss table-8, mini on shapes: 0 of 4 trainings done, 1 failed, 3 waiting",
        "in all: 1 of 6 trainings done, 1 failed, 4 waiting; about 80 s of training left with 2 at a time",  # 4 of 40 s
    ]
    assert main(["table-1", "--jobs", "0"], root) == 2
    assert "JOBS=0" in capsys.readouterr().err


def test_looking_changes_nothing(tmp_path):
    run = make_run(tmp_path, "a")
    assert standing(run, tmp_path).state == WAITING
    assert not run.directory.exists()
    write_log(run, 10)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.directory.iterdir()}
    time.sleep(0.01)
    standing(run, tmp_path)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.directory.iterdir()} == before
