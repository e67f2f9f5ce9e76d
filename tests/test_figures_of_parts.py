"""Figures of what trainings log of their losses: components of a table's rows, and the balance of gradients."""

import csv
import io
import json
import re
import shutil
import sys

import pytest
from paper_made_up import TABLE_OF_BATCH_SIZES, make_experiments
from results_made_up import record_content

from rankdet.figures.kinds import reproduction
from rankdet.figures.manifest import load_figure
from rankdet.results import launch
from rankdet.results.datasets import choose_data

COMPONENTS = """
title: Parts of a loss
kind: components
table: table-1
panels: {ap+box: both, box: the boxes' part}
series:
  one: {label: one image, fact: below, row: batch-1}
  eight: {label: eight images, fact: above, row: batch-8}
"""
BALANCE = """
title: Balance
kind: balance
experiment: alrp_figure_4
seeds: [0, 1]
data: {paper: coco2017}
parts: {focal: focal, alrp: alrp_cls}
series:
  focal: {label: Focal, fact: swings, overrides: [loss=focal]}
  alrp: {label: aLRP, fact: stays, overrides: [loss=alrp, box_loss=none]}
"""
WRITE = """
import json, sys
directory, record, log = sys.argv[1:]
open(f"{directory}/log.jsonl", "w").write(log)
open(f"{directory}/record.json", "w").write(record)
"""
STEPS = (10, 20, 90, 100)


@pytest.fixture
def root(repo, tmp_path):
    """A checkout with a table and a figure of each kind."""
    figures = {"figure-1": COMPONENTS, "figure-2": BALANCE}
    return make_experiments(repo, tmp_path, {"table-1": TABLE_OF_BATCH_SIZES} | figures)


def logged(run):
    """Parts by step. Ranking 1.0 to 0.3 and boxes 0.4 to 0.1, a tenth more for seed 1; focal loss pushes negatives by
    3, 1, 1 and 2 and positives by 1, 2, nothing and 1; aLRP both alike."""
    more = run.seed / 10
    parts = {"ap": [1.0, 0.8, 0.5, 0.3], "box": [0.4, 0.4, 0.2, 0.1]}
    parts |= {"focal": [2.0, 1.0, 0.5, 0.5], "alrp_cls": [1.0, 0.9, 0.8, 0.6]}
    sides = ([3, 1, 1, 2], [1, 2, 0, 1]) if "loss=focal" in run.overrides else ([0.5, 0.4, 0.3, 0.2],) * 2
    parts = {name: [value + more for value in values] for name, values in parts.items()}
    return parts | dict(zip(("gradient_negatives", "gradient_positives"), sides, strict=True))


@pytest.fixture
def started(monkeypatch):
    """Replaces the training by a program that writes record and log; the runs that were started."""
    found = []

    def command(run, gpus=0):
        if not run.finished:
            found.append(run)
        lines = [
            json.dumps({"step": step} | {f"train/{name}": values[place] for name, values in logged(run).items()})
            for place, step in enumerate(STEPS)
        ]
        record = json.dumps(record_content(run, 0.3, steps=100, config_hash=run.config_hash))
        return [sys.executable, "-c", WRITE, str(run.directory), record, "\n".join(lines)]

    monkeypatch.setattr(launch, "command", command)
    return found


def points(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def published(front_end, root, name):
    """The figure's files from committed records alone."""
    (root / "experiments" / "published.yaml").write_text(
        f"- {{paper: ap-loss, figure: {name}, protocol: mini, data: shapes}}\n"
    )
    assert front_end("publish")(root) == 0
    shutil.rmtree(root / "runs" / "shapes")
    assert front_end("publish")(root) == 0
    stem = f"{name}.mini"
    return {path.name: path.read_bytes() for path in (root / "experiments" / "ap-loss").glob(f"{stem}.*")}


def made(root, name):
    return {path.name: path.read_bytes() for path in (root / "runs/figures/ap-loss").glob(f"{name}.*")}


def test_components_of_the_tables_own_runs(root, front_end, started, capsys):
    """Seeds 0 and 1: boxes 0.45 at first and after 20 steps, 0.15 at last; with the ranking's 1.05, 0.85 and 0.35."""
    assert front_end("figure")(["figure-1"], root) == 0
    out = capsys.readouterr().out
    assert [(run.label, run.seed) for run in started] == [
        ("batch-1", 0),
        ("batch-8", 0),
        ("batch-1", 1),
        ("batch-8", 1),
    ]
    assert (
        "the boxes' part 0.450 ± 0.071 at first, 0.450 ± 0.071 after 20% of the steps, 0.150 ± 0.071 at last (n = 2)"
        in out
    )
    assert "both 1.500 ± 0.141 at first, 1.300 ± 0.141 after 20% of the steps, 0.500 ± 0.141 at last; the box" in out
    assert re.search(r"\| one image +\| +1.500 ± 0.141 \| +0.500 ± 0.141 \| +0.450 ± 0.071 \|", out)
    rows = points(root / "runs/figures/ap-loss/figure-1.mini.csv")
    assert len(rows) == 2 * 2 * 4
    assert rows[3] == {"series": "one", "seed": "0", "step": "100", "both": "0.4", "the boxes' part": "0.1"}
    ours = made(root, "figure-1.mini")
    assert len(ours) == 4
    assert published(front_end, root, "figure-1") == ours


def test_balance_of_trainings_of_its_own(root, front_end, started, capsys):
    """Focal loss: 3/1, 1/2, none where nothing is positive, and 2/1, so from a point to the next 6 times; aLRP 1."""
    assert front_end("figure")(["figure-2"], root) == 0
    out = capsys.readouterr().out
    assert [run.label for run in started] == ["focal", "alrp"] * 2
    assert all("experiment=alrp_figure_4" in run.overrides for run in started)
    swings, stays = "6 times higher or lower; loss from 2.05 to 0.55", "1 times higher or lower; loss from 1.05 to 0.65"
    assert f"ratio 2 in the median, 0.5 to 3 in nine of ten points, from one point to the next {swings} (n = 2)" in out
    assert f"ratio 1 in the median, 1 to 1 in nine of ten points, from one point to the next {stays} (n = 2)" in out
    assert "loss: focal of Focal, alrp_cls of aLRP." in out
    rows = points(root / "runs/figures/ap-loss/figure-2.mini.csv")
    assert [row["ratio"] for row in rows if (row["series"], row["seed"]) == ("focal", "1")] == [
        "3.0",
        "0.5",
        "nan",
        "2.0",
    ]
    ours = made(root, "figure-2.mini")
    assert len(ours) == 4
    assert published(front_end, root, "figure-2") == ours


def test_what_is_not_run_is_said(root, front_end, monkeypatch, capsys):
    monkeypatch.setattr(launch, "command", lambda run, gpus=0: [sys.executable, "-c", "raise SystemExit(1)"])
    for name in ("figure-1", "figure-2"):
        assert front_end("figure")([name], root) == 1
        out, err = capsys.readouterr()
        assert "4 runs failed" in err
        assert len(re.findall(r"\| not run +\|", out)) == 4  # in the points and beside the paper's words
        assert (root / f"runs/figures/ap-loss/{name}.mini.png").stat().st_size > 0


def test_the_data_set_where_none_is_asked_for(root):
    manifest = load_figure(root / "experiments/ap-loss/figure-2.yaml")
    for protocol, own in (("mini", "shapes"), ("paper", "coco2017")):
        assert reproduction(manifest, protocol, None, root).edition.data == own
    assert reproduction(manifest, "mini", choose_data("shapes_small"), root).edition.data == "shapes_small"


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("figure-1", "panels: {ap+box: both, box: the boxes' part}", "panels: [ap]", "panels: expected a mapping"),
        ("figure-1", "panels:", "panel:", "unknown key 'panel'"),
        ("figure-2", "parts: {focal: focal, ", "parts: {", "parts: key 'focal' is missing"),
        ("figure-2", "{focal: focal, ", "{focal: focal, ce: ce, ", "parts: unknown key 'ce'"),
        ("figure-2", "data: {paper: coco2017}", "data: {papers: coco2017}", "data: unknown key 'papers'"),
        ("figure-2", "data: {paper: coco2017}", "data: {mini: nowhere}", "DATA=nowhere: no such folder"),
    ],
)
def test_mistakes_in_a_manifest_name_the_key(root, front_end, capsys, name, old, new, message):
    path = root / "experiments" / "ap-loss" / f"{name}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert front_end("figure")([name], root) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_part_that_was_not_logged_is_named(root, front_end, started, capsys):
    path = root / "experiments" / "ap-loss" / "figure-1.yaml"
    path.write_text(path.read_text().replace("ap+box:", "ap+boxes:"))
    assert front_end("figure")(["figure-1"], root) == 2
    assert "log.jsonl: nothing is logged as 'boxes'; remove the run" in capsys.readouterr().err
