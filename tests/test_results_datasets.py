"""What stands for a printed data set: the committed list, DATA= beside it, and tables of several sets."""

from dataclasses import replace

import pytest
from results_made_up import make_plan as made_up_plan
from results_made_up import printed_row, printed_table, record_content

from rankdet.build import open_source
from rankdet.config import compose
from rankdet.errors import UserError
from rankdet.evaluation.submission.images import COCO, VOC
from rankdet.results.datasets import DataChoice, PrintedSet, choose_data, load_datasets, stand_ins
from rankdet.results.describe_tuning import tuning_lines
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import make_plan
from rankdet.results.records import Record
from rankdet.results.registry import load_registry
from rankdet.results.render import csv_text, markdown
from rankdet.results.tables import collect, orderings
from rankdet.results.today import data_hashes

TWO_SETS = """
tables: [ap-loss/table-7]
experiment: ap_table_2
seeds: [0, 1]
rows:
  ours-voc07: {overrides: [loss=ap], mini: true, paper: true}
  ours-voc12: {overrides: [loss=ap], mini: true, paper: true}
  ours-ms-voc07: {same_weights_as: ours-voc07}
  ours-ms-voc12: {same_weights_as: ours-voc12}
"""
BCCD = DataChoice("bccd", ("data=voc", "data.root=bccd"))


@pytest.fixture(scope="module")
def sets(repo):
    return load_datasets(repo / "experiments" / "datasets.yaml")


@pytest.fixture(scope="module")
def manifest(repo, tmp_path_factory):
    path = tmp_path_factory.mktemp("paper") / "table-7.yaml"
    path.write_text(TWO_SETS)
    return load_manifest(path, load_registry(repo / "experiments" / "registry.yaml"))


def test_every_data_set_of_the_ap_loss_paper_has_a_stand_in(repo, sets):
    tables = load_registry(repo / "experiments" / "registry.yaml").tables.values()
    printed = {row.dataset for table in tables if table.id.startswith("ap-loss/") for row in table.own_rows()}
    assert printed == {"voc07-test", "voc12-test", "coco-minival", "coco-test-dev"} <= set(sets)
    assert {key: one.server for key, one in sets.items() if one.server} == {"voc12-test": VOC, "coco-test-dev": COCO}


def test_settings_under_the_paper_protocol(sets):
    """Sec. 4.1.2: COCO trains for 100 epochs and drops at 60 and 80; VOC, for 160, at 110 and 140."""
    schedules, splits = {}, {}
    for key, one in sets.items():
        overrides = ["protocol=paper", *one.own("paper").overrides, *one.settings_under("paper")]
        cfg = compose(overrides)
        schedules[key] = (cfg.schedule.length, list(cfg.schedule.milestones))
        splits[key] = (cfg.data.name, cfg.splits.test)
        assert one.settings_under("mini") == one.settings_under("mini_long") == ()
    assert schedules["voc07-test"] == schedules["voc12-test"] == (160, [110, 140])
    assert schedules["coco-minival"] == schedules["coco-test-dev"] == (100, [60, 80])
    assert splits["voc07-test"] == ("voc0712", "test") and splits["voc12-test"] == ("voc07pp12", "test")
    assert splits["coco-minival"] == ("coco2017", "test") and splits["coco-test-dev"] == ("coco2017", "test-dev")


def test_the_drawn_sets_differ(sets, tmp_path):
    """In their pictures: no two share a file's content. Small shapes are small, mixed ones both."""
    drawn = {}
    for one in sets.values():
        small = [f"data.source.num_{split}=12" for split in ("train", "val", "test")]
        root = f"data.root={tmp_path / one.mini.name}"
        drawn[one.mini.name] = open_source(compose([*one.mini.overrides, root, *small])).read("trainval")
    assert set(drawn) == {"shapes", "shapes_more", "shapes_small", "shapes_mixed"}
    pictures = [record.path.read_bytes() for found in drawn.values() for record in found.records]
    assert len(set(pictures)) == len(pictures) == 4 * 24
    assert len({found.classes for found in drawn.values()}) == 1
    sides = {
        name: [max(box[2] - box[0], box[3] - box[1]) for record in found.records for box in record.boxes]
        for name, found in drawn.items()
    }
    assert max(sides["shapes_small"]) < 48 < max(sides["shapes"]) < 64 < max(sides["shapes_mixed"])
    assert compose(["data=shapes_more"]).data.source.num_train > compose([]).data.source.num_train


def test_what_data_stands_for(sets):
    """Nothing given: each its own. A set's own name: that set. Anything else: VOC2007, or the first of the table."""
    three = [sets[key] for key in ("voc07-test", "voc12-test", "coco-test-dev")]
    own = {one.key: one.mini for one in three}
    assert stand_ins(three, "mini", None) == stand_ins(three, "mini_long", None) == own
    assert stand_ins(three, "paper", None) == {one.key: one.paper for one in three}
    assert stand_ins(three, "mini", choose_data("shapes_more")) == {"voc12-test": sets["voc12-test"].mini}
    assert stand_ins(three, "paper", choose_data("coco2017")) == {"coco-test-dev": sets["coco-test-dev"].paper}
    assert stand_ins(three, "mini", BCCD) == {"voc07-test": BCCD}
    assert stand_ins(three[1:], "mini", BCCD) == {"voc12-test": BCCD}
    with pytest.raises(UserError, match="the drawn sets are for mini"):
        stand_ins(three, "paper", choose_data("shapes_more"))


def own_rows(plan):
    return [row for row in plan.rows if not row.printed.quoted]


def test_rows_are_planned_on_their_own_sets(manifest, tmp_path):
    """Without DATA two trainings on two sets; with it, that for VOC2007 alone. No data lie anywhere."""
    plan = make_plan(manifest, "mini", None, tmp_path)
    assert plan.file_stem == "table-7.mini" and plan.data_names == ("shapes", "shapes_more")
    assert [row.runs[0].data for row in own_rows(plan)] == ["shapes", "shapes_more"] * 2
    assert len({run.config_hash for run in plan.runs()}) == 2
    for row in own_rows(plan):
        assert row.runs[0].directory.relative_to(tmp_path).parts[:3] == ("runs", row.runs[0].data, "mini")
    paper = make_plan(manifest, "paper", None, tmp_path)
    assert paper.file_stem == "table-7.paper" and paper.data_names == ("voc0712", "voc07pp12")
    assert [row.server for row in own_rows(paper)] == [None, "voc"] * 2
    one = make_plan(manifest, "mini", BCCD, tmp_path)
    assert one.file_stem == "table-7.bccd" and one.data_names == ("bccd",)
    assert [row.why for row in own_rows(one)] == [None, "on VOC2012 test; DATA=bccd stands for VOC2007 test"] * 2
    more = make_plan(manifest, "mini", choose_data("shapes_more"), tmp_path)
    assert more.file_stem == "table-7.shapes_more"
    assert [bool(row.runs) for row in own_rows(more)] == [False, True] * 2
    assert own_rows(more)[1].runs == own_rows(plan)[1].runs


def test_settings_of_another_data_set_serve_and_are_said_to(manifest, repo):
    plan = make_plan(manifest, "mini", None, repo)
    lines = "\n".join(tuning_lines(plan, plan.runs()))
    assert lines.count("Tuned per loss on shapes") == 1
    assert "These settings were tuned on shapes, not on shapes_more; make tune DATA=... searches here." in lines
    assert "ap: schedule.lr 0.004, box_loss.weight 4.0" in lines


def test_a_table_of_two_sets(tmp_path):
    """a, b on one set and c, d on the other. Each set has a line, a column, an order and a data hash of its own."""
    printed = [printed_row(key, ap) for key, ap in (("a", 50.0), ("b", 40.0), ("c", 45.0), ("d", 30.0))]
    table = printed_table(*(replace(row, dataset="one" if row.key in "ab" else "two") for row in printed))
    plan = made_up_plan(tmp_path, table, seeds=(0,))
    rows = [replace(row, runs=(on(row.runs[0], "far"),)) if row.printed.key in "cd" else row for row in plan.rows]
    nothing = DataChoice("", ())
    named = {key: PrintedSet(key, f"Set {key}", nothing, nothing, (), None) for key in ("one", "two")}
    plan = replace(plan, rows=tuple(rows), manifest=replace(plan.manifest, datasets=named))
    records = []
    for row, ap in zip(plan.rows, (0.3, 0.2, 0.1, 0.4), strict=True):
        data = {"data_name": row.runs[0].data, "data_hash": "aaaa-bbbb" if row.printed.key in "ab" else "cccc-dddd"}
        records.append(Record(row.runs[0].directory / "record.json", record_content(row.runs[0], ap, **data)))
    found = collect(plan, records)
    assert {row.status for row in found.rows} == {"done"}
    assert [(one.data, one.num_pairs, one.as_printed) for one in orderings(found, "AP")] == [
        ("made", 1, 1), ("far", 1, 0),
    ]  # fmt: skip
    text = markdown(found)
    for part in (
        "protocol mini on made, far",
        "- Data sets: made stands for Set one; far stands for Set two.",
        "- Data: made; trained on trainval (40 images, annotations hashed to aaaa), reported on test (20 images, bbbb)",
        "- Data: far; trained on trainval (40 images, annotations hashed to cccc), reported on test (20 images, dddd)",
        "Order by AP, paper/table-9, far: our means put 0 of 1 pair",
    ):
        assert part in text, part
    half = {row.printed.key: {"AP": None, "AP50": 50.0} for row in plan.rows if row.printed.dataset == "two"}
    rows = [
        replace(row, printed=replace(row.printed, values=half.get(row.printed.key, row.printed.values)))
        for row in plan.rows
    ]
    text = markdown(collect(replace(plan, rows=tuple(rows)), records))
    assert "Order by AP, paper/table-9, made:" in text and "Order by AP50, paper/table-9, far:" not in text  # a tie
    rows[3] = replace(rows[3], printed=replace(rows[3].printed, values={"AP": None, "AP50": 60.0}))
    text = markdown(collect(replace(plan, rows=tuple(rows)), records))
    assert text.count("Order by AP, ") == text.count("Order by AP50, ") == 1
    assert "Order by AP50, paper/table-9, far: our means put 1 of 1 pair" in text
    assert [line.split(",")[4] for line in csv_text(found).splitlines()[1:]] == ["made", "made", "far", "far"]


def on(run, data):
    """The run with its directory among another data set's."""
    _, _, protocol, name, seed = run.directory.parts[-5:]
    return replace(run, directory=run.directory.parents[3] / data / protocol / name / seed)


def test_the_data_of_each_set_are_read_once(manifest, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("rankdet.results.today.data_hash", lambda run: read.append(run.data) or f"{run.data}-hash")
    hashes = data_hashes(make_plan(manifest, "mini", None, tmp_path).runs())
    assert read == ["shapes", "shapes_more"]
    assert hashes == {(name, "trainval", "test"): f"{name}-hash" for name in read}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- voc07-test", "expected a mapping"),
        ("a: {title: A, mini: shapes}", "a: key 'paper' is missing"),
        ("a: {title: A, mini: shapse, paper: voc0712}", "a.mini: there is no data set 'shapse'; there are coco2017"),
        ("a: {title: A, mini: shapes, paper: voc0712, sched: coco}", "a: unknown key 'sched'"),
    ],
)
def test_mistakes(tmp_path, text, message):
    path = tmp_path / "datasets.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_datasets(path)
