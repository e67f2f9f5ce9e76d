"""Tables made of tests of existing trainings: manifests, what is left to test, staleness, numbers, publishing."""

import csv
import json
import shutil
import sys
from dataclasses import replace

import pytest
from omegaconf import OmegaConf
from results_made_up import REPO, record_content, write_record

from rankdet.config import merge_dotlist
from rankdet.errors import UserError
from rankdet.results import launch
from rankdet.results.datasets import choose_data, quoted, unquoted
from rankdet.results.launch import retest_command, retest_jobs
from rankdet.results.manifest import Cell, load_manifest
from rankdet.results.plan import make_plan
from rankdet.results.publish import publish
from rankdet.results.records import run_records
from rankdet.results.render import csv_text, markdown
from rankdet.results.retests import Retest, file_hash, left, local, outstanding, planned_retests, with_retests
from rankdet.results.tables import collect
from rankdet.robustness.conditions import BOUNDS, CONDITIONS, SUITE_VERSION, TRAINING_STEP

ROWS = ("ce-ohem", "focal", "auc-loss", "ap-loss")
TESTED = ("black_patch", "random_patch", "flip_patch", "adversarial_patch", "gaussian_noise", "deepfool")
DR = """
tables: [dr-loss/table-1]
experiment: ap_table_2
seeds: [0]
rows:
  focal-0.05: {overrides: [loss=focal, evaluation.score_threshold=0.05], mini: true}
  dr-0.05: {overrides: [loss=dr, evaluation.score_threshold=0.05], mini: true}
"""


@pytest.fixture
def root(tmp_path):
    """A checkout with the manifests of tables 2 and 3."""
    (tmp_path / "experiments" / "ap-loss").mkdir(parents=True)
    for name in ("registry.yaml", "datasets.yaml"):
        shutil.copy(REPO / "experiments" / name, tmp_path / "experiments")
    for name in ("table-2", "table-3"):
        shutil.copy(REPO / "experiments" / "ap-loss" / f"{name}.yaml", tmp_path / "experiments" / "ap-loss")
    (tmp_path / "experiments" / "published.yaml").write_text(
        "- {paper: ap-loss, table: table-3, protocol: mini, data: shapes}\n"
    )
    return tmp_path


@pytest.fixture(scope="module")
def planned(registry):
    """Composing the configs takes a second, so it is done once."""
    return plan_of(REPO, registry, "table-3")


@pytest.fixture
def plan(planned, tmp_path):
    """The same plan with its runs under tmp_path."""

    def moved(run):
        return replace(run, directory=tmp_path / run.directory.relative_to(REPO))

    return replace(planned, rows=tuple(replace(row, runs=tuple(map(moved, row.runs))) for row in planned.rows))


def plan_of(root, registry, name):
    manifest = load_manifest(root / "experiments" / "ap-loss" / f"{name}.yaml", registry)
    return make_plan(manifest, "mini", choose_data("shapes"), root)


def finish(run, ap50=0.4):
    """A finished training with weights."""
    write_record(run, ap50 / 2, config_hash=run.config_hash)
    (run.directory / "weights.pt").write_bytes(f"{run.name}{run.seed}".encode())


def retest_content(run, retest, value, **changes):
    training = json.loads((run.directory / "record.json").read_text())
    copied = ("config_hash", "seed", "data_hash", "split", "threads", "commit", "dirty", "torch", "hardware", "date")
    metrics = {"norm": value} if retest.condition == "deepfool" else {"AP": value / 2, "AP50": value}
    content = {key: training[key] for key in copied} | {
        "condition": retest.condition, "overrides": list(retest.overrides), "suite_version": SUITE_VERSION,
        "suite_seed": 0, "weights_hash": file_hash(run.directory / "weights.pt"), "num_images": 20,
        "seconds": 2.0, "cpu_seconds": 6.0, "metrics": metrics,
    }  # fmt: skip
    return content | changes


def write_retest(run, retest, value, **changes):
    path = retest.path(run.directory)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(retest_content(run, retest, value, **changes)))


def finish_all(plan):
    """Seed k of row r: original 0.40 + k / 100; a test's AP50 0.01 less for each column; DeepFool 70 + r + k."""
    for run, retests in planned_retests(plan).items():
        finish(run, 0.40 + run.seed / 100)
        row = [each.runs[0].name for each in plan.rows].index(run.name)
        for place, retest in enumerate(retests):
            deepfool = retest.condition == "deepfool"
            write_retest(run, retest, 70 + row + run.seed if deepfool else 0.39 + (run.seed - place) / 100)


def test_table_3_tests_the_trainings_of_table_2(registry, planned):
    plan, other = planned, plan_of(REPO, registry, "table-2")
    retinanets = [run.directory for run in other.runs() if run.detector == "retinanet"]
    assert [run.directory for run in plan.runs()] == retinanets
    assert [row.printed.key for row in plan.rows] == list(ROWS)
    assert len(plan.runs()) == 12
    retests = planned_retests(plan)
    assert list(retests) == plan.runs()
    assert all([retest.name for retest in each] == list(TESTED) for each in retests.values())
    assert set(TESTED) | {"original"} == set(CONDITIONS) - {*BOUNDS, TRAINING_STEP}
    assert planned_retests(other) == {run: [] for run in other.runs()}
    assert plan.manifest.columns["deepfool"] == Cell("deepfool", "norm")
    assert not plan.manifest.tables[0].in_percent("deepfool")


def test_a_sweep_of_thresholds_over_the_same_weights(root, registry):
    """The supplement's Table 1 of DR loss: two trainings, each tested at six thresholds; the first is its own."""
    rows = "".join(
        f"  {loss}-{threshold}: {{same_weights_as: {loss}-0.05, test: [evaluation.score_threshold={threshold}]}}\n"
        for loss in ("focal", "dr")
        for threshold in ("0.1", "0.2", "0.3", "0.4", "0.5")
    )
    path = root / "experiments" / "ap-loss" / "dr.yaml"
    path.write_text(DR + rows)
    plan = make_plan(load_manifest(path, registry), "mini", choose_data("shapes"), root)
    assert len(plan.rows) == 12
    assert [run.label for run in plan.runs()] == ["focal-0.05", "dr-0.05"]
    retests = planned_retests(plan)[plan.runs()[0]]
    assert [retest.name for retest in retests] == [f"original-score_threshold-0.{n}" for n in range(1, 6)]
    assert retests[0] == Retest("original", ("evaluation.score_threshold=0.1",))
    for run in plan.runs():
        finish(run)
    retests = planned_retests(plan)
    jobs = retest_jobs(retests, outstanding(retests), 0)
    retests = retests[plan.runs()[0]]
    assert len(jobs) == 10
    assert jobs[1].command[-2:] == ("conditions=original", "evaluation.score_threshold=0.2")
    for retest in retests:
        write_retest(plan.runs()[0], retest, float(retest.name[-3:]))
    table = with_retests(collect(plan, run_records(plan.runs())), local)
    shown = {row.planned.printed.key: row.score("AP50") for row in table.rows}
    assert shown["focal-0.05"].mean == pytest.approx(40)
    assert shown["focal-0.3"].mean == pytest.approx(30)
    assert shown["dr-0.3"] is None
    assert "not tested: AP (0 of 1 seeds), AP50" in markdown(table)


MISTAKES = [
    ("trainings_of: table-2", "trainings_of: table-9", "table-9.yaml: no such manifest"),
    ("trainings_of: table-2", "trainings_of: table-2\nseeds: [0]", "unknown key 'seeds'"),
    ("ce-ohem-retinanet-voc07}", "nobody}", "same_weights_as: 'nobody' is no row with runs of its own"),
    ("{same_weights_as: ce-ohem-retinanet-voc07}", "{mini: true}", "unknown key 'mini'"),
    ("voc07}", "voc07, test: [seed=1]}", "'seed=1' is not a row's to set"),
    ("voc07}", "voc07, condition: no_bound}", "rows.ce-ohem: there is no condition 'no_bound'; there are original"),
    ("condition: black_patch", "condition: blue_patch", "no condition 'blue_patch'; there are original, black_patch"),
    ("  deepfool: {", "  deepfull: {", "columns: unknown key 'deepfull'"),
    ("condition: deepfool, metric: norm", "condition: deepfool", "columns.deepfool: key 'metric' is missing"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_mistakes_name_file_and_key(root, registry, old, new, message):
    path = root / "experiments" / "ap-loss" / "table-3.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        load_manifest(path, registry)
    assert message in str(caught.value)
    assert "table-" in str(caught.value)


def test_what_is_left_is_what_is_missing_stale_or_of_other_weights(plan):
    run, wanted = next(iter(planned_retests(plan).items()))
    finish(run)
    assert left(run, wanted) == wanted
    for retest, changes in zip(
        wanted, [{}, {"suite_version": 0}, {"weights_hash": "0"}, {"data_hash": "x-y"}, {"seed": 9}, {}], strict=True
    ):
        write_retest(run, retest, 0.3, **changes)
    assert [retest.name for retest in left(run, wanted)] == list(TESTED[1:5])
    (run.directory / "weights.pt").unlink()
    with pytest.raises(UserError, match=r"weights\.pt: not there"):
        left(run, wanted)


def test_a_damaged_record_is_named(plan):
    run, wanted = next(iter(planned_retests(plan).items()))
    finish(run)
    write_retest(run, wanted[0], 0.3)
    wanted[0].path(run.directory).write_text('{"condition": "black_patch"')
    with pytest.raises(UserError, match=r"black_patch\.json: not valid JSON"):
        left(run, wanted)
    wanted[0].path(run.directory).write_text('{"condition": "black_patch"}')
    with pytest.raises(UserError, match=r"black_patch\.json: key 'overrides' is missing"):
        left(run, wanted)


def test_the_numbers_by_column(plan):
    """Row 0 over seeds 0 to 2: original 40, 41, 42; black 39, 40, 41; DeepFool, which is no percentage, 70, 71, 72."""
    finish_all(plan)
    table = with_retests(collect(plan, run_records(plan.runs())), local)
    row = table.rows[0]
    assert row.score("original").values == pytest.approx((40, 41, 42))
    assert row.score("black_patch").values == pytest.approx((39, 40, 41))
    assert row.score("deepfool").values == pytest.approx((70, 71, 72))
    text = markdown(table)
    lines = [line for line in text.splitlines() if line.startswith("| CE-Loss")]
    ours, paper = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    assert ours[0] == "CE-Loss+OHEM, ours"
    assert ours[1:3] == ["41.0 ± 1.0", "40.0 ± 1.0"]
    assert ours[7:9] == ["71.0 ± 1.0", "3"]
    assert paper == ["CE-Loss+OHEM, paper", "81.5", "63.1", "62.8", "77.0", "67.8", "65.5", "14.7", "", ""]
    assert "Tests of the trained weights: 72, 7 CPU minutes in all; version" in text  # 72 x 6 s
    assert "Order by deepfool, ap-loss/table-3: our means put 6 of 6 pairs" in text  # 71 to 74, printed 14.7 to 16.4
    values = next(csv.DictReader(csv_text(table).splitlines()))
    assert (values["suite_version"], values["test_cpu_seconds"]) == (str(SUITE_VERSION), "108.0")
    assert values["deepfool_mean"] == "71.0"


def test_missing_tests_are_named_and_stale_ones_marked(plan):
    finish_all(plan)
    rows = {row.printed.key: row.runs for row in plan.rows}
    Retest("deepfool").path(rows["focal"][1].directory).unlink()
    for run in rows["auc-loss"]:
        write_retest(run, Retest("flip_patch"), 0.2, suite_version=0)
    write_retest(rows["ap-loss"][0], Retest("flip_patch"), 0.2, suite_version=0)
    table = with_retests(collect(plan, run_records(plan.runs())), local)
    status = {row.planned.printed.key: row.status for row in table.rows}
    assert status == {"ce-ohem": "done", "focal": "done", "auc-loss": "stale", "ap-loss": "partial"}
    text = markdown(table)
    assert "not tested: deepfool (2 of 3 seeds)" in text
    assert f"† stale: tested by version 0 of the suite, now {SUITE_VERSION}" in text
    assert "20.0 ± 0.0 †" in text
    assert "2 of 3 seeds; stale and left out: tested by version 0" in text


@pytest.mark.full
def test_publishing_keeps_the_tests_beside_their_trainings(root, registry):
    finish_all(plan_of(root, registry, "table-3"))
    paths = publish(root)
    text = paths[0].read_text()
    assert [path.name for path in paths] == [f"table-3.mini.{kind}" for kind in ("md", "csv", "png", "tex")]
    assert "| CE-Loss+OHEM, ours  | 41.0 ± 1.0 |" in text
    folder = root / "experiments" / "records" / "shapes" / "mini"
    files = sorted((folder / "retests").glob("*.json"))
    assert [path.name for path in files] == sorted(path.name for path in folder.glob("*.json"))
    assert len(files) == 12
    assert sorted(json.loads(files[0].read_text())) == sorted(TESTED)
    before = {path: path.read_bytes() for path in (root / "experiments").rglob("*") if path.is_file()}
    weights = root / "runs" / "shapes" / "mini" / files[0].stem.replace("-seed", "/seed") / "weights.pt"
    trained = weights.read_bytes()
    weights.write_bytes(b"trained again, with other bits")
    publish(root)
    assert not files[0].exists()  # tests of weights that are no more
    assert files[1].exists()
    weights.write_bytes(trained)
    publish(root)
    shutil.rmtree(root / "runs")
    publish(root)
    assert before == {path: path.read_bytes() for path in (root / "experiments").rglob("*") if path.is_file()}
    (folder / files[0].name).unlink()
    publish(root)
    assert not files[0].exists()  # of a training that is no longer there
    assert files[1].exists()


def test_the_command_line_of_a_test(planned):
    """A folder's name may hold blanks, quotes, commas and signs; it arrives in the test's settings as it is."""
    folder = "/far away/it's a, b=c: [d]"
    run = planned.runs()[0]
    assert run.data_root is None
    run = replace(run, overrides=(*run.overrides, f"data.root={quoted(folder)}"))
    assert run.data_root == unquoted(quoted(folder)) == folder
    line = retest_command(run, [Retest("deepfool"), Retest("flip_patch")], gpus=1)
    assert line[2:6] == ["rankdet.retest", f"run={run.directory}", "conditions=deepfool,flip_patch", "device=cuda"]
    assert merge_dotlist(OmegaConf.create({"data": {"root": None}}), line[6:]).data.root == folder


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces trainings and tests by programs that write records; returns what was started."""
    started = []

    def train(run, gpus=0):
        started.append(("train", run.label, run.seed))
        content = json.dumps(record_content(run, 0.2))
        files = {"record.json": content, "weights.pt": f"{run.name}{run.seed}"}
        return [sys.executable, "-c", f"import os; os.chdir({str(run.directory)!r})\n" + writer(files)]

    def test(run, retests, gpus=0):
        started.append(("test", run.label, run.seed, tuple(retest.condition for retest in retests)))
        files = {str(each.path(run.directory)): json.dumps(retest_content(run, each, 0.3)) for each in retests}
        if run.seed == 1 and run.label.startswith("focal"):
            files = dict(list(files.items())[:2])
        return [sys.executable, "-c", writer(files) + "print('error: so many'); raise SystemExit(2)"]

    monkeypatch.setattr(launch, "command", train)
    monkeypatch.setattr(launch, "retest_command", test)
    monkeypatch.setattr("rankdet.results.today.data_hash", lambda run: "aaaa-bbbb")
    return started


def writer(files):
    return "".join(f"open({name!r}, 'w').write({text!r})\n" for name, text in files.items())


@pytest.mark.full
def test_reproduce_trains_tests_and_goes_on_where_it_stopped(root, front_end, stand_in, capsys):
    """One run's tests break off after two of six: the table names the lack, and only the rest is done again."""
    table_2 = root / "experiments" / "ap-loss" / "table-2.yaml"
    table_2.write_text(table_2.read_text().replace("seeds: [0, 1, 2]", "seeds: [1]"))
    main = front_end("reproduce")
    assert main(["table-3", "--jobs", "2"], root) == 1
    out, err = capsys.readouterr()
    assert [each[0] for each in stand_in] == ["train"] * 4 + ["test"] * 4
    assert all(each[3] == TESTED for each in stand_in[4:])
    assert "24 of 24 tests to run, 2 at a time" in err
    assert "[24/24]" in err
    assert "focal-retinanet-voc07 seed 1, black_patch: done" in err
    assert "1 run failed:" in err
    assert "| error: so many" in err
    assert "not tested: flip_patch (0 of 1 seeds)" in out
    assert "saved runs/tables/ap-loss/table-3.mini.md" in out
    stand_in.clear()
    assert main(["table-3", "--dry-run"], root) == 0
    err = capsys.readouterr().err
    assert "0 of 4 trainings are left, 4 tests of finished ones" in err
    assert stand_in == [("test", "focal-retinanet-voc07", 1, TESTED[2:])]
