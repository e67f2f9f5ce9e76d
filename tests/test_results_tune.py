"""The tuning grid: the choice by hand, ties, edges, and the file that the tables read."""

from dataclasses import replace

import pytest
from results_made_up import write_record

from rankdet.errors import UserError
from rankdet.results.datasets import choose_data
from rankdet.results.manifest import load_manifest
from rankdet.results.records import run_records
from rankdet.results.registry import load_registry
from rankdet.results.runs import merge_overrides
from rankdet.results.tune import Grid, choose, load_grid, make_trials, mean_ap, tuning_yaml
from rankdet.results.tuning import load_tuning

LR, WEIGHT = "schedule.lr", "box_loss.weight"
GRID = Grid(
    "retinanet", (), {"ap": (), "focal": ()}, "mini", (7, 8), "train", "val",
    {LR: (0.001, 0.002, 0.004), WEIGHT: (1.0, 2.0)}, {LR: 0.002, WEIGHT: 1.0},
)  # fmt: skip


def test_all_combinations_in_order():
    assert [tuple(setting.values()) for setting in GRID.settings()] == [
        (0.001, 1.0), (0.001, 2.0), (0.002, 1.0), (0.002, 2.0), (0.004, 1.0), (0.004, 2.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("aps", "best", "at_edge"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.2, 0.1], (0.002, 2.0), (WEIGHT,)),
        ([0.1, 0.2, 0.3, 0.2, 0.2, 0.4], (0.004, 2.0), (LR, WEIGHT)),
        ([0.3, 0.3, 0.3, 0.3, 0.3, 0.3], (0.002, 1.0), (WEIGHT,)),  # ties: the default
        ([0.1, 0.3, 0.2, 0.3, 0.2, 0.1], (0.001, 2.0), (LR, WEIGHT)),  # without it the first of the grid
        ([0.1, None, 0.2, None, None, None], (0.002, 1.0), (WEIGHT,)),  # diverged settings do not count
    ],
)
def test_choice(aps, best, at_edge):
    choice = choose(list(zip(GRID.settings(), aps, strict=True)), GRID, "ap")
    assert (tuple(choice.best.values()), choice.at_edge) == (best, at_edge)
    assert choice.val_ap == max(ap for ap in aps if ap is not None)


def test_an_axis_of_one_value_has_no_edge():
    grid = Grid(
        "retinanet", (), {"ap": ()}, "mini", (7,), "train", "val", {LR: (0.001,), WEIGHT: (1.0, 2.0, 3.0)},
        {LR: 0.001, WEIGHT: 2.0},
    )  # fmt: skip
    assert choose([(setting, 0.5) for setting in grid.settings()], grid, "ap").at_edge == ()


def test_nothing_to_choose_from():
    with pytest.raises(UserError, match="no setting of ap ended with a finite loss"):
        choose([(setting, None) for setting in GRID.settings()], GRID, "ap")


def test_the_grid_of_the_checkout(repo):
    """All losses of Table 2 and aLRP first, none of the tables' seeds, and a learning rate that can move either way."""
    grid = load_grid(repo / "experiments" / "tuning" / "grid.yaml")
    assert list(grid.losses)[:5] == ["ce_ohem", "focal", "auc", "ap", "alrp"]
    assert len(grid.settings("ap")) == len(grid.settings()) == 2 * len(grid.settings("alrp"))
    assert grid.overrides == ()
    assert (grid.train, grid.test) == ("train", "val")
    assert not set(grid.seeds) & {0, 1, 2}
    assert grid.axes[LR][0] < grid.default[LR] < grid.axes[LR][-1]


def test_every_detector_of_the_grid_has_the_settings_of_its_table(repo):
    """SSD's losses are Table 2's four, with the settings that they have there, and harmonic loss."""
    path = repo / "experiments" / "tuning" / "grid.yaml"
    plain, ssd = load_grid(path), load_grid(path, "ssd")
    of_table_2 = {"ce_ohem": (), "focal": ("loss.gamma=1",), "auc": (), "ap": ()}
    assert ssd.losses == of_table_2 | {"harmonic": ("box_loss=none",)}
    assert ssd.settings() == plain.settings()
    registry = load_registry(repo / "experiments" / "registry.yaml")
    rows = load_manifest(repo / "experiments" / "ap-loss" / "table-2.yaml", registry).rows.values()
    shown = {row.under("mini") for row in rows if "-ssd-" in row.key}
    assert shown == {(f"loss={loss}", *own, *ssd.overrides) for loss, own in of_table_2.items()}
    for detector, name, losses in (
        ("faster_rcnn", "alrp/table-8", {"alrp"}),
        ("foveabox", "alrp/table-7", {"focal", "ap", "alrp"}),
    ):
        rows = load_manifest(repo / "experiments" / f"{name}.yaml", registry).rows.values()
        own = {row.loss: row.under("mini")[1:] for row in rows if row.loss in losses}
        assert own == {loss: load_grid(path, detector).losses[loss] for loss in losses}
    for detector, name, loss in (
        ("ssd", "harmonic/comparison", "harmonic"),
        ("faster_rcnn", "pap/table-1", "parameterized_ap"),
        ("deformable_detr", "pap/table-1", "parameterized_ap"),
    ):
        grid = load_grid(path, detector)
        rows = load_manifest(repo / "experiments" / f"{name}.yaml", registry).rows.values()
        own = {*merge_overrides(grid.overrides, (f"loss={loss}", *grid.losses[loss]))}
        own -= {"box_loss=none"}  # which the experiment may say
        assert any({*row.under("mini")} - {"box_loss=none"} == own for row in rows), (name, own)
    with pytest.raises(UserError, match=r"DETECTOR=yolo: .*grid\.yaml has retinanet, ssd"):
        load_grid(path, "yolo")


def test_a_loss_that_brings_its_boxes_has_the_learning_rate_alone(tmp_path):
    """Three rates of six settings; AP 10, 30 and 20 %, and equal ones, where the default's rate is taken."""
    grid = replace(GRID, losses={"ap": (), "alrp": ("box_loss=none",)}, seeds=(7,))
    trials = make_trials(grid, choose_data("shapes"), tmp_path)
    assert [len([trial for trial in trials if trial.loss == loss]) for loss in ("ap", "alrp")] == [6, 3]
    own = [trial for trial in trials if trial.loss == "alrp"]
    assert [trial.setting for trial in own] == [{LR: 0.001}, {LR: 0.002}, {LR: 0.004}]
    assert choose(
        [(trial.setting, ap) for trial, ap in zip(own, (0.1, 0.2, 0.3), strict=True)], grid, "alrp"
    ).at_edge == (LR,)
    assert choose([(trial.setting, 0.2) for trial in own], grid, "alrp").best == {LR: 0.002}
    for trial in trials:
        write_record(trial.runs[0], 0.3 if trial.setting[LR] == 0.001 else 0.2, split="val")
    path = tmp_path / "tuning.yaml"
    path.write_text(tuning_yaml(grid, "shapes", trials, run_records(run for t in trials for run in t.runs)))
    tuning = load_tuning(path)
    assert tuning.losses == {"ap": {LR: 0.001, WEIGHT: 1.0}, "alrp": {LR: 0.001}}
    assert (tuning.num_trials, tuning.fewer) == (6, {"alrp": 3})


def test_trials_of_another_detector(tmp_path):
    grid = replace(
        GRID, detector="foveabox", overrides=("model=foveabox_quarter",), losses={"focal": ("loss.gamma=1",)}
    )
    run = make_trials(grid, choose_data("shapes"), tmp_path)[0].runs[0]
    assert run.detector == "foveabox"
    assert {"model=foveabox_quarter", "loss=focal", "loss.gamma=1", "schedule.lr=0.001"} <= set(run.overrides)


def test_from_runs_to_the_file_that_tables_read(tmp_path):
    """AP by seed: 20 and 30 % at the default, mean 25; 40 % and nothing (diverged) at the last; the rest 10."""
    small = Grid(
        "retinanet", (), {"ap": ()}, "mini", (7, 8), "train", "val", {LR: (0.001, 0.002), WEIGHT: (1.0,)},
        {LR: 0.001, WEIGHT: 1.0},
    )  # fmt: skip
    trials = make_trials(small, choose_data("shapes"), tmp_path)
    assert [len(trial.runs) for trial in trials] == [2, 2]
    assert len({run.directory for trial in trials for run in trial.runs}) == 4
    run = trials[1].runs[1]
    assert {"loss=ap", "splits.train=train", "splits.test=val", "schedule.lr=0.002"} <= set(run.overrides)
    assert run.seed == 8
    for run, ap in zip(trials[0].runs, (0.2, 0.3), strict=True):
        write_record(run, ap, split="val")
    write_record(trials[1].runs[0], 0.4, split="val")
    records = run_records(run for trial in trials for run in trial.runs)
    assert mean_ap(trials[0], records) == pytest.approx(0.25)
    assert mean_ap(trials[1], records) is None
    path = tmp_path / "tuning.yaml"
    path.write_text(tuning_yaml(small, "shapes", trials, records))
    tuning = load_tuning(path)
    assert tuning.losses == {"ap": {LR: 0.001, WEIGHT: 1.0}}
    assert tuning.edges == {"ap": ()}  # the first of two is no edge worth a word
    assert tuning.collapsed == {"ap": 1}
    assert (tuning.data, tuning.data_hash, tuning.protocol, tuning.protocol_version) == (
        "shapes",
        "aaaa-bbbb",
        "mini",
        1,
    )
    assert (tuning.num_trials, tuning.seeds) == (2, (7, 8))
    assert "val_ap: null" in path.read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("test: val", "test: test", "the test split is for the tables"),
        ("[0.001, 0.002]", "[0.002, 0.001]", "ascending order"),
        ("schedule.lr: 0.001,", "schedule.lr: 0.005,", "0.005 is not among the grid's"),
        ("protocol: mini", "protocol: paper", "'paper' is not one of"),
        ("losses:", "loses:", "unknown key 'loses'"),
        ("{retinanet:", "{ssd:", "DETECTOR=retinanet: .* has ssd"),
        (
            "{losses:",
            "{overrides: [model=foveabox_quarter], losses:",
            "detectors.retinanet.overrides: these choose another",
        ),
    ],
)
def test_mistakes_in_the_grid(tmp_path, old, new, message):
    good = (
        "detectors: {retinanet: {losses: {ap: []}}}\nprotocol: mini\nseeds: [7]\nsplits: {train: train, test: val}\n"
        "grid: {schedule.lr: [0.001, 0.002], box_loss.weight: [1.0]}\n"
        "default: {schedule.lr: 0.001, box_loss.weight: 1.0}\n"
    )
    path = tmp_path / "grid.yaml"
    path.write_text(good)
    assert load_grid(path).axes[LR] == (0.001, 0.002)
    assert old in good
    path.write_text(good.replace(old, new))
    with pytest.raises(UserError, match=message):
        load_grid(path)
