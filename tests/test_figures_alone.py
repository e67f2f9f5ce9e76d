"""Figures that need neither a protocol nor data: those of the benchmark, and computed ones."""

import csv
import io
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from paper_made_up import make_experiments

from rankdet.benchmark.contestants import OUR_DEFAULT
from rankdet.benchmark.report import csv_text
from rankdet.benchmark.sweeps import BY_LOSS, RACE, Measurement
from rankdet.figures import accuracy_and_ap, against_batch, label_replication, step_functions

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
    return Measurement(sweep, OUR_DEFAULT._replace(loss=loss), 64, images, (seconds,) * 3, laps, mib and mib * MIB)


ROWS = [
    measured("ap", 4, 1.0, 0.2, 222), measured("ap", 1, 0.5, 0.05, 110), measured("none", 1, 0.4, 0.01, 100),
    measured("none", 4, 0.8, 0.01, 200), measured("ap", 8, 9.0, 9.0, 999, RACE),
]  # fmt: skip


@pytest.fixture
def root(repo, tmp_path):
    """A checkout with a figure for memory, one for time, and nothing to publish but these; a grid lies about."""
    time = MEMORY.replace("quantity: memory", "quantity: time")
    make_experiments(repo, tmp_path, {"figure-9": MEMORY, "figure-11": time})
    shutil.copytree(repo / "experiments" / "tuning", tmp_path / "experiments" / "tuning", dirs_exist_ok=True)
    (tmp_path / "experiments" / "published.yaml").write_text("[]\n")
    return tmp_path


@pytest.fixture
def figure(front_end):
    """The command."""
    return front_end("figure")


@pytest.fixture
def publish(front_end):
    """The command."""
    return front_end("publish")


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


def test_the_error_that_a_figure_tells_itself(root, figure, capsys):
    """ROWS: all losses take more than none; without their losses steps take 0.39 and 0.45 s, 0.79 and 0.8. Then 98.5
    MiB where no loss has 100, and 0.4 and 0.5 s."""
    put(root / "runs" / "benchmark", ROWS)
    assert figure(["figure-9"], root) == 0
    assert "measurement's error" not in capsys.readouterr().out
    assert figure(["figure-11"], root) == 0
    assert "took up to 15 % longer than its fastest" in capsys.readouterr().out
    put(root / "runs" / "benchmark", [measured("none", 1, 0.51, 0.01, 100), measured("ap", 1, 0.45, 0.05, 98.5)])
    assert figure(["figure-9"], root) == 0
    assert "and 1.5 MiB less were measured" in capsys.readouterr().out
    assert figure(["figure-11"], root) == 0
    assert "took up to 25 % longer than its fastest" in capsys.readouterr().out


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
    before = files_in(root / "experiments" / "ap-loss")
    assert publish(root) == 0
    assert files_in(root / "experiments" / "ap-loss") == before
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


class TestComputed:
    def test_steps_by_hand(self):
        """f is x / (2 delta) + 1/2 between -delta and delta: slope 1 / (2 delta), and off H by delta / 2 in area."""
        shown = step_functions.content()
        assert re.search(r"\| +1 \| +0.500 \| +0.50 \| +0.99 \| +0.500 \|", shown.table)
        assert re.search(r"\| +4 \| +0.125 \| +0.50 \| +3.99 \| +2.000 \|", shown.table)
        rows = {row["x"]: row for row in csv.DictReader(io.StringIO(shown.csv))}
        assert len(rows) == 1001
        assert (rows["0.00"]["H"], rows["0.00"]["f_delta_2"]) == ("1", "0.5")
        assert (rows["-0.01"]["H"], rows["-1.00"]["f_delta_2"], rows["3.00"]["f_delta_4"]) == ("0", "0.25", "0.875")

    def test_accuracy_and_ap_by_hand(self):
        """Two positives and eight of background. With two mistaken: accuracy 8/10, precisions 2/4 at both, which tie.
        All scored alike: accuracy 8/10 and precision 2/10. The ignored one counts nowhere."""
        labels = torch.tensor([1, 1, *[0] * 8, -1])
        scores = torch.tensor([1.0, 1, 2, 2, *[-1] * 6, 9], dtype=torch.float64)
        assert accuracy_and_ap.judge(labels, scores) == pytest.approx((0.8, 0.5))
        assert accuracy_and_ap.judge(labels, -torch.ones(11, dtype=torch.float64)) == pytest.approx((0.8, 0.2))

    def test_the_picture_of_accuracy(self):
        """One object with at least one positive anchor, and as many mistakes to choose from as are asked for."""
        shown = accuracy_and_ap.scene()
        assert len(shown.labels) == 6 * (15 * 20 + 8 * 10 + 4 * 5)
        assert 0 < int((shown.labels == 1).sum()) < 30
        assert len(shown.wrong) > max(accuracy_and_ap.WRONG)
        assert bool((shown.labels[shown.wrong] == 0).all()) and len(set(shown.wrong.tolist())) == len(shown.wrong)

    def test_labels_and_terms_by_hand(self):
        """b12 scores 2.0, above all negatives. Above b43, at 0.8, lie b12, and b13 and b23 of the negatives: rank 4."""
        shown = label_replication.content()
        rows = list(csv.DictReader(io.StringIO(shown.csv)))
        assert [[row[name] for name in ("t_i", "t_i1", "t_i2", "t_i3")] for row in rows] == [
            ["2", "0", "1", "0"], ["0", "0", "0", "0"], ["-1", "-1", "-1", "-1"], ["3", "0", "0", "1"],
        ]  # fmt: skip
        assert "14 pairs; a positive's terms sum to 0.2500 in the mean, ap_loss gives 0.2500" in shown.measured["pairs"]

    def test_the_commands(self, repo, root, figure, publish, capsys):
        """Published without being listed, the same as made."""
        shutil.copy(repo / "experiments/ap-loss/figure-3.yaml", root / "experiments/ap-loss")
        assert figure(["figure-3", "--dry-run"], root) == 0
        assert capsys.readouterr().out == ""
        assert figure(["figure-3"], root) == 0
        made = files_in(root / "runs/figures/ap-loss")
        assert sorted(map(str, made)) == [f"figure-3.{kind}" for kind in ("csv", "md", "png", "svg")]
        assert publish(root) == 0
        committed = files_in(root / "experiments/ap-loss")
        assert {name: committed[name] for name in made} == made

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("label-replication", "labels", "picture: 'labels' is not one of step-functions, "),
            ("  pairs:", "  terms:", "series: label-replication tells of classifier, ranking, pairs, each once"),
        ],
    )
    def test_mistakes(self, repo, root, figure, capsys, old, new, message):
        text = (repo / "experiments/ap-loss/figure-3.yaml").read_text()
        assert old in text
        (root / "experiments/ap-loss/figure-3.yaml").write_text(text.replace(old, new, 1))
        assert figure(["figure-3"], root) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "figure-3.yaml" in err and message in err


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
