"""Figures from rows of a table: AP at snapshots, anchors, times of steps. Trainings are stand-ins, or tiny."""

import csv
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from paper_made_up import TABLE_OF_BATCH_SIZES, make_experiments
from results_made_up import record_content, trained_run

from rankdet.errors import UserError
from rankdet.figures.against_overlap import shares
from rankdet.figures.against_snapshots import seen
from rankdet.figures.anchors import CountedRun, count, counted
from rankdet.figures.detections import look
from rankdet.figures.kinds import reproduction
from rankdet.figures.manifest import load_figure
from rankdet.report.score_distributions import BINS
from rankdet.results import launch
from rankdet.results.datasets import choose_data
from rankdet.results.records import Record

SERIES = """
series:
  one: {label: one image, fact: below, row: batch-1}
  eight: {label: eight images, fact: above, row: batch-8}
"""
SNAPSHOTS = f"""
title: AP at snapshots
kind: snapshots
table: table-1
overrides: [splits.train=train, splits.monitor=val, splits.test=val]
mini_overrides: [schedule.monitor_every=400]
{SERIES}"""
ANCHORS = f"title: Scores\nkind: anchors\ntable: table-1\n{SERIES}"
PICTURES = """
title: Pictures
kind: pictures
table: table-1
images: 2
skip: 1
series:
  one: {label: one image, fact: nothing, row: batch-1}
  eight: {label: eight images, fact: nothing, row: batch-8}
"""
COURSE = """
title: Times
kind: course
table: table-1
row: batch-8
series:
  loss: {label: AP-loss, fact: falls}
  step: {label: whole step, fact: follows}
"""
WRITE = """
import json, sys
directory, record, log, config = sys.argv[1:]
open(f"{directory}/log.jsonl", "w").write(log)
open(f"{directory}/config.yaml", "w").write(config)
open(f"{directory}/record.json", "w").write(record)
"""


@pytest.fixture
def root(repo, tmp_path):
    """A checkout with a table and a figure of each kind."""
    figures = {"figure-5": PICTURES, "figure-6": SNAPSHOTS, "figure-7": ANCHORS, "figure-10": COURSE}
    return make_experiments(repo, tmp_path, {"table-1": TABLE_OF_BATCH_SIZES} | figures)


@pytest.fixture
def figure(front_end):
    """The command."""
    return front_end("figure")


@pytest.fixture
def publish(front_end):
    """root and names -> publishes these figures under mini on the drawn set."""
    main = front_end("publish")

    def run(root, *names):
        lines = [f"- {{paper: ap-loss, figure: {name}, protocol: mini, data: shapes}}\n" for name in names]
        (root / "experiments" / "published.yaml").write_text("".join(lines))
        assert main(root) == 0

    return run


def ap_of(run):
    """AP at steps 100, 200 and 300: one image 0.1, 0.3, 0.4; eight 0.2, 0.2, 0.5; seed 1 two hundredths above."""
    curve = (0.1, 0.3, 0.4) if "batch_size=1" in run.overrides else (0.2, 0.2, 0.5)
    return [value + run.seed / 50 for value in curve]


@pytest.fixture
def started(monkeypatch):
    """Replaces the training by a program that writes record, log and config; the runs that were started."""
    found = []

    def command(run, gpus=0):
        if not run.finished:
            found.append(run)
        *seen_before, last = ap_of(run)
        log = [
            {"step": step, "val/AP": ap, "val/AP50": 2 * ap, "speed/images_per_s": 8 / (0.1 + step / 1000),
             "speed/share_loss": 0.25}
            for step, ap in zip((100, 200), seen_before, strict=True)
        ]  # fmt: skip
        record = record_content(run, last, split="val", steps=300, config_hash=run.config_hash)
        config = {"batch_size": 8, "loss": {"_target_": "rankdet.losses.ap.APLoss"}}
        texts = json.dumps(record), "".join(f"{json.dumps(line)}\n" for line in log), OmegaConf.to_yaml(config)
        return [sys.executable, "-c", WRITE, str(run.directory), *texts]

    monkeypatch.setattr(launch, "command", command)
    return found


def table_of(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestSnapshots:
    def test_from_log_and_record_and_as_published(self, root, figure, publish, started, capsys):
        """Means over the seeds: 0.11, 0.31, 0.41 and 0.21, 0.21, 0.51. Eight leads at 100 and at last, one at 200."""
        assert figure(["figure-6"], root) == 0
        out = capsys.readouterr().out
        assert [(run.label, run.seed) for run in started] == [
            ("one image", 0), ("eight images", 0), ("one image", 1), ("eight images", 1),
        ]  # fmt: skip
        wanted = {"splits.train=train", "splits.monitor=val", "splits.test=val", "schedule.monitor_every=400"}
        assert all(wanted <= set(run.overrides) and run.train_split == "train" for run in started)
        assert "highest mean of 2 at 1 of 3 snapshots; at last 41.0 ± 1.4" in out
        assert "highest mean of 2 at 2 of 3 snapshots; at last 51.0 ± 1.4" in out
        assert re.search(r"\| one image +\| +11.0 ± 1.4 \| +31.0 ± 1.4 \| +41.0 ± 1.4 \| +82.0 ± 2.8 \| +2 \|", out)
        assert "trainings of their own" in out and "reported on val" in out
        points = table_of(root / "runs/figures/ap-loss/figure-6.mini.csv")
        assert len(points) == 2 * 2 * 3
        assert points[2] == {"series": "one", "seed": "0", "step": "300", "AP": "0.4", "AP50": "0.8"}
        publish(root, "figure-6")
        ours = files_in(root / "runs/figures/ap-loss")
        assert len(ours) == 4
        committed = files_in(root / "experiments" / "ap-loss")
        assert {name: committed[name] for name in ours} == ours
        before = files_in(root / "experiments")
        shutil.rmtree(root / "runs")
        publish(root, "figure-6")
        assert files_in(root / "experiments") == before

    def test_the_users_settings_come_last_and_an_unwatched_run_is_named(self, root):
        manifest = load_figure(root / "experiments/ap-loss/figure-6.yaml")
        made = reproduction(manifest, "mini", choose_data("shapes"), root, ("schedule.monitor_every=80",))
        (run, _) = made.of.series()["one"]
        assert "schedule.monitor_every=80" in run.overrides and "schedule.monitor_every=400" not in run.overrides
        assert seen(run, "AP") is None
        run.directory.mkdir(parents=True)
        (run.directory / "record.json").write_text(json.dumps(record_content(run, 0.3, split="val")))
        (run.directory / "log.jsonl").write_text('{"step": 100, "train/loss": 1.0}\n')
        with pytest.raises(UserError, match=r"log\.jsonl: nothing is logged as 'val/AP'; remove the run"):
            seen(run, "AP")

    def test_nothing_run(self, root, figure, monkeypatch, capsys):
        monkeypatch.setattr(launch, "command", lambda run, gpus=0: [sys.executable, "-c", "raise SystemExit(1)"])
        assert figure(["figure-6"], root) == 1
        out, err = capsys.readouterr()
        assert re.search(r"\| one image +\| below +\| not run +\|", out) and "4 runs failed" in err
        assert (root / "runs/figures/ap-loss/figure-6.mini.png").stat().st_size > 0

    @pytest.mark.full
    def test_one_series_alone_leads(self, root, figure, started, monkeypatch, capsys):
        """Of the other none is finished, and it leads nowhere."""
        stand_in = launch.command
        fails = [sys.executable, "-c", "raise SystemExit(1)"]
        monkeypatch.setattr(launch, "command", lambda run, gpus=0: stand_in(run) if run.label == "one image" else fails)
        assert figure(["figure-6"], root) == 1
        out = capsys.readouterr().out
        assert "highest mean of 1 at 3 of 3 snapshots" in out
        assert re.search(r"\| eight images +\| +- \| +- \| +- \| +- \| +0 \| not run +\|", out)


class TestCourse:
    def test_times_of_the_tables_own_run(self, root, figure, publish, started, capsys):
        """8 images at 40 a second and 8 / 0.3: steps of 0.2 and 0.3 s, a quarter of each the loss's."""
        assert figure(["figure-10"], root) == 0
        out = capsys.readouterr().out
        (run,) = started
        assert run.seed == 0 and "splits.test=val" not in run.overrides
        assert "from 50.0 ms at first to 75.0 ms at last, 25 % of the whole step" in out
        assert re.search(r"\| whole step +\| +200.0 \| +300.0 \| +200.0 \| +300.0 \|", out)
        points = table_of(root / "runs/figures/ap-loss/figure-10.mini.csv")
        assert points[1] == {"series": "loss", "step": "200", "seconds": "0.075"}
        publish(root, "figure-10")
        before = files_in(root / "experiments")
        shutil.rmtree(root / "runs")
        publish(root, "figure-10")
        assert files_in(root / "experiments") == before
        published = (root / "experiments/ap-loss/figure-10.mini.md").read_text()
        assert "25 % of the whole step" in published

    @pytest.mark.full
    def test_two_figures_of_one_run_keep_both_curves(self, root, figure, publish, started):
        """Snapshots without overrides are the table's own runs, of which the times are published, too."""
        path = root / "experiments/ap-loss/figure-6.yaml"
        path.write_text(re.sub(r"(mini_)?overrides: .*\n", "", path.read_text()))
        assert figure(["figure-6"], root) == 0
        publish(root, "figure-6", "figure-10")
        (curves,) = (
            json.loads(file.read_text())["curves"]
            for file in (root / "experiments/records/shapes/mini/curves").glob("*-seed0.json")
            if len(json.loads(file.read_text())["curves"]) > 2
        )
        assert sorted(curves) == ["AP", "AP50", "loss_seconds", "step_seconds"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 4 steps, finished, as a plan would have it."""
    return trained_run(tmp_path_factory.mktemp("tiny"))


class TestAnchors:
    def test_shares_by_hand(self):
        """On objects: bins 45, 20, 10, 10 of 50. Half of the four are 2, which bin 20 on holds, so from 0.4 on: there
        3 anchors of background for the 2 kept. At 0.5 or more one of background, 1000 / 4. Strip: up to bin 30."""
        overlap = np.zeros((BINS, BINS), np.int64)
        overlap[30, [45, 20]], overlap[25, 10] = 1, 2
        overlap[4, 20], overlap[0, 30], overlap[5, 40], overlap[24, 49] = 2, 1, 9, 9  # the last two lie between
        found = shares(overlap)
        assert (found.likely, found.threshold, found.at_kept) == (250.0, 0.4, 1.5)
        assert (found.sure, found.strip) == (0.25, 0.62)
        assert shares(np.zeros((BINS, BINS), np.int64)) is None

    def test_a_trained_run_is_counted_once(self, trained):
        """Every anchor of the 9 test images: 6 a cell at strides 8, 16 and 32 of 96 x 128, 192 + 48 + 12 cells."""
        count(trained)
        found = counted(trained)
        assert found.num_images == 9
        assert found.overlap.sum() == 9 * 6 * (192 + 48 + 12)
        assert found.record["split"] == "test"

    @pytest.mark.full
    def test_counts_from_here_and_as_published(self, root, figure, publish, started, trained, capsys):
        """The stand-in's runs get the tiny run's counts; what is published needs neither runs nor weights."""
        count(trained)
        manifest = load_figure(root / "experiments/ap-loss/figure-7.yaml")
        runs = reproduction(manifest, "mini", choose_data("shapes"), root).of.series()
        for run in runs["one"]:
            run.directory.mkdir(parents=True)
            (run.directory / "record.json").write_text(json.dumps(record_content(run, 0.3)))
            shutil.copy(trained.directory / "anchors.json", run.directory)
        publish(root, "figure-7")
        text = (root / "experiments/ap-loss/figure-7.mini.md").read_text()
        assert re.search(r"\| eight images +\| above +\| not run +\|", text)
        assert "All anchors of the first 9 images of the test split" in text
        points = table_of(root / "experiments/ap-loss/figure-7.mini.csv")
        assert sum(int(point["anchors"]) for point in points) == 2 * 9 * 6 * 252
        assert {point["series"] for point in points} == {"one"}
        before = files_in(root / "experiments")
        shutil.rmtree(root / "runs")
        publish(root, "figure-7")
        assert files_in(root / "experiments") == before

    def test_runs_without_weights_are_one_line(self, root, figure, started, capsys):
        assert figure(["figure-7"], root) == 2
        assert len(started) == 4
        err = capsys.readouterr().err
        assert re.search(r"error: .*weights\.pt: not there, so the run is not finished", err)
        assert not (root / "runs" / "figures").exists()

    @pytest.mark.parametrize(
        ("counts", "message"),
        [({"overlap": []}, "key 'num_images' is missing"), ({"num_images": 1, "overlap": ["1 2"]}, "expected 50 x 50")],
    )
    def test_other_counts_are_refused(self, counts, message):
        with pytest.raises(UserError, match=message):
            CountedRun(Record(Path("record.json"), {}), counts, Path("anchors.json"))


class TestPictures:
    @pytest.mark.full
    def test_drawn_where_all_runs_are_there(self, root, publish, trained):
        """The second and the third of the tiny run's nine images; right and missed ones are their objects. Nothing is
        written before both runs are finished."""
        manifest = load_figure(root / "experiments/ap-loss/figure-5.yaml")
        made = reproduction(manifest, "mini", choose_data("shapes"), root)
        for run in made.runs.values():
            publish(root, "figure-5")
            assert not list((root / "experiments/ap-loss").glob("figure-5.mini*"))
            shutil.copytree(trained.directory, run.directory, ignore=shutil.ignore_patterns("checkpoints"))
        publish(root, "figure-5")
        folder = root / "experiments/ap-loss"
        assert sorted(path.name for path in folder.glob("figure-5.mini*")) == [
            "figure-5.mini.csv", "figure-5.mini.md", "figure-5.mini.png",
        ]  # fmt: skip
        points = table_of(folder / "figure-5.mini.csv")
        assert [(point["series"], point["image"]) for point in points] == [
            (series, f"test_0000{index}.png") for series in ("one", "eight") for index in (1, 2)
        ]
        found = look(made.runs["one"], manifest.spec)
        objects = [int((~record.difficult).sum()) for record in found.split.records[1:3]]
        assert [int(point["right"]) + int(point["missed"]) for point in points[:2]] == objects

    def test_what_cannot_be_drawn_is_one_line(self, root, trained):
        spec = load_figure(root / "experiments/ap-loss/figure-5.yaml").spec
        with pytest.raises(UserError, match="test has 9 images, and the figure shows more"):
            look(trained, replace(spec, num_images=9))
        copied = shutil.copytree(trained.directory, root / "copied", ignore=shutil.ignore_patterns("evaluation"))
        with pytest.raises(UserError, match=r"detections\.json: not there; remove the run"):
            look(replace(trained, directory=copied), spec)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("figure-5", "images: 2", "images: 0", "images: expected a whole number from 1 on, got 0"),
        ("figure-6", "row: batch-8", "row: batch-9", "series.eight.row: 'batch-9' is no row with runs of the table"),
        ("figure-6", "splits.test=val]", "seed=3]", "overrides: 'seed=3' is not a row's to set"),
        ("figure-7", "kind: anchors", "kind: anchors\noverrides: []", "unknown key 'overrides'"),
        ("figure-10", "row: batch-8", "row: batch-9", "row: 'batch-9' is no row with runs of the table"),
    ],
)
def test_mistakes_name_file_and_key(root, figure, capsys, name, old, new, message):
    path = root / "experiments" / "ap-loss" / f"{name}.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert figure([name, "--dry-run"], root) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"{name}.yaml" in err and message in err
