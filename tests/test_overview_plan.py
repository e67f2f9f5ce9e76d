"""make plan: what is left of all tables and figures, each training once, and what it will take."""

import json
import subprocess

import pytest
from paper_made_up import make_checkout
from results_made_up import write_record

from rankdet.errors import UserError
from rankdet.overview.cost import SIZES, read_speeds, work
from rankdet.overview.targets import distinct, load_target, names
from rankdet.results.datasets import choose_data
from rankdet.results.plan import Plan
from rankdet.results.reading import read_yaml

VOC_STEPS = 331_020  # 160 epochs of 16 551 images, 8 a step


@pytest.fixture
def root(repo, tmp_path):
    return make_checkout(repo, tmp_path)


@pytest.fixture
def main(front_end):
    """The command."""
    return front_end("plan")


def targets(root, protocol="mini", data="shapes"):
    return [load_target(name, "ap-loss", protocol, choose_data(data), root) for name in names(root, "ap-loss")]


def benchmark(root, name, device="cuda", **changes):
    """A made-up measurement of 100 images a second."""
    row = {
        "sweep": "losses", "side": "rankdet", "loss": "ap", "channels_last": True, "compiled": False,
        "checkpoint": False, "precision": "fp32", "micro_batch": 0, "size": 512, "images": 8, "seconds": 0.08,
        "images_per_second": 100.0, "repeats": 3,
    }  # fmt: skip
    about = {"device": device, "hardware": "A GPU"}
    content = {"about": about, "backbone": "resnet50", "num_classes": 20, "measurements": [row | changes]}
    path = root / "runs" / name / "benchmark.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))


def test_every_manifest_in_the_order_of_its_number(repo):
    found = names(repo, "ap-loss")
    assert found.index("table-2") < found.index("table-10") < found.index("figure-8a") < found.index("figure-13")
    assert len(found) == len(list((repo / "experiments" / "ap-loss").glob("*.yaml")))
    with pytest.raises(
        UserError, match=r"PAPER=nobody: .* papers that have some: all-losses, alrp, ap-loss, dr-loss, harmonic, pap"
    ):
        names(repo, "nobody")


def test_a_training_counts_once(root):
    """Table 1: 2 rows of 2 seeds; table 8: as many again, of which 2 are table 1's; the figure: 1."""
    found = targets(root)
    assert [len(target.order) for target in found] == [4, 4, 1], [target.title for target in found]
    assert len(distinct(found)) == 7
    assert [part.why for part in found[1].parts] == [None, "far too random", None]


def test_a_training_that_a_row_starts_from_comes_first(root, monkeypatch):
    """It is no row of the table, only among its runs."""
    (other,) = [target for target in targets(root) if target.name == "figure-8a"]
    usual = Plan.runs
    monkeypatch.setattr(Plan, "runs", lambda plan: [*other.order, *usual(plan)])
    monkeypatch.setattr("rankdet.overview.targets.planned_retests", lambda plan: {})
    found = load_target("table-1", "ap-loss", "mini", choose_data("shapes"), root)
    assert found.parts[0].runs == other.order, [part.label for part in found.parts]
    assert len(found.parts) == 3
    assert len(found.order) == 5


def test_the_commands_are_a_script_that_starts_nothing(root, main, capsys):
    """Of the finished training there is no command, of a shared one a single one, and bash reads it all."""
    write_record(targets(root)[0].order[0], 0.3)
    assert main([], root) == 0
    out, err = capsys.readouterr()
    assert err == ""
    commands = [line for line in out.splitlines() if line and not line.startswith("#")]
    assert len(commands) == len(set(commands)) == 6
    assert all(line.startswith("python -m rankdet.train experiment=") for line in commands)
    assert subprocess.run(["bash", "-n"], input=out, text=True).returncode == 0
    assert "# ap-loss table-1, mini on shapes: 3 of 4 trainings left" in out
    assert "# OHEM + AP-loss: 2 of 2 trainings left; a training: 500 steps, 4,000 image passes" in out
    assert "# Original AP-Loss: the trainings of Interpolated AP: yes (table-1)" in out
    assert "# in all, each training once: 6 of 7 trainings left; 24,000 image passes; GPU hours: not measured" in out
    assert not list((root / "runs").rglob("log.txt"))


def test_what_would_be_refused_is_said_beforehand(root, main, capsys):
    """8 images a step go to 2 or 4 GPUs and not to 3; of table 1 not all rows have 8."""
    assert main(["table-8", "--gpus", "2"], root) == 0
    assert "starts nothing" not in capsys.readouterr().out
    assert main(["table-8", "--gpus", "3"], root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("# ap-loss table-8, mini on shapes: ")
    assert lines[1].startswith("# as it stands, its command starts nothing: ")
    assert lines[1].endswith("cannot be dealt out evenly to 3 GPUs; GPUS x NODES must be one of 1, 2, 4, 8")


@pytest.mark.full
def test_the_paper_protocol_where_its_data_are_not(root):
    for run in distinct(targets(root, "paper", "voc0712")):
        assert work(run, root).steps == VOC_STEPS
        assert work(run, root).image_passes == 8 * VOC_STEPS


@pytest.mark.full
def test_gpu_hours_where_measured(root, main, capsys):
    """2 648 160 image passes at 100 a second are 7.356 hours; a row that samples was not measured, nor was a CPU."""
    benchmark(root, "benchmark")
    benchmark(root, "benchmark-cpu", device="cpu", images_per_second=1.0)
    benchmark(root, "benchmark-none", loss="none", images_per_second=1.0)
    (speeds,) = read_speeds(root)
    assert speeds.hardware == "A GPU"
    assert main(["table-8", "--protocol", "paper", "--data", "voc0712", "--json"], root) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["gpu_hours"] for run in runs if "sampler=ohem" in run["command"]] == [{}, {}]
    (hours,) = {run["gpu_hours"]["A GPU"] for run in runs if "sampler=ohem" not in run["command"]}
    assert hours == pytest.approx(8 * VOC_STEPS / 100 / 3600)
    main(["table-8", "--protocol", "paper", "--data", "voc0712"], root)
    out = capsys.readouterr().out
    assert "7,944,480" not in out
    assert "14.7 GPU hours on A GPU for 2 of them, the others not measured" in out
    main(["table-8", "--protocol", "paper", "--data", "voc0712", "schedule.lr_batch=4", "--gpus", "2"], root)
    assert "not measured" in capsys.readouterr().out  # 4 images on each of 2 GPUs


def test_the_known_sizes_are_of_sets_that_there_are(repo):
    """A set that consists of two years has the images of both: VOC 2007 and 2012 have 5 011 and 11 540 for training."""
    sizes = read_yaml(repo / SIZES)
    assert set(sizes) == {path.stem for path in (repo / "configs" / "data").glob("[vc]o*[0-9]*.yaml")}
    for name, splits in sizes.items():
        assert splits["trainval"] in (splits["train"], splits["train"] + splits["val"], splits["train"] + 5823), name
    assert sizes["voc0712"]["trainval"] == sizes["voc07"]["trainval"] + 11540
    assert sizes["voc07pp12"]["trainval"] == sizes["voc0712"]["trainval"] + sizes["voc07"]["test"]


def test_epochs_of_a_drawn_set(repo, tmp_path):
    """Twelve epochs of its 300 + 100 images, 8 a step, though nothing has been drawn."""
    target = load_target("figure-4", "alrp", "mini", None, repo)
    lengths = {(one.steps, one.image_passes) for one in (work(run, tmp_path) for run in target.order)}
    assert lengths == {(12 * 50, 12 * 400)}
    assert len(target.order) == 30


def test_a_length_that_nobody_knows(root, main, capsys):
    (root / "experiments" / "images.yaml").write_text("voc07: {trainval: 5011}\n")
    assert main(["table-1", "--protocol", "paper", "--data", "voc0712"], root) == 0
    out = capsys.readouterr().out
    assert "a training: unknown steps, unknown image passes" in out
    assert "0 image passes and those of 4 trainings of unknown length" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table-9"], "table-9.yaml: no such manifest; there are: "),
        (["--paper", "nobody"], "PAPER=nobody"),
        (["--protocol", "tiny"], "PROTOCOL=tiny"),
        (["--data", "nowhere"], "DATA=nowhere"),
    ],
)
def test_mistakes_are_one_line(root, main, capsys, arguments, message):
    assert main(arguments, root) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
