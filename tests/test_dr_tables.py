"""The manifests of DR loss's three tables against the registry of what is printed."""

import pytest

from rankdet.build import make
from rankdet.config import compose
from rankdet.errors import UserError
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import make_plan
from rankdet.results.retests import Retest, cell, planned_retests

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
SCALES = (400, 500, 600, 700, 800)


@pytest.fixture(scope="module")
def manifests(repo, registry):
    folder = repo / "experiments" / "dr-loss"
    return {path.stem: load_manifest(path, registry) for path in sorted(folder.glob("table-*.yaml"))}


@pytest.fixture(scope="module")
def paper(manifests, repo):
    """Their plans under the paper protocol."""
    return {name: make_plan(manifest, "paper", None, repo) for name, manifest in manifests.items()}


def config_of(row):
    return compose([*row.runs[0].overrides])


def test_every_own_row_is_in_one_manifest_and_done_under_both_protocols(registry, manifests):
    """19 of 24 rows: Table 2's focal loss is quoted."""
    assert {name: len(manifest.rows) for name, manifest in manifests.items()} == {
        "table-1": 12,
        "table-2": 5,
        "table-3": 2,
    }
    for name, manifest in manifests.items():
        table = registry.table(f"dr-loss/{name}")
        assert manifest.tables == (table,)
        assert list(manifest.rows) == [row.key for row in table.own_rows()]
        assert manifest.seeds == (0, 1, 2)
        assert all(row.mini and row.paper for row in manifest.rows.values())


@pytest.mark.full
def test_thresholds_are_tests_of_one_training_a_loss(registry, manifests, repo):
    """Six tests of each of two trainings; focal loss's would be a row of AP-loss's Table 2, on the same drawn set."""
    plan = make_plan(manifests["table-1"], "mini", None, repo)
    assert len(plan.runs()) == 2 * 3
    wanted = [Retest("original", (f"evaluation.score_threshold={threshold}",)) for threshold in THRESHOLDS]
    assert all(tests == wanted for tests in planned_retests(plan).values())
    for row in plan.rows:
        threshold = row.printed.key.rpartition("-")[2]
        assert cell(plan, row.printed, "APS") == (wanted[THRESHOLDS.index(float(threshold))], "AP_small")
        link = row.printed.same_weights_as
        assert link is None or link == f"dr-loss/table-1#{row.runs[0].label}"
    ap_loss = load_manifest(repo / "experiments" / "ap-loss" / "table-2.yaml", registry)
    of_ap_loss = {row.printed.key: row.runs for row in make_plan(ap_loss, "mini", None, repo).rows}
    focal = next(row.runs for row in plan.rows if row.printed.key == "focal-0.05")
    assert [run.directory for run in focal] == [run.directory for run in of_ap_loss["focal-retinanet-coco"]]


def test_other_thresholds_than_the_registry_s_need_their_own_test(manifests):
    """A row of its own trainings may be shown by another test than theirs, and a row that is the same run with it."""
    row = manifests["table-1"].rows["dr-0.05"]
    assert row.trained_as == "dr-0.05"
    assert row.test_under("mini") == row.test_under("paper") == ("evaluation.score_threshold=0.05",)


@pytest.mark.full
def test_what_the_paper_protocol_trains(paper):
    """1x is 90 000 steps of 16 images, lowered at 60 000 and 80 000; VOC07 has 8 750, lowered at 6 250 (Sec. 3)."""
    for name, row_key in (("table-1", "dr-0.05"), ("table-2", "dr-800"), ("table-3", "focal")):
        cfg = config_of(next(row for row in paper[name].rows if row.printed.key == row_key))
        schedule = make(cfg.schedule).for_run(5011, cfg.batch_size)
        seen = (cfg.batch_size, schedule.lr, schedule.total_steps, schedule.milestones)
        short = (16, 0.01, 90_000, (60_000, 80_000))
        assert seen == (short if name != "table-3" else (8, 0.008, 8_750, (6_250,)))
        assert cfg.model.backbone.name == "resnet50"
        assert len(cfg.model.anchors.octave_scales) * len(cfg.model.anchors.ratios) == 9
        assert (list(cfg.augment.shorter), cfg.augment.longest, cfg.test_input.shorter) == ([800], 1333, 800)
        if name != "table-1":  # whose thresholds are tests of their own
            assert cfg.evaluation.score_threshold == THRESHOLDS[0]


@pytest.mark.full
def test_scales_in_training_and_test(paper, manifests, repo):
    """The same shorter side in both; under mini images in the same proportions, 3:20 of them."""
    rows = {row.printed.key: row for row in paper["table-2"].rows if row.runs}
    small = {row.printed.key: row for row in make_plan(manifests["table-2"], "mini", None, repo).rows if row.runs}
    assert len({row.runs[0].config_hash for row in rows.values()}) == len(SCALES)
    for scale in SCALES:
        cfg = config_of(rows[f"dr-{scale}"])
        assert (list(cfg.augment.shorter), cfg.test_input.shorter) == ([scale], scale)
        assert list(config_of(small[f"dr-{scale}"]).data.image_size) == [scale * 3 // 20, scale // 5]
        assert (rows[f"dr-{scale}"].server, small[f"dr-{scale}"].server) == ("coco", None)
    assert all(row.why == "quoted by the paper from elsewhere" for row in paper["table-2"].rows if not row.runs)


@pytest.mark.full
def test_table_3_learns_from_voc2007_alone(paper, manifests, registry, repo):
    """AP-loss's rows on VOC2007 test learn from both years; under mini both stand on the same drawn set."""
    cfg = config_of(paper["table-3"].rows[0])
    assert (cfg.data.name, list(cfg.data.source.splits.trainval), cfg.splits.train) == (
        "voc07", ["VOC2007/trainval"], "trainval",
    )  # fmt: skip
    assert manifests["table-3"].datasets["voc07-test"].mini.name == "shapes"
    other = load_manifest(repo / "experiments" / "ap-loss" / "table-2.yaml", registry)
    assert other.datasets["voc07-test"].paper.name == "voc0712"


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("sets: {voc07-test: voc07}", "sets.voc07-test: .*datasets.yaml has no data set 'voc07'"),
        ("sets: {voc12-test: voc07-alone}", "sets: unknown key 'voc12-test'; known are voc07-test"),
    ],
)
def test_a_set_that_is_not_there(repo, registry, tmp_path, new, message):
    text = (repo / "experiments" / "dr-loss" / "table-3.yaml").read_text()
    old = "sets: {voc07-test: voc07-alone}"
    assert old in text
    (tmp_path / "table-3.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        load_manifest(tmp_path / "table-3.yaml", registry)
