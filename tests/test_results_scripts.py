"""The front-ends from arguments to files, with a stand-in for the training."""

import json
import sys

import pytest
from paper_made_up import make_experiments
from results_made_up import record_content

from rankdet.results import launch
from rankdet.results.front import exit_code
from rankdet.results.tuning import load_tuning

MANIFEST = """
tables: [ap-loss/table-1c]
experiment: ap_table_1
seeds: [0, 1]
rows:
  interpolated-no: {overrides: [loss=ap, loss.interpolate=false], mini: true}
  interpolated-yes: {overrides: [loss=ap], mini: true}
"""
GRID = """
detectors:
  retinanet: {losses: {ap: []}}
  foveabox: {overrides: [model=foveabox_quarter, matching=foveabox], losses: {ap: []}}
protocol: mini
seeds: [7]
splits: {train: train, test: val}
grid: {schedule.lr: [0.0005, 0.001, 0.002], box_loss.weight: [1.0]}
default: {schedule.lr: 0.001, box_loss.weight: 1.0}
"""


@pytest.fixture
def root(repo, tmp_path):
    """A checkout with one small manifest and a small grid."""
    make_experiments(repo, tmp_path, {"table-1": MANIFEST})
    (tmp_path / "experiments" / "tuning" / "grid.yaml").write_text(GRID)
    return tmp_path


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces the training by a program that writes a record; returns the list of runs that were started."""
    started = []

    def command(run, gpus=0):
        started.append((run.label, run.seed))
        ap = 0.2 + run.seed / 100 + ("schedule.lr=0.002" in run.overrides) / 10
        content = json.dumps(record_content(run, ap))
        if "loss.delta=3" in run.overrides and run.seed == 1:
            return [sys.executable, "-c", "print('error: no such luck'); raise SystemExit(2)"]
        return [sys.executable, "-c", f"open({str(run.directory / 'record.json')!r}, 'w').write({content!r})"]

    monkeypatch.setattr(launch, "command", command)
    return started


@pytest.fixture(autouse=True)
def data_are_not_read(monkeypatch):
    monkeypatch.setattr("rankdet.results.today.data_hash", lambda run: "aaaa-bbbb")


def test_reproduce_trains_prints_saves_and_the_second_time_only_prints(root, front_end, stand_in, capsys):
    main = front_end("reproduce")
    assert main(["table-1"], root) == 0
    first = capsys.readouterr()
    assert sorted(stand_in) == [(row, seed) for row in ("interpolated-no", "interpolated-yes") for seed in (0, 1)]
    assert "| Interpolated AP: no  | 20.5 ± 0.7 |" in first.out
    assert "saved runs/tables/ap-loss/table-1.mini.md" in first.out
    assert {path.suffix for path in (root / "runs" / "tables" / "ap-loss").iterdir()} == {".md", ".csv", ".png", ".tex"}
    stand_in.clear()
    directories = sorted(root.glob("runs/shapes/mini/*/seed*"))
    logs = [(directory / "log.txt").stat().st_mtime_ns for directory in directories]
    assert main(["table-1"], root) == 0
    assert capsys.readouterr().out == first.out
    assert logs == [(directory / "log.txt").stat().st_mtime_ns for directory in directories]


def test_reproduce_lists_failures_and_still_prints(root, front_end, stand_in, capsys):
    assert front_end("reproduce")(["table-1", "--jobs", "1", "loss.delta=3"], root) == 1
    out, err = capsys.readouterr()
    assert "1 of 2 seeds" in out
    assert "Own overrides in every row whose loss has them: loss.delta=3." in out
    assert "2 runs failed:" in err
    assert "| error: no such luck" in err
    assert not (root / "runs" / "tables" / "ap-loss" / "table-1.mini.md").exists()


def test_dry_run_prints_the_commands_that_are_left(root, front_end, capsys):
    assert front_end("reproduce")(["table-1", "--dry-run", "--protocol", "mini_long"], root) == 0
    out, err = capsys.readouterr()
    overrides = "experiment=ap_table_1 protocol=mini_long data=shapes loss=ap loss.interpolate=false seed=0"
    assert out.splitlines()[0] == f"python -m rankdet.train {overrides}"
    assert len(out.splitlines()) == 4
    assert "4 of 4 trainings are left" in err
    assert not (root / "runs").exists()
    assert front_end("reproduce")(["table-1", "--dry-run", "--gpus", "3"], root) == 2
    assert "cannot be dealt out evenly to 3 GPUs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table-9"], "table-9.yaml: no such manifest; there are: table-1"),
        (["table-1", "--data", "nowhere"], "DATA=nowhere: no such folder"),
        (["table-1", "--protocol", "tiny"], "PROTOCOL=tiny"),
        (["table-1", "loss.dleta=2"], "dleta"),
        (["table-1", "--jobs", "0"], "JOBS=0"),
    ],
)
def test_mistakes_are_one_line(root, front_end, capsys, arguments, message):
    assert front_end("reproduce")(arguments, root) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (root / "runs" / "tables").exists()


def test_tune_writes_what_the_tables_then_use(root, front_end, stand_in, capsys):
    """The stand-in makes 0.002 the better learning rate; the axis ends there, and the file says so."""
    assert front_end("tune")([], root) == 0
    assert len(stand_in) == 3
    text = (root / "runs" / "tuning" / "shapes.yaml").read_text()
    assert "best: {schedule.lr: 0.002, box_loss.weight: 1.0}" in text
    assert "at_edge: [schedule.lr]" in text
    assert "saved runs/tuning/shapes.yaml" in capsys.readouterr().out
    assert front_end("reproduce")(["table-1"], root) == 0
    out = capsys.readouterr().out
    assert "ap: schedule.lr 0.002, box_loss.weight 1.0" in out
    assert "At the edge of the grid, so that a better value may lie beyond: schedule.lr for ap." in out
    assert "| Interpolated AP: no  | 30.5 ± 0.7 |" in out  # 0.2 + 0.1 for the tuned rate, and 0 or 1 % for the seed


def test_tune_of_another_detector_has_a_file_of_its_own(root, front_end, stand_in, capsys):
    """RetinaNet's rows do not take it over."""
    assert front_end("tune")(["--detector", "foveabox"], root) == 0
    assert [path.name for path in (root / "runs" / "tuning").iterdir()] == ["shapes.foveabox.yaml"]
    assert "detector: foveabox" in capsys.readouterr().out
    assert len(list(root.glob("runs/shapes/mini/foveabox_*"))) == 3
    assert front_end("reproduce")(["table-1"], root) == 0
    assert "nothing was tuned (make tune does)" in capsys.readouterr().out
    assert front_end("tune")(["--detector", "yolo"], root) == 2
    assert "DETECTOR=yolo" in capsys.readouterr().err


def test_tune_of_some_losses_keeps_the_others(root, front_end, stand_in, capsys):
    """A third loss that neither the file nor the command names has no entry; other seeds are not mixed in."""
    grid = root / "experiments" / "tuning" / "grid.yaml"
    grid.write_text(GRID.replace("{ap: []}", "{ap: [], auc: [], focal: []}"))
    path = root / "runs" / "tuning" / "shapes.yaml"
    assert front_end("tune")(["--losses", "auc"], root) == 0
    assert len(stand_in) == 3
    assert list(load_tuning(path).losses) == ["auc"]
    first = path.read_text()
    assert front_end("tune")(["--losses", "ap"], root) == 0
    assert len(stand_in) == 6
    assert list(load_tuning(path).losses) == ["ap", "auc"]
    assert first.partition("losses:")[2].strip() in path.read_text()
    assert front_end("tune")(["--losses", "app"], root) == 2
    assert "--losses app: the grid of retinanet has ap, auc, focal" in capsys.readouterr().err
    grid.write_text(grid.read_text().replace("seeds: [7]", "seeds: [8]"))
    assert front_end("tune")(["--losses", "focal"], root) == 2
    assert "seeds is [7], now [8]: tune all losses anew, without --losses" in capsys.readouterr().err
    assert len(stand_in) == 6


def test_tune_takes_no_trials_of_other_data(root, front_end, stand_in, capsys, monkeypatch):
    """And none of some losses where the others would lose what was found for them on the drawn set."""
    assert front_end("tune")([], root) == 0
    monkeypatch.setattr("rankdet.results.today.data_hash", lambda run: "cccc-bbbb")
    assert front_end("tune")([], root) == 2
    assert "seed7: was trained or tested on other data; remove it to repeat it" in capsys.readouterr().err
    assert front_end("tune")(["--data", "shapes_small", "--losses", "ap"], root) == 2
    assert "nothing was tuned on shapes_small yet, so the other losses have what was found on shapes" in (
        capsys.readouterr().err
    )


def test_tune_writes_nothing_after_a_failure(root, front_end, stand_in, capsys, monkeypatch):
    monkeypatch.setattr(launch, "command", lambda run, gpus=0: [sys.executable, "-c", "raise SystemExit(1)"])
    assert front_end("tune")([], root) == 1
    assert "3 runs failed" in capsys.readouterr().err
    assert not (root / "runs" / "tuning").exists()


def test_tune_takes_divergence_for_an_outcome(root, front_end, stand_in, monkeypatch):
    """Exit code 3 is a loss that is no longer finite: the other setting wins."""
    usual = launch.command

    def command(run, gpus=0):
        diverges = "schedule.lr=0.002" in run.overrides
        return [sys.executable, "-c", "raise SystemExit(3)"] if diverges else usual(run, gpus)

    monkeypatch.setattr(launch, "command", command)
    assert front_end("tune")([], root) == 0
    assert "best: {schedule.lr: 0.001, box_loss.weight: 1.0}" in (root / "runs" / "tuning" / "shapes.yaml").read_text()


def test_publish(root, front_end, capsys):
    (root / "experiments" / "published.yaml").write_text(
        "- {paper: ap-loss, table: table-1, protocol: mini, data: shapes}\n"
    )
    assert front_end("publish")(root) == 0
    files = [f"ap-loss/table-1.mini.{kind}" for kind in ("md", "csv", "png", "tex")]
    assert capsys.readouterr().out.split() == [f"experiments/{name}" for name in (*files, "README.md", "report.html")]
    (root / "experiments" / "published.yaml").unlink()
    assert front_end("publish")(root) == 2
    assert "published.yaml: no such file" in capsys.readouterr().err


def test_a_script_that_is_interrupted_says_so_in_one_line(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert exit_code(interrupted) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
