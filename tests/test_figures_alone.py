"""Figures that need neither a protocol nor data: those of the benchmark."""

import csv
import io
import re
import runpy
import shutil
from types import SimpleNamespace

import pytest

from rankdet.benchmark.contestants import OUR_DEFAULT
from rankdet.benchmark.report import csv_text
from rankdet.benchmark.sweeps import BY_LOSS, RACE, Measurement
from rankdet.figures import against_batch

MEMORY = """
title: Memory
kind: benchmark
quantity: memory
series:
  none: {label: no loss, fact: linear}
  ap: {label: AP-loss, fact: a little more}
"""
MIB = 2**20


def measured(loss, images, seconds, loss_seconds, mib, sweep=BY_LOSS):
    laps = {"data": 0.1, "forward": 0.1, "matching": 0.1, "loss": loss_seconds, "backward": 0.1}
    return Measurement(sweep, OUR_DEFAULT._replace(loss=loss), 64, images, seconds, laps, 3, mib and mib * MIB)


ROWS = [
    measured("ap", 4, 1.0, 0.2, 222), measured("ap", 1, 0.5, 0.05, 110), measured("none", 1, 0.4, 0.01, 100),
    measured("none", 4, 0.8, 0.01, 200), measured("ap", 8, 9.0, 9.0, 999, RACE),
]  # fmt: skip


@pytest.fixture
def root(repo, tmp_path):
    """A checkout with a figure for memory, one for time, and nothing to publish but these."""
    folder = tmp_path / "experiments" / "ap-loss"
    folder.mkdir(parents=True)
    (folder / "figure-9.yaml").write_text(MEMORY)
    (folder / "figure-11.yaml").write_text(MEMORY.replace("quantity: memory", "quantity: time"))
    (tmp_path / "experiments" / "published.yaml").write_text("[]\n")
    return tmp_path


@pytest.fixture
def figure(repo):
    """The command."""
    return runpy.run_path(str(repo / "scripts" / "figure.py"))["main"]


@pytest.fixture
def publish(repo):
    """The command."""
    return runpy.run_path(str(repo / "scripts" / "publish.py"))["main"]


def put(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.csv").write_text(csv_text(rows))


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_memory_by_hand(root, figure, capsys):
    """None: 100 to 200 MiB for three images more, 33.3 each. AP-loss: 110 to 222, that is 22 or 11 % on no loss."""
    put(root / "runs" / "benchmark", ROWS)
    assert figure(["figure-9"], root) == 0
    out = capsys.readouterr().out
    assert "100 MiB with 1 to 200 with 4 images, 33 to 33 more for each further image" in out
    assert "110 MiB with 1 to 222 with 4 images, 37 to 37 more for each further image; +22.0 MiB, +11.0 %" in out
    assert re.search(r"\| AP-loss +\| +4 \| +222 \| +\+22.0 \|", out)
    assert "Images of 64 x 64 pixels" in out and "999" not in out
    points = list(csv.DictReader(io.StringIO((root / "runs/figures/ap-loss/figure-9.csv").read_text())))
    assert [(point["loss"], point["images"], point["peak"]) for point in points] == [
        ("none", "1", "100.0"), ("none", "4", "200.0"), ("ap", "1", "110.0"), ("ap", "4", "222.0"),
    ]  # fmt: skip


def test_time_by_hand(root, figure, capsys):
    """0.05 to 0.2 s: four times; 0.2 of 1.0 s."""
    put(root / "runs" / "benchmark", ROWS)
    assert figure(["figure-11"], root) == 0
    out = capsys.readouterr().out
    assert "50.0 ms with 1 to 200.0 ms with 4 images, 4.0 times; 20.0 % of the step with 4" in out


def test_what_was_not_measured_says_so(root, figure, capsys):
    """Memory cannot be told on every machine, and a quick benchmark has one batch size."""
    put(root / "runs" / "benchmark", [measured("ap", 2, 0.5, 0.1, None)])
    assert figure(["figure-9"], root) == 0
    out = capsys.readouterr().out
    assert re.search(r"\| no loss +\| linear +\| not measured +\|", out)
    assert re.search(r"\| AP-loss +\| a little more +\| not measured +\|", out)
    assert figure(["figure-11"], root) == 0
    assert "100.0 ms with 2 to 100.0 ms with 2 images, 1.0 times" in capsys.readouterr().out


def test_the_benchmark_runs_once(root, figure, monkeypatch, capsys):
    lines = []

    def run(line, cwd, check):
        lines.append(line)
        put(cwd / "runs" / "benchmark", ROWS)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(against_batch, "run", run)
    assert figure(["figure-9", "--dry-run"], root) == 0
    assert capsys.readouterr().out == "python scripts/benchmark.py\n"
    assert not lines
    assert figure(["figure-9", "--gpus", "1"], root) == 0
    assert lines[0][1:] == ["scripts/benchmark.py", "--device", "cuda"]
    assert figure(["figure-11"], root) == 0
    assert len(lines) == 1


def test_a_benchmark_that_fails(root, figure, monkeypatch, capsys):
    monkeypatch.setattr(against_batch, "run", lambda line, cwd, check: SimpleNamespace(returncode=2))
    assert figure(["figure-9"], root) == 2
    assert "error: python scripts/benchmark.py: ended with exit code 2" in capsys.readouterr().err
    assert not (root / "runs").exists()


def test_published_from_what_is_committed(root, publish):
    """Without a committed benchmark nothing is written; with one, the same bytes each time, whatever lies in runs/."""
    put(root / "runs" / "benchmark", ROWS)
    before = files_in(root)
    assert publish(root) == 0
    assert files_in(root) == before
    put(root / "experiments" / "benchmark", ROWS[:2])
    assert publish(root) == 0
    text = (root / "experiments/ap-loss/figure-9.md").read_text()
    assert re.search(r"\| no loss +\| linear +\| not measured +\|", text)
    assert "experiments/benchmark/benchmark.md says how" in text
    before = files_in(root / "experiments")
    shutil.rmtree(root / "runs")
    assert publish(root) == 0
    assert files_in(root / "experiments") == before


@pytest.mark.parametrize(
    ("csv_text", "message"),
    [("sweep,loss\nlosses,ap\n", "benchmark.csv: is not what make benchmark writes"), ("", None)],
)
def test_another_file_than_the_benchmarks(root, figure, capsys, csv_text, message):
    folder = root / "runs" / "benchmark"
    folder.mkdir(parents=True)
    (folder / "benchmark.csv").write_text(csv_text)
    assert figure(["figure-9"], root) == (2 if message else 0)
    out, err = capsys.readouterr()
    assert message in err if message else out.count("not measured") == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("quantity: memory", "quantity: speed", "quantity: 'speed' is neither memory nor time"),
        ("  ap:", "  hinge:", "series.hinge: is no loss of the benchmark, which has none, ce_ohem, focal, auc, ap"),
        ("fact: linear", "fact: linear, row: x", "unknown key 'row'"),
    ],
)
def test_mistakes_name_file_and_key(root, figure, capsys, old, new, message):
    put(root / "runs" / "benchmark", ROWS)
    path = root / "experiments" / "ap-loss" / "figure-9.yaml"
    assert old in MEMORY
    path.write_text(MEMORY.replace(old, new, 1))
    assert figure(["figure-9"], root) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "figure-9.yaml" in err and message in err
