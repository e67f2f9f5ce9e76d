"""The manifests of AP-loss's sixteen tables against the registry of what is printed."""

from collections import Counter
from functools import lru_cache

import pytest

from rankdet.config import compose
from rankdet.errors import UserError
from rankdet.results.launch import job
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import make_plan
from rankdet.results.retests import cell, planned_retests
from rankdet.results.runs import weights_path

TABLES = {  # printed table -> own rows
    "1a": 4, "1b": 5, "1c": 2, "2": 12, "3": 4, "4": 2, "5": 2, "6": 3, "7": 4, "8": 3, "9": 8, "10": 4, "11": 12,
    "12": 8, "13": 6, "14": 12,
}  # fmt: skip
# Trainings of one seed that a manifest is the first to need, in the tables' order: under paper, under mini.
TRAININGS = {
    "table-1": (9, 9), "table-2": (11, 12), "table-3": (0, 0), "table-4": (1, 1), "table-5": (1, 1),
    "table-6": (2, 2), "table-7": (2, 2), "table-8": (2, 2), "table-9": (3, 4), "table-10": (4, 4), "table-11": (9, 9),
    "table-12": (8, 8), "table-13": (4, 4), "table-14": (12, 12),
}  # fmt: skip


@pytest.fixture(scope="module")
def manifests(repo, registry):
    paths = sorted((repo / "experiments" / "ap-loss").glob("table-*.yaml"), key=lambda path: int(path.stem[6:]))
    return {path.stem: load_manifest(path, registry) for path in paths}


@pytest.fixture(scope="module")
def plans_under(manifests, repo):
    """protocol -> manifest -> its plan, each row on its own data set. Composing those of one takes most of a minute."""

    @lru_cache
    def plan(protocol):
        return {name: make_plan(manifest, protocol, None, repo) for name, manifest in manifests.items()}

    return plan


BOTH = pytest.mark.parametrize(
    "protocol", [pytest.param("paper", marks=pytest.mark.full), pytest.param("mini", marks=pytest.mark.stress)]
)


def test_every_own_row_is_in_one_manifest_and_done_under_both_protocols(registry, manifests):
    """91 rows of the authors' own in 16 tables."""
    own = {
        f"{table}#{row.key}"
        for table in (f"ap-loss/table-{name}" for name in TABLES)
        for row in registry.table(table).own_rows()
    }
    assert {name: len(registry.table(f"ap-loss/table-{name}").own_rows()) for name in TABLES} == TABLES
    planned = Counter(
        f"{table.id}#{row.key}"
        for manifest in manifests.values()
        for table, row in manifest.printed()
        if row.key in manifest.rows
    )
    assert planned == dict.fromkeys(own, 1)
    assert len(own) == 91
    assert list(manifests) == list(TRAININGS)
    for manifest in manifests.values():
        assert manifest.seeds == (0, 1, 2)
        assert all(row.paper and row.mini for row in manifest.rows.values())


@BOTH
def test_as_many_trainings_as_the_registry_counts(plans_under, protocol):
    """68 distinct trainings under paper: of 91 rows 18 repeat another row and five test another row's weights again.

    Table 7's start, COCO's AP-loss500, is Table 6's own. Under mini there are two more: Table 2 has batch norm, while
    Tables 1 and 9 have group norm, so that AP-loss and focal loss at batch size 8 are trained in both ways.
    """
    place = ("paper", "mini").index(protocol)
    seen: set[str] = set()
    for name, plan in plans_under(protocol).items():
        assert all(row.runs for row in plan.rows if not row.printed.quoted)
        own = {row.runs[0].config_hash for row in plan.rows if row.runs}
        assert len(own - seen) == TRAININGS[name][place], name
        seen |= own
    assert len(seen) == (68, 70)[place]


@pytest.mark.full
def test_rows_that_the_registry_ties_together_are_the_same_trainings(plans_under):
    """18 rows are another row's training, of which Table 3's four are tested on altered images besides; five are
    another's weights tested otherwise (Tables 4 to 7)."""
    planned = {
        f"{row.table.id}#{row.printed.key}": (plan, row) for plan in plans_under("paper").values() for row in plan.rows
    }
    ties = Counter()
    for address, (plan, row) in planned.items():
        for link in ("same_run_as", "same_weights_as"):
            other = getattr(row.printed, link)
            if row.printed.quoted or other is None:
                continue
            other_plan, other_row = planned[other]
            assert [run.directory for run in row.runs] == [run.directory for run in other_row.runs], (address, other)
            tests = [
                {cell(each, one.printed, column)[0] for column in one.table.columns}
                for each, one in ((plan, row), (other_plan, other_row))
            ]
            ties[link] += 1
            if link == "same_weights_as":
                assert tests[0] != tests[1], address
    assert ties == {"same_run_as": 18, "same_weights_as": 5}


@BOTH
def test_table_7_starts_from_table_6_seed_by_seed(plans_under, repo, protocol):
    """COCO's training comes before both of VOC's, which wait for its record."""
    plan, table_6 = plans_under(protocol)["table-7"], plans_under(protocol)["table-6"]
    coco = next(row.runs for row in table_6.rows if row.printed.key == "ap-loss500")
    rows = {row.printed.key: row.runs for row in plan.rows if row.runs}
    assert set(rows) == {"ours-voc07", "ours-voc12", "ours-ms-voc07", "ours-ms-voc12"}
    for runs in rows.values():
        for run, before in zip(runs, coco, strict=True):
            assert run.after.directory == before.directory and run.seed == before.seed
            assert f"init_from={weights_path(before, repo)}" in run.overrides
            assert "fresh_class_head=true" in run.overrides
            assert job(run).needs == (before.directory / "record.json",)
    assert len(plan.runs()) == 3 * (2 + 1)
    order = [coco[0], rows["ours-voc07"][0], rows["ours-voc12"][0]]
    assert [run.directory for run in plan.runs()[:3]] == [run.directory for run in order]
    assert coco[0].data not in plan.data_names


@pytest.mark.full
def test_benchmarks_differ_from_the_ablations_as_the_paper_says(plans_under):
    """Sec. 4.1.1, 4.4 and A4.2.3: a ResNet-101 or ResNeXt-101, tested at 500 or 800; Table 7 in our own 40 epochs."""
    seen = {}
    for name in ("table-4", "table-6", "table-7", "table-12"):
        for row in plans_under("paper")[name].rows:
            if row.runs and row.printed.key in ("ap-loss500", "ap-loss800", "ours-voc12", "focal-coco"):
                cfg = compose([*row.runs[0].overrides])
                assert (cfg.schedule.lr, cfg.schedule.lr_batch, cfg.batch_size) == (1e-3, 8, 8)
                size = (cfg.data.image_size[0], cfg.test_input.shorter)
                seen[name, row.printed.key] = (cfg.model.backbone.name, *size, cfg.data.name, cfg.schedule.length)
    assert seen == {
        ("table-4", "ap-loss500"): ("resnet101", 512, 500, "voc0712", 160),
        ("table-6", "ap-loss500"): ("resnet101", 512, 500, "coco2017", 100),
        ("table-6", "ap-loss800"): ("resnet101", 800, 800, "coco2017", 100),
        ("table-7", "ours-voc12"): ("resnet101", 512, 500, "voc07pp12", 40),
        ("table-12", "focal-coco"): ("resnext101_32x8d", 512, 500, "coco2017", 100),
    }


@BOTH
def test_what_the_multi_scale_rows_test(plans_under, protocol):
    """Five rows: the single-scale weights at ten views an image, 400 to 800 pixels under paper."""
    test = {"paper": "test_input=short_500_multi", "mini": "test_input=keep_aspect_multi"}[protocol]
    found = []
    for plan in plans_under(protocol).values():
        for row in plan.rows:
            if row.runs and "-ms" in row.printed.key:
                retest = cell(plan, row.printed, next(iter(row.table.columns)))[0]
                assert retest.overrides == (test,)
                assert retest in planned_retests(plan)[row.runs[0]]
                found.append(row.printed.key)
    assert len(found) == 5


def test_a_start_that_is_not_done_is_refused(repo, registry, tmp_path):
    """Table 7 under mini, with Table 6 left out of it."""
    for name in ("table-6", "table-7"):
        text = (repo / "experiments" / "ap-loss" / f"{name}.yaml").read_text()
        if name == "table-6":
            text = text.replace(
                "ap-loss500: {overrides: [loss=ap], mini: true",
                "ap-loss500: {overrides: [loss=ap], mini: false, reason: no",
            )
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(UserError, match=r"voc07\.start_from: 'table-6#ap-loss500' is not done under each protocol"):
        load_manifest(tmp_path / "table-7.yaml", registry)
    text = (tmp_path / "table-7.yaml").read_text().replace("table-6#ap-loss500", "table-6#ap-loss500-ms")
    (tmp_path / "table-7.yaml").write_text(text)
    with pytest.raises(UserError, match=r"'table-6#ap-loss500-ms' is no row with runs of its own"):
        load_manifest(tmp_path / "table-7.yaml", registry)
