"""Figures from a manifest to their files, with a stand-in for the training whose curves are known."""

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from paper_made_up import TABLE_OF_BATCH_SIZES, make_experiments
from results_made_up import record_content

from rankdet.errors import UserError
from rankdet.figures.curves import LoggedRun, converged, local
from rankdet.figures.manifest import load_figure
from rankdet.figures.plan import make_figure_plan, stages
from rankdet.results import launch
from rankdet.results.datasets import DataChoice, choose_data
from rankdet.results.records import Record

CURVES = """
title: A quantity
kind: curves
experiment: ap_figure_8
seeds: [0, 1]
quantity: ap_value
y_label: AP-loss
tuning: figure-8
series:
  error-driven: {label: error-driven update, fact: ends low, overrides: [loss=ap]}
  approximate-gradient: {label: approximate gradient, fact: stays up, overrides: [loss=smoothed_ap]}
"""
CANDIDATES = """
title: Its end
kind: candidates
experiment: ap_figure_8
seeds: [0, 1]
quantity: ap_value
y_label: AP-loss
ranker: [one_class=true]
candidates: {mini: [75, 150, null], paper: [500, 2000, null]}
snapshot: {mini: {candidates: 75}, paper: {candidates: 500, overrides: [schedule.length=10]}}
series:
  error-driven: {label: error-driven update, fact: stays down, overrides: [loss=ap]}
  approximate-gradient: {label: approximate gradient, fact: only warm, overrides: [loss=smoothed_ap]}
"""
GRID = """
protocol: mini
seeds: [7]
overrides: [splits.train=train, splits.test=val]
grid: {schedule.lr: [0.001, 0.002, 0.004]}
"""
ROWS = """
title: AP against the batch
kind: rows
table: table-1
metric: AP
x: batch_size
x_label: images a step
series:
  ap: {label: AP-loss, fact: rises, rows: [batch-1, batch-2, batch-4, batch-8]}
"""
WRITE = """
import json, sys
directory, record, curve = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
with open(f"{directory}/log.jsonl", "w") as log:
    for step, value in curve:
        log.write(json.dumps({"step": step, "train/loss": 1.0, "train/ap_value": value}) + "\\n")
open(f"{directory}/record.json", "w").write(record)
"""


@pytest.fixture
def root(repo, tmp_path):
    """A checkout with a small manifest of each kind."""
    texts = {"figure-1": CURVES, "figure-2": CANDIDATES, "figure-3": ROWS, "table-1": TABLE_OF_BATCH_SIZES}
    make_experiments(repo, tmp_path, texts)
    (tmp_path / "experiments" / "tuning" / "figure-8.yaml").write_text(GRID)
    return tmp_path


def final_value(overrides, seed):
    """AP-loss falls from 1.0 to 0.4, 0.3 at the rate 0.002, plus two hundredths for seed 1; it stays at 0.95 where an
    approximate gradient starts cold among more than 75 candidates, and falls to 0.6 from a warm start."""
    warm = any(item.startswith("init_from=") for item in overrides)
    few = "candidates.num=75" in overrides
    if "loss=smoothed_ap" in overrides and not few:
        return 0.6 if warm else 0.95
    return 0.4 - 0.1 * ("schedule.lr=0.002" in overrides) + seed / 50 * (seed < 7)


@pytest.fixture
def started(monkeypatch):
    """Replaces the training by a program that writes a record and a log; the runs that were started."""
    found = []

    def command(run, gpus=0):
        if not run.finished:
            found.append(run)
        end = final_value(run.overrides, run.seed)
        curve = [[10, 1.0], [90, 0.9], [95, end + 0.1], [100, end - 0.1]]  # the last tenth: half of each, so `end`
        content = record_content(run, 0.2 + run.seed / 100, config_hash=run.config_hash)
        return [sys.executable, "-c", WRITE, str(run.directory), json.dumps(content), json.dumps(curve)]

    monkeypatch.setattr(launch, "command", command)
    return found


@pytest.fixture(autouse=True)
def data_are_not_read(monkeypatch):
    monkeypatch.setattr("rankdet.results.today.data_hash", lambda run: "aaaa-bbbb")


def table_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def logged_run(steps, values):
    return LoggedRun(Record(Path("record.json"), {}), tuple(steps), tuple(values))


def test_the_final_value_by_hand():
    """Means over steps 1-10, 11-85, 86-95 and 96-100; beyond step 90 lie the last two: (10 * 0.5 + 5 * 0.2) / 15."""
    run = logged_run([10, 85, 95, 100], [1.0, 0.8, 0.5, 0.2])
    assert run.first == 1.0
    assert run.final == pytest.approx(0.4)
    assert logged_run([50], [0.7]).final == 0.7  # a log of one line is all there is


def test_converged_means_a_tenth_below_the_start():
    runs = [logged_run([100], [0.8]), logged_run([100], [0.98])]  # mean 0.89
    assert converged(runs, 1.0)
    assert not converged(runs, 0.98)  # 0.9 * 0.98 = 0.882


def test_curves_are_tuned_trained_and_plotted(root, front_end, started, capsys):
    """Six trials choose 0.002 for AP; the other series is the same at every rate and takes the grid's first."""
    main = front_end("figure")
    assert main(["figure-1"], root) == 0
    out = capsys.readouterr().out
    assert [run.seed for run in started[:6]] == [7] * 6
    assert len(started) == 6 + 4
    assert {"schedule.lr=0.002", "splits.test=val", "protocol=mini"} <= set(started[1].overrides)
    tuned = (root / "runs" / "tuning" / "figure-8.shapes.yaml").read_text()
    assert "best: {schedule.lr: 0.002}\n    final: 0.3\n    at_edge: []" in tuned
    assert "at_edge: [schedule.lr]" in tuned
    assert re.search(r"\| error-driven update +\| +1.00 ± 0.00 \| 0.31 ± 0.01 \| +2 \|", out)
    assert "approximate-gradient: schedule.lr 0.001" in out
    assert "At the edge of the grid, so that a better value may lie beyond: schedule.lr for approximate-gradient" in out
    assert re.search(r"stays up +\| from 1.00 ± 0.00 to 0.95 ± 0.00 \(n = 2\) +\|", out)
    assert "Nothing here confirms or refutes it." in out
    folder = root / "runs" / "figures" / "ap-loss"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"figure-1.mini.{kind}" for kind in ("csv", "md", "png", "svg")
    ]
    points = table_of(folder / "figure-1.mini.csv")
    assert len(points) == 2 * 2 * 4
    assert points[3] == {"series": "error-driven", "seed": "0", "step": "100", "ap_value": "0.2"}
    started.clear()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(["figure-1"], root) == 0
    assert started == []
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_warm_start_where_a_cold_one_fails(root, front_end, started, capsys):
    """Ranker, then 2 series x 3 counts x 2 seeds; the approximate gradient fails at 150 and all and starts again."""
    assert front_end("figure")(["figure-2"], root) == 0
    out = capsys.readouterr().out
    assert len(started) == 1 + 12 + 4
    ranker, cold, warm = started[0], started[1:13], started[13:]
    assert "one_class=true" in ranker.overrides and ranker.seed == 0
    weights = f"{ranker.directory.relative_to(root)}/weights.pt"
    among = [run for run in cold if "candidates=top_ranked" in run.overrides]
    assert len(among) == 8
    assert all(f"candidates.rpn={weights}" in run.overrides for run in among)
    assert [run.seed for run in cold] == [0] * 6 + [1] * 6
    few = {run.seed: run for run in cold if {"loss=smoothed_ap", "candidates.num=75"} <= set(run.overrides)}
    assert [run.seed for run in warm] == [0, 0, 1, 1]
    for run in warm:
        start = f"{few[run.seed].directory.relative_to(root)}/weights.pt"
        assert f"init_from={start}" in run.overrides and "loss=smoothed_ap" in run.overrides
    points = table_of(root / "runs" / "figures" / "ap-loss" / "figure-2.mini.csv")
    flags = {(p["series"], p["candidates"], p["start"]): (p["converged"], p["final_ap_value_mean"]) for p in points}
    assert flags["approximate-gradient", "75", "cold"] == ("1", "0.41")
    assert flags["approximate-gradient", "150", "cold"] == ("0", "0.95")
    assert flags["approximate-gradient", "all", "warm"] == ("1", "0.6")
    assert flags["error-driven", "all", "cold"] == ("1", "0.41")
    assert len(flags) == 8
    assert "not converged at 150, all; from a warm start 0.60 ± 0.00 at 150, 0.60 ± 0.00 at all" in out
    assert "0.95 ± 0.00 (not converged); warm 0.60 ± 0.00" in out


def test_a_warm_start_from_weights_that_came_nowhere_is_one_in_name_only(root, front_end, started, monkeypatch, capsys):
    """The approximate gradient stays at 0.95 wherever it starts, at 75 candidates, too."""
    monkeypatch.setattr(
        "test_figures.final_value", lambda overrides, seed: 0.95 if "loss=smoothed_ap" in overrides else 0.4
    )
    assert front_end("figure")(["figure-2"], root) == 0
    out = capsys.readouterr().out
    words = "the training at 75 candidates that warm starts go on from had itself not converged (0.95 ± 0.00)"
    assert f"- approximate gradient: {words}, so they are warm in name only." in out
    assert "from a warm start 0.95 ± 0.00 at 150 (not converged), 0.95 ± 0.00 at all (not converged)" in out
    assert out.count("in name only") == 1


def test_another_length_of_the_warm_starts_weights_is_another_run(root):
    """The paper's snapshot has ten epochs; under mini it is the cold run itself."""
    manifest = load_figure(root / "experiments" / "ap-loss" / "figure-2.yaml")
    mini = make_figure_plan(manifest, "mini", choose_data("shapes"), root)
    point = next(p for p in mini.cold if p.x == 75 and p.series.key == "error-driven")
    assert mini.snapshots([point])["error-driven"] == tuple(
        type(run)(**{**vars(run), "label": "error-driven 75"}) for run in point.runs
    )
    paper = make_figure_plan(manifest, "paper", DataChoice("voc07", ("data=voc07",)), root)
    point = next(p for p in paper.cold if p.x == 500 and p.series.key == "error-driven")
    (snapshot, _) = paper.snapshots([point])["error-driven"]
    assert "schedule.length=10" in snapshot.overrides and snapshot.directory != point.runs[0].directory


def test_rows_of_a_table_as_points(root, front_end, started, capsys):
    """The same directories as the table's: the table then has nothing to train."""
    assert front_end("figure")(["figure-3"], root) == 0
    assert "20.5 ± 0.7 at 1, 20.5 ± 0.7 at 2" in capsys.readouterr().out
    points = table_of(root / "runs" / "figures" / "ap-loss" / "figure-3.mini.csv")
    assert [(p["row"], p["x"], p["AP_printed"]) for p in points] == [
        ("batch-1", "1", "52.4"), ("batch-2", "2", "53.0"), ("batch-4", "4", "52.8"), ("batch-8", "8", "53.1"),
    ]  # fmt: skip
    assert len(started) == 8
    started.clear()
    assert front_end("reproduce")(["table-1"], root) == 0
    assert started == []


def test_publishing_needs_no_runs(root, front_end, started, capsys):
    """From copied records and curves alone the same bytes come out, warm starts included."""
    (root / "experiments" / "published.yaml").write_text(
        "".join(
            f"- {{paper: ap-loss, {kind}: {kind}-{n}, protocol: mini, data: shapes}}\n"
            for kind, n in (("table", 1), ("figure", 1), ("figure", 2), ("figure", 3))
        )
    )
    for n in (1, 2, 3):
        assert front_end("figure")([f"figure-{n}"], root) == 0
    assert front_end("publish")(root) == 0
    folder = root / "experiments" / "ap-loss"
    ours = {path.name: path.read_bytes() for path in (root / "runs" / "figures" / "ap-loss").iterdir()}
    assert len(ours) == 12
    assert {name: (folder / name).read_bytes() for name in ours} == ours
    records = root / "experiments" / "records" / "shapes" / "mini"
    assert len(list((records / "curves").glob("*.json"))) == 4 + 12 + 4 - 2  # 0.002 is the default, too: shared
    assert (root / "experiments" / "tuning" / "figure-8.shapes.yaml").is_file()
    before = {path: path.read_bytes() for path in (root / "experiments").rglob("*") if path.is_file()}
    shutil.rmtree(root / "runs")
    assert front_end("publish")(root) == 0
    assert {path: path.read_bytes() for path in (root / "experiments").rglob("*") if path.is_file()} == before


def test_dry_run_starts_nothing(root, front_end, capsys):
    assert front_end("figure")(["figure-2", "--dry-run"], root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13 and "one_class=true" in lines[0]
    assert not (root / "runs").exists()


def test_nothing_run_is_drawn_as_such(root, front_end, monkeypatch, capsys):
    monkeypatch.setattr(launch, "command", lambda run, gpus=0: [sys.executable, "-c", "raise SystemExit(1)"])
    assert front_end("figure")(["figure-2"], root) == 1
    out, err = capsys.readouterr()
    assert re.search(r"\| error-driven update +\| stays down +\| not run +\|", out)
    assert "13 runs failed" in err
    assert (root / "runs" / "figures" / "ap-loss" / "figure-2.mini.png").stat().st_size > 0


def test_a_log_without_the_quantity_is_named(root, started):
    plan = make_figure_plan(
        load_figure(root / "experiments/ap-loss/figure-1.yaml"), "mini", choose_data("shapes"), root
    )
    run = plan.cold[0].runs[0]
    assert local(run, "ap_value") is None
    run.directory.mkdir(parents=True)
    (run.directory / "record.json").write_text(json.dumps(record_content(run, 0.3)))
    (run.directory / "log.jsonl").write_text('{"step": 10, "train/loss": 1.0}\n')
    with pytest.raises(UserError, match=r"log\.jsonl: nothing is logged as 'ap_value'"):
        local(run, "ap_value")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: candidates", "kind: bars", "kind: 'bars' is not one of curves, candidates, balance, "),
        ("quantity:", "quantty:", "unknown key 'quantty'"),
        ("[75, 150, null]", "[150, 75]", "candidates.mini: expected ascending whole numbers"),
        ("[75, 150, null]", "[null, 75]", "candidates.mini: null, which stands for all, comes once and last"),
        ("{candidates: 75}", "{candidates: 80}", "snapshot.mini.candidates: 80 is not among candidates.mini"),
        ("overrides: [loss=ap]", "overrides: [batch_size=2]", "series.error-driven.overrides: name the loss"),
        ("[one_class=true]", "[seed=3]", "ranker: 'seed=3' is not a row's to set"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "seeds: expected different whole numbers"),
        ("series:\n", "series: []\nrest:\n", "unknown key 'rest'"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, old, new, message):
    path = tmp_path / "figure-2.yaml"
    path.write_text(CANDIDATES)
    assert load_figure(path).spec.counts["mini"] == (75, 150, None)
    assert old in CANDIDATES
    path.write_text(CANDIDATES.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        load_figure(path)
    assert message in str(caught.value)
    assert "figure-2.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["figure-9"], "figure-9.yaml: no such manifest; there are: figure-1, figure-2, figure-3"),
        (["figure-1", "--protocol", "tiny"], "PROTOCOL=tiny"),
        (["figure-1", "--protocol", "paper", "--data", "shapes"], "PROTOCOL=paper: the drawn set is for mini"),
        (["figure-1", "--data", "nowhere"], "DATA=nowhere"),
    ],
)
def test_mistakes_in_the_command_are_one_line(root, front_end, capsys, arguments, message):
    assert front_end("figure")(arguments, root) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_the_manifests_of_the_checkout(repo, tmp_path):
    """Every figure's settings compose; figure 13's points are table 14's runs, and one seed trains 24 for figure 8."""
    folder = repo / "experiments" / "ap-loss"
    figures = {path.stem: load_figure(path) for path in sorted(folder.glob("figure-*.yaml"))}
    numbers = ("1", "3", "4", "5", "6a", "6b", "7", "8a", "8b", "9", "10", "11", "12", "13")
    assert set(figures) == {f"figure-{number}" for number in numbers}
    series = {name: list(figures[name].series) for name in ("figure-8a", "figure-8b")}
    assert series["figure-8a"] == series["figure-8b"]
    plan = make_figure_plan(figures["figure-8a"], "mini", choose_data("shapes"), tmp_path)
    assert len(plan.cold) == 3 and len(list(stages(plan, lambda run, quantity: None))[-1]) == 9
    rows = {row for one in figures["figure-13"].series.values() for row in one.rows}
    assert len(rows) == 12
