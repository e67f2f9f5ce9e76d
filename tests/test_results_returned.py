"""Rows that an evaluation server measures: archives, numbers that come back, older ones, and their publishing."""

import json
import shutil
import tarfile
from dataclasses import replace

import pytest
from results_made_up import record_content
from voc_folders import annotation, voc_folder

from rankdet.errors import UserError
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import make_plan
from rankdet.results.publish import publish
from rankdet.results.registry import load_registry
from rankdet.results.retests import file_hash, planned_retests
from rankdet.results.returned import read_returned, returned_path, store
from rankdet.results.submissions import enter_command, find_submission, outstanding, submit
from rankdet.robustness.conditions import SUITE_VERSION


@pytest.fixture(scope="module")
def planned(repo, tmp_path_factory):
    """Table 5 in a checkout of its own with two seeds, and its plan under paper; composing takes a second."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "experiments" / "ap-loss").mkdir(parents=True)
    for name in ("registry.yaml", "datasets.yaml"):
        shutil.copy(repo / "experiments" / name, root / "experiments")
    text = (repo / "experiments" / "ap-loss" / "table-5.yaml").read_text().replace("[0, 1, 2]", "[0, 1]")
    (root / "experiments" / "ap-loss" / "table-5.yaml").write_text(text)
    (root / "experiments" / "published.yaml").write_text("- {paper: ap-loss, table: table-5, protocol: paper}\n")
    registry = load_registry(root / "experiments" / "registry.yaml")
    return root, make_plan(load_manifest(root / "experiments/ap-loss/table-5.yaml", registry), "paper", None, root)


@pytest.fixture
def checkout(planned, monkeypatch):
    """(root, plan) with both seeds trained and tested at one scale and at several: detections and no metrics."""
    root, plan = planned
    shutil.rmtree(root / "runs", ignore_errors=True)
    shutil.rmtree(root / "experiments" / "records", ignore_errors=True)
    one = annotation(("cat", 1, 1, 10, 10), ("dog", 1, 1, 9, 9))
    images = voc_folder(root / "runs" / "images", {"test": ["a", "b"]}, {"a": one, "b": one}, "ab")
    for run in plan.runs():
        finish(run, images, planned_retests(plan)[run][0])
    monkeypatch.setattr("rankdet.results.today.data_hash", lambda run: "aaaa-bbbb")
    return root, plan


def finish(run, images, retest):
    """What a training and a test of its weights leave where a server keeps the objects."""
    nothing = {"voc_AP50_area": None, "AP": None, "AP50": None}
    names = {"config_hash": run.config_hash, "data_name": run.data, "metrics": nothing, "protocol_name": "paper"}
    record = record_content(run, 0.0, **names)
    write(run.directory / "record.json", record)
    (run.directory / "weights.pt").write_bytes(f"{run.seed}".encode())
    source = "{_target_: rankdet.data.voc.VOCSource, root: '${data.root}'}"
    (run.directory / "config.yaml").write_text(f"data: {{root: {images}, source: {source}}}\n")
    detection = {"image_id": 1, "category_id": 2, "bbox": [0, 0, 5, 5], "score": 0.5 + run.seed / 10}
    write(run.directory / "evaluation" / "test" / "detections.json", [detection])
    write(retest.detections(run.directory), [detection | {"score": 0.25}])
    copied = ("config_hash", "seed", "data_hash", "split", "threads", "commit", "dirty", "torch", "hardware", "date")
    content = {key: record[key] for key in copied} | {
        "condition": retest.condition, "overrides": list(retest.overrides), "suite_version": SUITE_VERSION,
        "suite_seed": 0, "weights_hash": file_hash(run.directory / "weights.pt"), "num_images": 2, "seconds": 2.0,
        "cpu_seconds": 6.0, "metrics": nothing,
    }  # fmt: skip
    write(retest.path(run.directory), content)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def command(front_end):
    """command(script, arguments, root) -> exit code."""
    mains = {name: front_end(name) for name in ("reproduce", "enter_result")}
    return lambda name, arguments, root: mains[name](arguments, root)


def line_of(text, row):
    return next(line for line in text.splitlines() if line.startswith(f"| {row}, ours"))


def test_reproducing_writes_the_archives_and_says_where_they_go(checkout, command, capsys):
    """Four: two seeds, each at one scale and at several. A second call leaves them alone and says the same."""
    root, plan = checkout
    assert command("reproduce", ["table-5", "--protocol", "paper"], root) == 0
    out = capsys.readouterr().out
    assert "2 of 2 seeds wait for the server's numbers" in line_of(out, "AP-loss500 (ResNet-101)")
    lines = [line for line in out.splitlines() if line.startswith("submit ")]
    assert len(lines) == len(outstanding(plan)) == 4
    assert "_voc2012_comp4.tar.gz to http://host.robots.ox.ac.uk:8080 as VOC2012, comp4; then make " in lines[0]
    assert lines[0].endswith("enter-result TABLE=5 ROW=ap-loss500 SEED=0 mAP50=... aero=... bike=... bird=... ...")
    again = replace(plan, args=("gpus=2", "loss.delta=0.5"))
    assert ' SEED=0 ARGS="gpus=2 loss.delta=0.5" mAP50=... ' in enter_command(again, outstanding(plan)[0])
    other = replace(plan, manifest=replace(plan.manifest, paper="alrp"))
    assert "make enter-result PAPER=alrp TABLE=5 ROW=" in enter_command(other, outstanding(plan)[0])
    assert "short_500_multi" in lines[2] and "ROW=ap-loss500-ms SEED=0" in lines[2]
    archives = sorted((root / "runs" / "submissions").iterdir())
    assert len(archives) == 4
    named = root / lines[0].split()[1]
    with tarfile.open(named) as archive:
        dogs = archive.extractfile("results/VOC2012/Main/comp4_det_test_dog.txt").read()
    assert dogs == b"b 0.5 1.00 1.00 5.00 5.00\n"
    before = [path.stat().st_mtime_ns for path in archives]
    assert list(submit(plan, root)) == lines
    assert [path.stat().st_mtime_ns for path in archives] == before


def test_numbers_come_back_into_the_table(checkout, command, capsys):
    """84.5 and 85.5 for two seeds are 85.0 +- 0.7; a class given later joins what is there; the other row waits."""
    root, plan = checkout
    assert command("enter_result", ["table-5", "ap-loss500", "AP50=84.5"], root) == 0
    assert "ap-loss500 seed 0, returned on 20" in capsys.readouterr().out
    assert command("enter_result", ["table-5", "ap-loss500", "--seed", "1", "mAP50=85.5", "aero=90"], root) == 0
    capsys.readouterr()
    assert command("enter_result", ["table-5", "ap-loss500", "aero=92"], root) == 0
    assert "voc_AP50_area 84.50  voc_AP50_area/aeroplane 92.00" in capsys.readouterr().out
    assert command("reproduce", ["table-5", "--protocol", "paper"], root) == 0
    out = capsys.readouterr().out
    cells = [cell.strip() for cell in line_of(out, "AP-loss500 (ResNet-101)").split("|")]
    assert cells[2:5] == ["85.0 ± 0.7", "91.0 ± 1.4", "-"]
    assert cells[-3] == "2" and cells[-2].startswith("as the server returned it on 20")
    assert "2 of 2 seeds wait" in line_of(out, "AP-loss500+ (ResNet-101)")
    assert "- Rows on VOC2012 test show what the evaluation server returned" in out
    assert out.count("submit runs/") == 2 == len(outstanding(plan))


@pytest.mark.full
def test_a_test_at_several_scales_has_numbers_of_its_own(checkout, command, capsys):
    """With a seed left: the row shows the one that came back."""
    root, plan = checkout
    assert command("enter_result", ["table-5", "ap-loss500-ms", "mAP50=86"], root) == 0
    assert command("reproduce", ["table-5", "--protocol", "paper"], root) == 0
    out = capsys.readouterr().out
    several = line_of(out, "AP-loss500+ (ResNet-101)")
    assert "86.0" in several and "1 of 2 seeds wait for the server's numbers" in several
    assert "2 of 2 seeds wait" in line_of(out, "AP-loss500 (ResNet-101)")
    path = returned_path(find_submission(plan, "ap-loss500-ms", 0).detections)
    assert path.name == "original-test_input-short_500_multi.server.json"
    assert read_returned(path)["metrics"] == {"voc_AP50_area": 0.86}


@pytest.mark.full
def test_numbers_for_older_detections_are_noticed(checkout, command, capsys):
    root, plan = checkout
    assert command("enter_result", ["table-5", "ap-loss500", "mAP50=84.5", "aero=90"], root) == 0
    one = find_submission(plan, "ap-loss500", 0)
    assert one.answered
    write(one.detections, [])
    assert not one.answered
    assert command("reproduce", ["table-5", "--protocol", "paper"], root) == 0
    shown = line_of(capsys.readouterr().out, "AP-loss500 (ResNet-101)")
    assert "84.5" not in shown and "was for older detections; submit again" in shown
    content = store(one.detections, "voc", {"voc_AP50_area": 0.7}, "2026-01-02")
    assert content["metrics"] == {"voc_AP50_area": 0.7}  # those of older detections are gone


@pytest.mark.full
def test_published_numbers_outlive_the_runs(checkout, command):
    root, _ = checkout
    for seed, value in (("0", "84.5"), ("1", "85.5")):
        assert command("enter_result", ["table-5", "ap-loss500", "--seed", seed, f"mAP50={value}"], root) == 0
    text = publish(root)[0].read_text()
    assert "85.0 ± 0.7" in line_of(text, "AP-loss500 (ResNet-101)") and "as the server returned it on" in text
    shutil.rmtree(root / "runs")
    assert publish(root)[0].read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ap-loss600", "mAP50=80"], "ROW=ap-loss600: no row of table-5 that a server measures; these are ap-loss500,"),
        (["ap-loss500", "--seed", "7", "mAP50=80"], "SEED=7: the row has the seeds 0, 1"),
        (["ap-loss500", "AP75=80"], "ap-loss/table-5 has no column 'AP75'; it has mAP50, aero"),
        (["ap-loss500", "mAP50=eighty"], "mAP50=eighty: 'eighty' is not a number"),
        (["ap-loss500", "mAP50=nan"], "a percentage lies between 0 and 100"),
        (["ap-loss500", "mAP50=101"], "a percentage lies between 0 and 100"),
        (["ap-loss500", "mAP50=0.845", "aero=0.9"], "look like fractions"),
        (["ap-loss500", "mAP50=80", "AP50=81"], "mAP50 is given twice"),
        (["ap-loss500"], "no numbers are given: add some of mAP50=..."),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(checkout, command, capsys, arguments, message):
    root, _ = checkout
    assert command("enter_result", ["table-5", *arguments], root) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert not list(root.rglob("*.server.json"))


def test_without_a_table(checkout, command, capsys):
    """As make hands it on where TABLE= is left out."""
    root, _ = checkout
    assert command("enter_result", ["table-", "ap-loss500", "mAP50=80"], root) == 2
    assert capsys.readouterr().err.startswith("error: enter-result: set TABLE= and ROW=, ")


def test_nothing_is_entered_for_what_was_not_tested(checkout):
    _, plan = checkout
    one = find_submission(plan, "ap-loss500-ms", 1)
    one.detections.unlink()
    with pytest.raises(UserError, match="the run has to be trained and tested before it is submitted"):
        find_submission(plan, "ap-loss500-ms", 1)
    assert len(outstanding(plan)) == 3
