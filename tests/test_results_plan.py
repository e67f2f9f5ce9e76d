"""Overrides, names and directories of planned runs."""

from dataclasses import replace

import pytest
from results_made_up import make_plan as made_up_plan
from results_made_up import printed_row, printed_table

from rankdet.config import compose
from rankdet.errors import UserError
from rankdet.results.datasets import choose_data, named_sets, quoted
from rankdet.results.describe_tuning import tuning_lines
from rankdet.results.launch import Hardware, check_hardware, command, run_all, shown
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import make_plan
from rankdet.results.registry import load_registry
from rankdet.results.runs import merge_overrides
from rankdet.results.tuning import find_tuning

TUNING = """
data: {data}
data_hash: aaaa-bbbb
protocol: mini
protocol_version: 1
seeds: [1000]
grid: {{schedule.lr: [0.001, 0.002, 0.004], box_loss.weight: [1.0, 3.0]}}
default: {{schedule.lr: 0.001, box_loss.weight: 1.0}}
losses:
  ap:
    best: {{schedule.lr: {lr}, box_loss.weight: 3.0}}
    val_ap: 0.3
    at_edge: [schedule.lr]
    trials: [{{schedule.lr: 0.001, box_loss.weight: 1.0, val_ap: 0.2}}]
"""
ONE_ROW = """
tables: [ap-loss/table-1c]
experiment: ap_table_1
seeds: [0, 1]
rows:
  interpolated-no: {overrides: [loss=ap, loss.interpolate=false], mini: true}
  interpolated-yes: {overrides: [loss=ap], mini: false, reason: not now}
"""


@pytest.fixture(scope="module")
def manifest(repo, tmp_path_factory):
    path = tmp_path_factory.mktemp("paper") / "table-1.yaml"
    path.write_text(ONE_ROW)
    return load_manifest(path, load_registry(repo / "experiments" / "registry.yaml"))


def write_tuning(path, data, lr):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TUNING.format(data=data, lr=lr))


def test_later_overrides_replace_earlier_ones_in_place():
    assert merge_overrides(("loss=ap", "a=1"), ("a=2",), ("loss=focal", "b=3")) == ("loss=focal", "a=2", "b=3")


def test_a_row_takes_tuned_settings_and_arguments_take_over(manifest, tmp_path):
    write_tuning(tmp_path / "experiments" / "tuning" / "shapes.yaml", "shapes", 0.004)
    plan = make_plan(manifest, "mini", choose_data("shapes"), tmp_path)
    run = plan.rows[0].runs[0]
    assert run.overrides == (
        "experiment=ap_table_1", "protocol=mini", "data=shapes", "schedule.lr=0.004", "box_loss.weight=3.0", "loss=ap",
        "loss.interpolate=false",
    )  # fmt: skip
    assert run.tuned == ("schedule.lr=0.004", "box_loss.weight=3.0")
    cfg = compose([*run.overrides, "seed=1"])
    assert (cfg.schedule.lr, cfg.box_loss.weight, cfg.loss.interpolate, cfg.splits.train) == (
        0.004,
        3.0,
        False,
        "trainval",
    )
    assert run.directory.relative_to(tmp_path).parts[:3] == ("runs", "shapes", "mini")
    assert run.directory.name == "seed0"
    assert run.config_hash in run.name
    own = make_plan(manifest, "mini", choose_data("shapes"), tmp_path, ("schedule.lr=0.002",))
    assert own.rows[0].runs[0].tuned == ("box_loss.weight=3.0",)
    assert "schedule.lr=0.002" in own.rows[0].runs[0].overrides
    assert own.rows[0].runs[0].config_hash != run.config_hash
    assert own.file_stem.startswith("table-1.mini.args-")
    faster = make_plan(manifest, "mini", choose_data("shapes"), tmp_path, ("runtime.num_workers=4",))
    assert faster.file_stem == plan.file_stem == "table-1.mini"
    assert faster.rows[0].runs[0].directory == run.directory
    assert "runtime.num_workers=4" in faster.rows[0].runs[0].overrides
    assert plan.whole and plan.rows[1].runs == () and plan.rows[1].why == "not now"


def test_fresh_settings_before_committed_and_own_data_before_the_drawn_set(tmp_path):
    assert find_tuning(tmp_path, "bccd", "retinanet") is None
    write_tuning(tmp_path / "experiments" / "tuning" / "shapes.yaml", "shapes", 0.001)
    assert find_tuning(tmp_path, "bccd", "retinanet").data == "shapes"
    write_tuning(tmp_path / "runs" / "tuning" / "shapes.yaml", "shapes", 0.002)
    assert find_tuning(tmp_path, "bccd", "retinanet").losses["ap"]["schedule.lr"] == 0.002
    write_tuning(tmp_path / "experiments" / "tuning" / "bccd.yaml", "bccd", 0.004)
    found = find_tuning(tmp_path, "bccd", "retinanet")
    assert (found.data, found.losses["ap"]["schedule.lr"], found.num_trials) == ("bccd", 0.004, 1)
    assert found.edges["ap"] == ("schedule.lr",)
    assert find_tuning(tmp_path, "bccd", "ssd") is None
    write_tuning(tmp_path / "experiments" / "tuning" / "shapes.ssd.yaml", "shapes", 0.008)
    assert find_tuning(tmp_path, "bccd", "ssd").losses["ap"]["schedule.lr"] == 0.008


def test_each_row_takes_the_settings_of_its_own_detector(repo, tmp_path):
    """FoveaBox untuned keeps the defaults, RetinaNet's rate beside it is not for it; tuned, it takes its own."""
    path = tmp_path / "table-1.yaml"
    path.write_text(
        ONE_ROW.replace(
            "mini: true}", "mini: true, mini_overrides: [model=foveabox_quarter, matching=foveabox]}"
        ).replace("mini: false, reason: not now", "mini: true")
    )
    manifest = load_manifest(path, load_registry(repo / "experiments" / "registry.yaml"))
    write_tuning(tmp_path / "experiments" / "tuning" / "shapes.yaml", "shapes", 0.004)
    plan = make_plan(manifest, "mini", choose_data("shapes"), tmp_path)
    fovea, retina = (row.runs[0] for row in plan.rows)
    assert (fovea.detector, retina.detector) == ("foveabox", "retinanet")
    assert fovea.tuned == () and retina.tuned == ("schedule.lr=0.004", "box_loss.weight=3.0")
    assert list(plan.tunings) == [("retinanet", "shapes")]
    lines = tuning_lines(plan, plan.runs())
    assert lines[0].startswith("FoveaBox, untuned: ") and "make tune DETECTOR=foveabox" in lines[0]
    assert lines[1].startswith("RetinaNet: Tuned per loss on shapes")
    write_tuning(tmp_path / "experiments" / "tuning" / "shapes.foveabox.yaml", "shapes", 0.002)
    plan = make_plan(manifest, "mini", choose_data("shapes"), tmp_path)
    assert plan.rows[0].runs[0].tuned == ("schedule.lr=0.002", "box_loss.weight=3.0")
    assert plan.rows[1].runs == (retina, replace(retina, seed=1, directory=retina.directory.with_name("seed1")))


@pytest.mark.parametrize(
    ("row", "last"),
    [
        ("[loss=focal]", ["Not tuned, with the configuration's learning rate and box weight: focal."]),
        ("[loss=ap, box_loss.weight=2.5]", []),
    ],
)
def test_what_was_not_tuned_is_said(repo, tmp_path, row, last):
    """A loss that the search left out, and a row that sets by hand what another of its loss has from the search."""
    path = tmp_path / "table-1.yaml"
    path.write_text(ONE_ROW.replace("[loss=ap], mini: false, reason: not now", f"{row}, mini: true"))
    manifest = load_manifest(path, load_registry(repo / "experiments" / "registry.yaml"))
    write_tuning(tmp_path / "experiments" / "tuning" / "shapes.yaml", "shapes", 0.004)
    plan = make_plan(manifest, "mini", choose_data("shapes"), tmp_path)
    tuned, *more = tuning_lines(plan, plan.runs())
    assert tuned.endswith(": ap: schedule.lr 0.004, box_loss.weight 3.0.")
    assert [line for line in more if line.startswith("Not tuned")] == last


def test_runs_are_distinct_and_ordered_by_seed(tmp_path):
    table = printed_table(printed_row("a", 1.0), printed_row("b", 2.0))
    plan = made_up_plan(tmp_path, table, seeds=(2, 0))
    shared = replace(plan, rows=(*plan.rows, plan.rows[0]))
    assert [(run.label, run.seed) for run in shared.runs()] == [("a", 2), ("b", 2), ("a", 0), ("b", 0)]


def test_file_names(tmp_path):
    plan = made_up_plan(tmp_path, printed_table(printed_row("a", 1.0)))
    whole = replace(plan, whole=True)
    assert plan.file_stem == "table-9.made"
    assert replace(plan, protocol="mini_long").file_stem == "table-9.made.mini_long"
    assert whole.file_stem == "table-9.mini"
    assert replace(whole, protocol="mini_long").file_stem == "table-9.mini_long"
    assert replace(whole, args=("a=1",)).file_stem != replace(whole, args=("a=2",)).file_stem


def test_a_folder_of_data(tmp_path):
    """A name that Hydra's grammar would trip over still comes out as the folder's path."""
    root = tmp_path / "my data, v=2's"
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    data = choose_data(str(root))
    assert data.name == root.name
    assert data.overrides[0] == "data=voc"
    cfg = compose([*data.overrides])
    assert (cfg.data.root, cfg.data.name) == (str(root), root.name)
    assert quoted("/plain/path-1.0_b") == "/plain/path-1.0_b"
    with pytest.raises(UserError, match=r"DATA=nowhere: no such folder; give one in .*, voc0712, voc07pp12$"):
        choose_data("nowhere")
    (tmp_path / "shapes").mkdir()
    with pytest.raises(UserError, match="would bear the name of data=shapes"):
        choose_data(str(tmp_path / "shapes"))


@pytest.mark.parametrize("name", named_sets())
def test_a_set_that_has_a_config(name):
    assert compose([*choose_data(name).overrides]).data.name == choose_data(name).name == name


@pytest.mark.parametrize(
    ("protocol", "args", "message"),
    [
        ("medium", (), "PROTOCOL=medium: no such protocol"),
        ("paper", (), "PROTOCOL=paper: the drawn sets are for mini"),
        ("mini", ("seed=4",), "ARGS: 'seed=4' is chosen by the table"),
        ("mini", ("loss=focal",), "ARGS: 'loss=focal' is chosen by the table"),
        ("mini", ("loss.dleta=1",), "dleta"),
    ],
)
def test_mistakes(manifest, tmp_path, protocol, args, message):
    with pytest.raises(UserError, match=message):
        make_plan(manifest, protocol, choose_data("shapes"), tmp_path, args)


def test_the_command_of_a_run(tmp_path):
    run = made_up_plan(tmp_path, printed_table(printed_row("a", 1.0))).runs()[0]
    assert command(run)[1:] == ["-m", "rankdet.train", "experiment=ap_table_2", "loss=a", "seed=0"]
    assert command(run, Hardware(1))[1:] == [*command(run)[1:-1], "runtime.device=cuda", "seed=0"]
    two = command(run, Hardware(2))
    assert two[1:6] == ["-m", "rankdet.torchrun", "--standalone", "--nproc-per-node=2", "-m"]
    assert two[-3:] == ["runtime.device=cuda", "runtime.split=2", "seed=0"]
    own = command(replace(run, overrides=("gpus=2",)), Hardware(2))
    assert own[5:] == ["-m", "rankdet.train", "gpus=2", "runtime.device=cuda", "seed=0"]
    nodes = command(run, Hardware(4, 2, "first:29500"))
    meet = ["--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=first:29500"]
    name = f"{run.directory.parent.name}-{run.directory.name}"
    assert nodes[1:8] == ["-m", "rankdet.torchrun", *meet, f"--rdzv-id={name}", "--nproc-per-node=4"]
    assert nodes[-2:] == ["runtime.split=8", "seed=0"]
    assert (
        shown(replace(run, overrides=("data.root='a b'",)))
        == "python -m rankdet.train 'data.root='\"'\"'a b'\"'\"'' seed=0"
    )
    with pytest.raises(UserError, match="JOBS=0"):
        run_all([run], 0, Hardware(), tmp_path)


@pytest.mark.parametrize(
    ("overrides", "hardware", "jobs", "message"),
    [
        (
            ["batch_size=8"],
            (3,),
            1,
            "a: its 8 images a step cannot be dealt out evenly to 3 GPUs; GPUS x NODES must be one of 1, 2, 4, 8",
        ),
        (["batch_size=1"], (2,), 1, "a: its 1 images a step .* must be one of 1$"),
        (["gpus=2"], (4,), 1, "gpus=2: is a run of 2 processes; set GPUS=2"),
        ([], (2, 2, "a:1"), 2, "NODES=2: set JOBS=1"),
    ],
)
def test_hardware_that_a_run_cannot_be_trained_on(tmp_path, overrides, hardware, jobs, message):
    run = made_up_plan(tmp_path, printed_table(printed_row("a", 1.0))).runs()[0]
    with pytest.raises(UserError, match=message):
        check_hardware([replace(run, overrides=tuple(overrides))], Hardware(*hardware), jobs)


@pytest.mark.parametrize("wrong", [(-1,), (1, 0), (8, 2), (0, 2, "a:1")])
def test_hardware_that_is_none(wrong):
    with pytest.raises(UserError, match="GPUS="):
        Hardware(*wrong)


def test_a_setting_of_the_loss_is_for_the_rows_whose_loss_has_it(repo, tmp_path):
    """Table 2 under mini: of CE + OHEM, focal, AUC and AP, two have a delta; the others keep the runs they have."""
    registry = load_registry(repo / "experiments" / "registry.yaml")
    own_manifest = load_manifest(repo / "experiments" / "ap-loss" / "table-2.yaml", registry)
    shapes = choose_data("shapes")
    plain = make_plan(own_manifest, "mini", shapes, tmp_path).runs()
    own = make_plan(own_manifest, "mini", shapes, tmp_path, ("loss.delta=0.5",)).runs()
    assert len(plain) == len(own) == 24
    kept = {run.directory for run in plain} & {run.directory for run in own}
    assert len(kept) == 12
    assert sum("loss.delta=0.5" in run.overrides for run in own) == 12
    with pytest.raises(UserError, match=r"'loss\.gama=1': no loss of this table has that setting"):
        make_plan(own_manifest, "mini", shapes, tmp_path, ("loss.gama=1",))
