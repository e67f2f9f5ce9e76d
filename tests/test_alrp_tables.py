"""The manifests of aLRP's eight tables and of its Fig. 1 against the registry of what is printed."""

from collections import Counter
from functools import lru_cache

import pytest

from rankdet.figures.manifest import is_figure, load_figure
from rankdet.results.launch import shown
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import make_plan
from rankdet.results.retests import Retest, cell, planned_retests
from rankdet.results.runs import config_of

# Trainings of one seed that a manifest is the first to need, in the tables' order, under either protocol.
TRAININGS = {"table-2": 5, "table-3": 13, "table-4": 3, "table-5": 0, "table-6": 6, "table-7": 3, "table-8": 3}
ROWS = {"table-2": 5, "table-3": 16, "table-4": 4, "table-5": 3, "table-6": 7, "table-7": 3, "table-8": 3}
WORKED_OUT = {"figure-1": 10 + 3 + 3, "table-1": 8}  # own rows of what nothing is trained for


@pytest.fixture(scope="module")
def manifests(repo, registry):
    paths = [repo / "experiments" / "alrp" / f"{name}.yaml" for name in TRAININGS]
    return {path.stem: load_manifest(path, registry) for path in paths}


@pytest.fixture(scope="module")
def plans_under(manifests, repo):
    """protocol -> manifest -> its plan, each row on its own data set."""

    @lru_cache
    def plan(protocol):
        return {name: make_plan(manifest, protocol, None, repo) for name, manifest in manifests.items()}

    return plan


BOTH = pytest.mark.parametrize(
    "protocol", [pytest.param("paper", marks=pytest.mark.full), pytest.param("mini", marks=pytest.mark.stress)]
)


def test_every_own_row_is_in_one_manifest_and_done_under_both_protocols(repo, registry, manifests):
    """65 rows of the authors' own: 41 in seven tables that are trained or tested for, 24 that are worked out."""
    own = {
        f"{table.id}#{row.key}"
        for table in registry.tables.values()
        if table.id.startswith("alrp/")
        for row in table.own_rows()
    }
    found = Counter(
        f"{table.id}#{row.key}"
        for manifest in manifests.values()
        for table, row in manifest.printed()
        if row.key in manifest.rows
    )
    assert {name: len(manifest.rows) for name, manifest in manifests.items()} == ROWS
    for name, count in WORKED_OUT.items():
        path = repo / "experiments" / "alrp" / f"{name}.yaml"
        assert is_figure(path)
        rows = [
            f"{table}#{row.key}" for table in load_figure(path).spec.tables for row in registry.table(table).own_rows()
        ]
        assert len(rows) == count
        found.update(rows)
    assert found == dict.fromkeys(own, 1)
    assert len(own) == 65
    for manifest in manifests.values():
        assert manifest.seeds == (0, 1, 2)
        assert all(row.paper and row.mini for row in manifest.rows.values())


@BOTH
def test_as_many_trainings_as_the_registry_counts(plans_under, protocol):
    """33 distinct trainings: of 41 rows five repeat another row and three test another row's weights again."""
    seen: set[str] = set()
    for name, plan in plans_under(protocol).items():
        assert all(row.runs for row in plan.rows if not row.printed.quoted)
        own = {row.runs[0].config_hash for row in plan.rows if row.runs}
        assert len(own - seen) == TRAININGS[name], name
        seen |= own
    assert len(seen) == 33


@pytest.mark.full
def test_rows_that_the_registry_ties_together_are_the_same_trainings(plans_under):
    """Five rows are another row's training and test; three are another's weights tested otherwise (Tables 5 and 6)."""
    planned = {
        f"{row.table.id}#{row.printed.key}": (plan, row) for plan in plans_under("paper").values() for row in plan.rows
    }
    ties = Counter()
    for plan, row in planned.values():
        for link in ("same_run_as", "same_weights_as"):
            other = getattr(row.printed, link)
            if other is None or row.printed.quoted:
                continue
            other_plan, other_row = planned[other]
            assert [run.directory for run in row.runs] == [run.directory for run in other_row.runs]
            tests = [cell(each, one.printed, "AP")[0] for each, one in ((plan, row), (other_plan, other_row))]
            assert (tests[0] == tests[1]) == (link == "same_run_as")
            ties[link] += 1
    assert ties == {"same_run_as": 5, "same_weights_as": 3}


@BOTH
def test_what_is_tested_again(plans_under, protocol):
    """Table 5's bounds, from the same weights as the row above them; Table 6's last row at ten views an image."""
    plan = plans_under(protocol)["table-5"]
    bounds = [Retest("lower_bound"), Retest("upper_bound")]
    assert planned_retests(plan) == dict.fromkeys(plan.rows[0].runs, bounds)
    assert [cell(plan, plan.rows[1].printed, column) for column in ("rho", "AP90")] == [
        (bounds[0], "rho"),
        (bounds[0], "AP90"),
    ]
    plan = plans_under(protocol)["table-6"]
    scales = {"paper": "test_input=short_800_multi", "mini": "test_input=keep_aspect_multi"}[protocol]
    assert planned_retests(plan)[plan.rows[-1].runs[0]] == [Retest("original", (scales,))]


@pytest.mark.full
def test_settings_under_paper(plans_under):
    """Sec. 5, 5.3 and 5.4, and what the registry has of them; 4 GPUs rank their own images."""
    seen = {}
    for name, plan in plans_under("paper").items():
        for row in plan.rows:
            if not row.runs or name == "table-3":
                continue
            cfg = config_of(row.runs[0].overrides)
            assert (cfg.gpus, cfg.schedule.length, cfg.schedule.unit) == (4, 100, "epochs")
            assert cfg.data.name == "coco2017"
            assert cfg.splits.test == ("test-dev" if name == "table-6" else "test")
            batch, lr = cfg.batch_size, cfg.schedule.lr * cfg.batch_size / cfg.schedule.lr_batch
            size = (cfg.data.image_size[0], cfg.test_input.shorter)
            seen[name, row.printed.key] = (cfg.model.backbone.name, *size, batch, lr, list(cfg.schedule.milestones))
    usual = ("resnet50", 512, 500, 32, 0.008, [60, 80])
    late, at_800 = (512, 500, 32, 0.008, [75, 95]), (800, 800, 16, 0.004, [60, 80])
    others = {
        ("table-2", "ap-loss"): (*usual[:4], 0.002, usual[5]),
        ("table-7", "focal-sl1"): (*usual[:4], 0.02, usual[5]),
        ("table-7", "ap-sl1"): (*usual[:4], 0.002, usual[5]),
        ("table-6", "alrp500-r-50"): ("resnet50", *late),
        ("table-6", "alrp500-r-101"): ("resnet101", *late),
        ("table-6", "alrp500-x-101"): ("resnext101_64x4d", *late),
        ("table-6", "alrp800-r-101"): ("resnet101", *at_800),
        ("table-6", "alrp800-x-101"): ("resnext101_64x4d", *at_800),
        ("table-6", "alrp800-x-101-dcn"): ("resnext101_64x4d", *at_800),
        ("table-6", "alrp800-x-101-dcn-ms"): ("resnext101_64x4d", *at_800),
        ("table-8", "ce-l1"): (*usual[:4], 0.04, usual[5]),
        ("table-8", "ce-giou"): (*usual[:4], 0.04, usual[5]),
        ("table-8", "alrp"): (*usual[:4], 0.012, usual[5]),
    }
    assert seen == dict.fromkeys(seen, usual) | others
    assert len(seen) == 41 - 16


@pytest.mark.full
def test_weights_of_table_3(plans_under):
    """Seven constant weights a row, the same for IoU and GIoU, and self-balancing."""
    found = {}
    for row in plans_under("paper")["table-3"].rows:
        loss = config_of(row.runs[0].overrides).loss
        found.setdefault(loss.overlap, []).append(loss.localisation_weight)
    assert found == {overlap: [1, 2, 5, 10, 15, 25, 50, None] for overlap in ("iou", "giou")}


@pytest.mark.full
def test_a_command_of_the_plan_starts_the_four_processes(plans_under):
    """Whatever GPUS says; make itself asks for GPUS=4."""
    line = shown(plans_under("paper")["table-2"].rows[0].runs[0])
    assert line.startswith("python -m rankdet.torchrun --standalone --nproc-per-node=4 -m rankdet.train ")
    assert " gpus=4 " in line
    assert "runtime.split" not in line


@pytest.mark.full
def test_mini_shares_the_row_of_ap_loss(repo, registry):
    """AP-loss's own Table 2 has the same training on the set that stands for COCO minival."""
    other = load_manifest(repo / "experiments" / "ap-loss" / "table-2.yaml", registry)
    ours = load_manifest(repo / "experiments" / "alrp" / "table-2.yaml", registry)
    plans = [make_plan(manifest, "mini", None, repo) for manifest in (ours, other)]
    own = next(row.runs for row in plans[0].rows if row.printed.key == "ap-loss")
    same = next(row.runs for row in plans[1].rows if row.printed.key == "ap-loss-retinanet-coco")
    assert [run.directory for run in own] == [run.directory for run in same]
