"""Sweeps over a finished run: what is swept, rows that equal single evaluations, resuming, tables, mistakes."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
import tiny
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from rankdet import evaluate, sweep
from rankdet.build import build_detector, open_source
from rankdet.config import compose, config_hash
from rankdet.errors import UserError
from rankdet.results import sweep_table
from rankdet.results.sweep_table import SweepTable, csv_text, markdown, plot_sweep
from rankdet.sweep import axes_of

THRESHOLDS = "evaluation.score_threshold=0.0,0.95,0.99"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of random weights whose scores spread from 0 to 1, older than test_input."""
    folder = tmp_path_factory.mktemp("finished")
    cfg = compose(tiny.overrides(folder, "prior=0.5", "evaluation.pre_nms_top=20", "data.source.num_test=3"))
    split = open_source(cfg).read("test")
    torch.manual_seed(0)
    model = build_detector(cfg, len(split.classes)).model
    nn.init.normal_(model.heads.class_output.weight, std=1.0)
    weights = {"model": model.state_dict(), "classes": split.classes, "category_ids": split.category_ids}
    directory = folder / "run" / "seed0"
    directory.mkdir(parents=True)
    torch.save(weights, directory / "weights.pt")
    older = OmegaConf.to_container(cfg)
    del older["test_input"]
    OmegaConf.save(OmegaConf.create(older), directory / "config.yaml")
    return directory


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it that a test may write to."""
    directory = tmp_path / "run" / "seed0"
    shutil.copytree(finished, directory)
    return directory


@pytest.fixture(scope="module")
def command(front_end):
    """Runs scripts/sweep.py in this process."""
    main = front_end("sweep")
    return lambda *arguments: tiny.call(main, [*arguments, "device=cpu"])


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Drawing a plot takes longer than all else here; test_the_plot wants it."""
    if "plot" not in request.node.name:
        monkeypatch.setattr(sweep_table, "plot_sweep", lambda table, path: path.write_bytes(b"drawn"))


@pytest.fixture
def passes(monkeypatch):
    """How many rows each pass over the images served."""
    served = []

    def assess_by_rules(*arguments, measured=sweep.assess_by_rules, **keywords):
        served.append(len(arguments[4]))
        return measured(*arguments, **keywords)

    monkeypatch.setattr(sweep, "assess_by_rules", assess_by_rules)
    return served


def rows_of(directory, stem):
    with (directory / "evaluation" / "test-sweeps" / f"{stem}.csv").open() as file:
        return list(csv.DictReader(file))


class TestAxes:
    """What stands on the command line."""

    def test_several_values_make_an_axis(self):
        inputs = ["test_input=stretch", "test_input.scales=[1.0],[0.5,1.0]"]
        axes, fixed = axes_of(["data.root=a,b", "evaluation.nms_iou=0.4,0.5,0.4", *inputs])
        assert axes == {"evaluation.nms_iou": ["0.4", "0.5"], "test_input.scales": ["[1.0]", "[0.5,1.0]"]}
        assert fixed == ["data.root=a,b", "test_input=stretch"]
        assert axes_of(["evaluation.nms_iou=range(0.2,0.8,0.2)"])[0]["evaluation.nms_iou"][0] == "0.2"

    @pytest.mark.parametrize(
        ("overrides", "named"),
        [
            ([], "give several values to a setting, e.g. evaluation"),
            (["evaluation.nms_iou=0.4"], "give several values"),
            (
                ["loss.delta=0.5,1"],
                r"loss\.delta=0\.5,1: a finished run is tested by test_input and evaluation",
            ),
            (["loss.delta=0.5", THRESHOLDS], r"loss\.delta=0\.5: "),
            (["evaluation.nms_iou=[0.4,"], r"evaluation\.nms_iou=\[0\.4,: "),
        ],
    )
    def test_mistakes(self, overrides, named):
        with pytest.raises(UserError, match=named) as caught:
            axes_of(overrides)
        assert "\n" not in str(caught.value)


class TestSweep:
    """scripts/sweep.py."""

    def test_rows_equal_single_evaluations(self, run, command, passes, tmp_path):
        """Three thresholds by one pass; each row is what `evaluate` with that setting writes."""
        done = command(f"run={run}", THRESHOLDS)
        assert done.code == 0, done.err
        assert passes == [3]
        rows = rows_of(run, "score_threshold")
        assert [row["evaluation.score_threshold"] for row in rows] == ["0.0", "0.95", "0.99"]
        for row in rows:
            threshold = f"evaluation.score_threshold={row['evaluation.score_threshold']}"
            single = tiny.call(evaluate.main, [f"run={run}", threshold, "device=cpu", f"output={tmp_path / 'one'}"])
            assert single.code == 0, single.err
            metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
            assert {key: row[key] for key in metrics} == {k: "" if v is None else str(v) for k, v in metrics.items()}
        assert len({row["AP50"] for row in rows}) > 1
        folder = run / "evaluation" / "test-sweeps"
        assert {path.name for path in folder.iterdir()} == {
            "rows",
            *(f"score_threshold.{s}" for s in ("csv", "md", "png")),
        }
        assert (folder / "score_threshold.md").read_text().startswith(done.out.partition("saved ")[0].rstrip())

    def test_a_row_says_what_it_was_measured_with(self, run, command):
        assert command(f"run={run}", "test_input=stretch,keep_aspect", "evaluation.nms_iou=0.3,0.5").code == 0
        records = [json.loads(path.read_text()) for path in (run / "evaluation" / "test-sweeps" / "rows").iterdir()]
        assert len(records) == 4
        own = config_hash(OmegaConf.load(run / "config.yaml"))
        (as_the_run,) = (record for record in records if record["config_hash"] == own)
        assert (as_the_run["test_input"], as_the_run["evaluation"]["nms_iou"]) == ({}, 0.5)
        assert {record["test_input"].get("shorter") for record in records} == {None, 96}
        assert {record["pass_rows"] for record in records} == {2}
        assert len({record["data_hash"] for record in records}) == 1
        assert (
            "Row 2 is tested as the run itself was."
            in (run / "evaluation" / "test-sweeps" / "test_input-nms_iou.md").read_text()
        )

    def test_what_is_there_is_not_measured_again(self, run, command, passes):
        """Neither the same rows nor those of another sweep; more values cost only these; other weights all of them."""
        arguments = (f"run={run}", "test_input=stretch,keep_aspect")
        assert command(*arguments, "evaluation.nms_iou=0.5,0.4").code == 0
        assert passes == [2, 2]
        first = (run / "evaluation" / "test-sweeps" / "test_input-nms_iou.csv").read_bytes()
        assert command(*arguments, "evaluation.nms_iou=0.5,0.4").err == ""
        assert (run / "evaluation" / "test-sweeps" / "test_input-nms_iou.csv").read_bytes() == first
        assert command(*arguments).code == 0
        assert passes == [2, 2]
        assert command(*arguments, "evaluation.nms_iou=0.4,0.6").code == 0
        assert passes == [2, 2, 1, 1]
        weights = torch.load(run / "weights.pt")
        weights["model"]["heads.class_output.bias"] += 1
        torch.save(weights, run / "weights.pt")
        assert command(*arguments).code == 0
        assert passes == [2, 2, 1, 1, 1, 1]

    def test_broken_off_it_goes_on(self, run, command, monkeypatch):
        """Ctrl-C in the second of two passes: the first one's rows stay, and only the other's are left to do."""
        measured, calls = sweep.assess_by_rules, []

        def interrupted(*arguments, **keywords):
            calls.append(len(arguments[4]))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return measured(*arguments, **keywords)

        monkeypatch.setattr(sweep, "assess_by_rules", interrupted)
        arguments = (f"run={run}", "test_input=stretch,keep_aspect", THRESHOLDS)
        done = command(*arguments)
        assert (done.code, done.err.splitlines()[-1]) == (130, "interrupted")
        folder = run / "evaluation" / "test-sweeps"
        assert len(list((folder / "rows").iterdir())) == 3
        assert [path.name for path in folder.iterdir()] == ["rows"]
        done = command(*arguments)
        assert done.code == 0
        assert calls == [3, 3, 3]
        assert done.err.splitlines()[-1].startswith("[3/3] ")
        assert len(rows_of(run, "test_input-score_threshold")) == 6

    def test_other_settings_have_files_of_their_own(self, run, command):
        assert command(f"run={run}", "evaluation.detections=1,2").code == 0
        assert command(f"run={run}", "evaluation.detections=1,2", "test_input=keep_aspect").code == 0
        tables = sorted((run / "evaluation" / "test-sweeps").glob("*.md"))
        assert len(tables) == 2
        assert "In every row: test_input=keep_aspect." in tables[0].read_text()

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["evaluation.nms_iou=0.4,7"], r"evaluation.nms_iou=7"),
            (["evaluation.nms_uio=0.4,0.5"], "nms_uio"),
            (["test_input=stretch,short_700"], "short_700"),
            (["test_input.shorter=96,100"], "test_input.shorter=96: the run's test stretches its images"),
            (["test_input=keep_aspect", "test_input.stride=32,0"], "test_input.stride=0"),
            ([THRESHOLDS, "split=tset"], "tset"),
            ([THRESHOLDS, "threshold"], "threshold: settings are written key=value"),
        ],
    )
    def test_mistakes_are_one_line_and_leave_nothing(self, run, command, arguments, named):
        done = command(f"run={run}", *arguments)
        assert done.code == 2
        assert named in done.err
        assert done.err.count("\n") == 1
        assert not (run / "evaluation").exists()

    def test_a_run_that_is_none(self, run, command, tmp_path):
        assert "run= is empty" in command("run=", THRESHOLDS).err
        assert "config.yaml: no such file" in command(f"run={tmp_path / 'none'}", THRESHOLDS).err
        (run / "weights.pt").unlink()
        assert "weights.pt: not there, so the run is not finished" in command(f"run={run}", THRESHOLDS).err

    def test_a_damaged_row_is_named(self, run, command):
        assert command(f"run={run}", "evaluation.nms_iou=0.4,0.5").code == 0
        row = next((run / "evaluation" / "test-sweeps" / "rows").iterdir())
        row.write_text(row.read_text()[:100])
        done = command(f"run={run}", "evaluation.nms_iou=0.4,0.5")
        assert done.code == 2
        assert row.name in done.err

    @pytest.mark.full
    def test_two_processes_measure_the_same(self, run, repo, command):
        """Under torchrun, with shapes of two kinds of views."""
        arguments = [f"run={run}", "test_input=keep_aspect_multi", THRESHOLDS]
        assert command(*arguments).code == 0
        (table,) = (run / "evaluation" / "test-sweeps").glob("*.csv")
        alone = [{k: v for k, v in row.items() if k.startswith("AP")} for row in rows_of(run, table.stem)]
        shutil.rmtree(run / "evaluation")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        line = [*torchrun, repo / "scripts" / "sweep.py", *arguments, "device=cpu"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300, env=os.environ | tiny.ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        for ours, theirs in zip(rows_of(run, table.stem), alone, strict=True):
            for key, value in theirs.items():
                assert (ours[key] == value == "") or float(ours[key]) == pytest.approx(float(value), abs=1e-4), key


def made_table(axes, aps):
    """Rows with these AP; AP75 is undefined."""
    record = {
        "config_hash": "c", "data_hash": "d", "weights_hash": "w", "data_name": "made", "split": "test",
        "num_images": 4, "pass_seconds": 2.0, "pass_rows": 1, "date": "2026-01-01", "hardware": "a machine",
        "torch": "2", "threads": 1, "world_size": 2, "commit": None, "dirty": None,
    }  # fmt: skip
    records = [
        record | {"config_hash": f"c{place}", "metrics": {"AP": ap, "AP50": 2 * ap, "AP75": None}}
        for place, ap in enumerate(aps)
    ]
    return SweepTable("runs/made/run/seed0", axes, records, [], "c1")


def test_the_table_s_cells():
    """AP 0.123456 is 12.35 percent and stays 0.123456 in the CSV; undefined or missing metrics are dashes."""
    table = made_table([{"evaluation.nms_iou": 0.4}, {"evaluation.nms_iou": 0.5}], [0.123456, 0.2])
    lines = markdown(table).splitlines()
    assert [cell.strip() for cell in lines[4].split("|")][1:-1] == ["0.4", "12.35", "24.69", *["-"] * 6, "0.500"]
    assert "- Row 2 is tested as the run itself was." in lines
    assert "2 processes" in markdown(table)
    rows = list(csv.DictReader(csv_text(table).splitlines()))
    assert [row["AP"] for row in rows] == ["0.123456", "0.2"]
    assert (rows[0]["AP75"], rows[1]["config_hash"]) == ("", "c1")


@pytest.mark.parametrize(
    "axes",
    [
        [{"evaluation.nms_iou": value} for value in (0.6, 0.4, 0.5, 0.3)],
        [{"test_input": value} for value in ("stretch", "keep_aspect", "short_500", "short_600")],
        [
            {"test_input": name, "evaluation.nms_iou": value}
            for name in ("stretch", "keep_aspect")
            for value in (0.4, 0.5)
        ],
        [{"test_input.scales": scales} for scales in ([1.0], [0.5, 1.0], [1.0, 2.0], [3.0])],
    ],
)
def test_the_plot(axes, tmp_path):
    """Every kind of axis can be drawn; an undefined metric leaves its panel empty."""
    plot_sweep(made_table(axes, [0.1, 0.3, 0.2, 0.4]), tmp_path / "one.png")
    assert len(Image.open(tmp_path / "one.png").convert("RGB").getcolors(1 << 24)) > 10
