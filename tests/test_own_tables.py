"""Tables that no paper prints: how they are written, what is shown of them, and the two of the checkout."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import yaml
from results_made_up import record_content

from rankdet.build import build_detector
from rankdet.errors import UserError
from rankdet.overview.conclusions import conclusions
from rankdet.results.cost_plot import cost_columns
from rankdet.results.describe_order import order_lines
from rankdet.results.latex import latex
from rankdet.results.manifest import Cell, load_manifest
from rankdet.results.output import save_table
from rankdet.results.plan import make_plan
from rankdet.results.records import Record
from rankdet.results.render import csv_text, markdown
from rankdet.results.retests import has_retests, with_retests
from rankdet.results.runs import config_of
from rankdet.results.separation import by_chance, pairs, separated
from rankdet.results.tables import collect
from rankdet.results.tune import load_grid

MANIFEST = """
title: Two losses
dataset: voc07-test
columns:
  AP: {label: AP}
  rho: {label: rank correlation, unit: correlation}
  step: {label: a step, unit: ms, better: lower, condition: training_step, metric: ms}
experiment: ap_table_2
seeds: [0, 1]
rows:
  one: {label: The one, overrides: [loss=focal], mini: true}
  other: {label: The other, overrides: [loss=ap], mini: true}
"""


@pytest.fixture
def plan(registry, tmp_path):
    folder = tmp_path / "experiments" / "mine"
    folder.mkdir(parents=True)
    (folder / "comparison.yaml").write_text(MANIFEST)
    return make_plan(load_manifest(folder / "comparison.yaml", registry), "mini", None, tmp_path)


def table_of(plan, aps, ms=100.0):
    """aps: row -> AP a seed; rho is 0.345 and a step takes ms."""
    records = []
    for row in plan.rows:
        for run, ap in zip(row.runs, aps[row.printed.key], strict=True):
            metrics = {"AP": ap, "rho": 0.345}
            content = record_content(run, ap, config_hash=run.config_hash, metrics=metrics)
            records.append(Record(run.directory / "record.json", content))
    retest = {"metrics": {"ms": ms}, "suite_version": 1, "suite_seed": 0, "cpu_seconds": 1.0} | {
        key: records[0][key] for key in ("hardware", "torch", "threads", "commit", "dirty", "date", "data_hash")
    }
    return with_retests(
        collect(plan, records), lambda record, _: retest | {key: record[key] for key in ("config_hash", "seed")}
    )


def test_the_manifest_is_one_of_a_printed_table_s(plan):
    manifest = plan.manifest
    (table,) = manifest.tables
    assert (table.id, table.title, table.is_printed, manifest.of_paper) == (
        "mine/comparison",
        "Two losses",
        False,
        False,
    )
    assert table.columns == {"AP": "AP", "rho": "rank correlation", "step": "a step"}
    assert (table.units["step"], table.in_percent("AP"), table.falling) == ("ms", True, ("step",))
    assert manifest.columns == {"step": Cell("training_step", "ms")}
    assert [(row.label, row.values) for row in table.rows.values()] == [
        ("The one", dict.fromkeys(table.columns)), ("The other", dict.fromkeys(table.columns)),
    ]  # fmt: skip
    assert has_retests(manifest) and cost_columns(manifest) == ["step"]
    assert [run.label for run in plan.runs()] == ["one", "other"] * 2
    assert {run.data for run in plan.runs()} == {"shapes"}


def test_nothing_looks_like_a_printed_number(plan):
    """Means 21 and 31; all runs of the other lie above."""
    table = table_of(plan, {"one": (0.20, 0.22), "other": (0.30, 0.32)})
    text = markdown(table)
    assert "| The one   | 21.0 ± 1.4 | 0.34 ± 0.00 | 100.0 ± 0.0 |   2 |" in text.replace("0.35", "0.34")
    assert "The table is our own: no paper prints it." in text
    assert "in percent but for rho, step (ms), on shapes" in text
    assert "Order by AP: in 1 of 1 pairs of rows all runs of one lie above all of the other." in text
    tex = latex(table)
    for shown in (text, tex):
        assert "paper's" not in shown and " paper " not in shown.replace("no paper prints", "").replace("paper}", "")
    (line, _) = csv.DictReader(io.StringIO(csv_text(table)))
    assert not [column for column in line if "printed" in column]
    assert (line["step_mean"], line["rho_mean"]) == ("100.0", "0.345")


def test_told_apart_by_hand(plan):
    """One at 20 and 22, the other at 21 and 32, which overlap; at 23 and 32 it lies above; alone it is not compared."""
    rows = table_of(plan, {"one": (0.20, 0.22), "other": (0.21, 0.32)}).rows
    assert len(pairs(rows, "AP")) == 1 and separated(rows, "AP") == []
    rows = table_of(plan, {"one": (0.20, 0.22), "other": (0.23, 0.32)}).rows
    assert [(upper.planned.printed.key, lower.planned.printed.key) for upper, lower in separated(rows, "AP")] == [
        ("other", "one")
    ]
    single = replace(rows[0], matches=rows[0].matches[:1])
    assert pairs([single, rows[1]], "AP") == []


def test_how_often_equal_rows_come_apart():
    """Of the 6 orders of two and two runs, and the 252 of five and five, in 2 all of one are ahead; by simulation."""
    assert by_chance(2) == 2 / 6 and by_chance(5) == 2 / 252
    drawn = np.random.default_rng(0).random((20_000, 2, 3))
    apart = (drawn[:, 0].min(1) > drawn[:, 1].max(1)) | (drawn[:, 1].min(1) > drawn[:, 0].max(1))
    assert by_chance(3) == pytest.approx(apart.mean(), abs=0.01)


def test_rows_of_several_detectors_are_ordered_one_by_one(plan):
    """One and other are of two detectors, so that no pair is left."""
    table = table_of(plan, {"one": (0.20, 0.22), "other": (0.30, 0.32)})
    other = table.rows[1]
    runs = tuple(replace(run, detector="ssd") for run in other.planned.runs)
    apart = replace(table, rows=(table.rows[0], replace(other, planned=replace(other.planned, runs=runs))))
    assert order_lines(apart)[:2] == [
        f"Order by AP, {name}: in 0 of 0 pairs of rows all runs of one lie above all of the other."
        for name in ("RetinaNet", "SSD")
    ]


def test_rows_that_test_the_same_weights_are_told(plan):
    table = table_of(plan, {"one": (0.20, 0.22), "other": (0.30, 0.32)})
    assert not any("same weights" in line for line in order_lines(table))
    one, other = table.rows
    same = replace(table, rows=(one, replace(other, planned=replace(other.planned, runs=one.planned.runs))))
    assert "The 2 rows with numbers stand on 1 training a seed" in " ".join(order_lines(same))


def test_the_files_of_a_table_with_costs(plan, tmp_path):
    """Accuracy against cost is one more plot; nothing run is no mistake."""
    for table in (table_of(plan, {"one": (0.20, 0.22), "other": (0.30, 0.32)}), collect(plan, [])):
        paths = save_table(table, tmp_path / "out")
        assert [path.name for path in paths] == [
            f"comparison.mini.{kind}" for kind in ("md", "csv", "png", "tex", "cost.png")
        ]
        assert all(path.stat().st_size > 0 for path in paths)
    assert "![accuracy against step](comparison.mini.cost.png)" in paths[0].read_text()


def test_what_the_page_says_of_costs(plan):
    """All steps took 100 ms; the record says of both what they ran on."""
    text = conclusions([table_of(plan, {"one": (0.20, 0.22), "other": (0.30, 0.32)})])
    cost = "a step: from 100.0 ± 0.0 ms (The other) to 100.0 ± 0.0 (The one), 1.0 times; 0 of 1 pairs"
    assert f"{cost} are told apart." in text
    for what in ("Trainings", "Costs"):
        assert f"{what}: Hardware: A CPU, 2 cores; torch 2.15.0, threads per run: 1." in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dataset: voc07-test", "dataset: voc08", "no data set 'voc08'"),
        ("dataset: voc07-test\n", "", "key 'dataset' is missing; a table of our own has title, dataset"),
        ("label: The one, ", "", "rows.one: key 'label' is missing"),
        ("{label: AP}", "{lable: AP}", "columns.AP: unknown key 'lable'"),
        ("condition: training_step", "condition: speed", "columns.step: there is no condition 'speed'"),
        ("title: Two losses", "title: Two losses\ntables: [dr-loss/table-1]", "tables: is for printed ones"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "seeds: expected different whole numbers"),
        ("columns:\n", "columns: []\nother:\n", "columns: expected a mapping"),
    ],
)
def test_mistakes_name_file_and_key(registry, tmp_path, old, new, message):
    path = tmp_path / "comparison.yaml"
    assert old in MANIFEST
    path.write_text(MANIFEST.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        load_manifest(path, registry)
    assert "comparison.yaml" in str(caught.value) or "datasets.yaml" in str(caught.value)


def test_all_losses_are_compared_alike(repo, registry):
    """Every loss that is tuned, with the settings that its search has, and nothing else that differs. A loss is trained
    without being here, but none of ours is left out."""
    manifest = load_manifest(repo / "experiments" / "all-losses" / "comparison.yaml", registry)
    grid = load_grid(repo / "experiments" / "tuning" / "grid.yaml")
    losses = {path.stem for path in (repo / "configs" / "loss").glob("*.yaml")}
    assert {row.loss for row in manifest.rows.values()} == set(grid.losses) <= losses
    assert len(manifest.rows) >= 15
    assert manifest.seeds == (3, 4, 5, 6, 7) and not set(grid.seeds) & set(manifest.seeds)
    for row in manifest.rows.values():
        assert row.under("mini") == row.under("paper") == (f"loss={row.loss}", *grid.losses[row.loss])
        assert row.mini and row.paper
        own = "box_loss=none" in row.overrides
        assert own == (row.loss in ("alrp", "harmonic", "parameterized_ap"))
        assert len(grid.settings(row.loss)) == (5 if own else 10)
    assert list(manifest.tables[0].columns) == ["AP", "AP50", "AP75", "AP90", "oLRP", "rho", "step", "loss", "memory"]


@pytest.mark.full
def test_its_rows_are_other_tables_with_seeds_of_its_own(repo, registry):
    """AP-loss's Table 2 losses, DR loss's Table 3 and two rows of the harmonic comparison."""
    plans = {}
    for paper, name in (
        ("all-losses", "comparison"), ("harmonic", "comparison"), ("ap-loss", "table-2"), ("dr-loss", "table-3"),
    ):  # fmt: skip
        manifest = load_manifest(repo / "experiments" / paper / f"{name}.yaml", registry)
        plans[paper] = {run.directory for run in make_plan(manifest, "mini", None, repo).runs()}
    every = plans.pop("all-losses")
    assert len(every) >= 75
    rows = {directory.parent for directory in every}
    assert not any(every & runs for runs in plans.values())
    shared = {paper: len(rows & {directory.parent for directory in runs}) for paper, runs in plans.items()}
    assert shared == {"harmonic": 2, "ap-loss": 4, "dr-loss": 2}


def built(row):
    """A row's detector for the six drawn shapes."""
    return build_detector(config_of(row.runs[0].overrides), 6)


@pytest.mark.full
def test_the_harmonic_losses_are_swapped_for_cross_entropy_and_smooth_l1(repo, registry, tmp_path):
    """On either detector one row has both, one has neither, and one each has one of them."""
    manifest = load_manifest(repo / "experiments" / "harmonic" / "comparison.yaml", registry)
    plan = make_plan(manifest, "mini", None, tmp_path)
    seen = {}
    for row in plan.rows:
        overrides = dict(item.split("=", 1) for item in row.runs[0].overrides)
        seen[row.printed.key] = (
            row.runs[0].detector,
            overrides["loss"],
            overrides.get("box_loss"),
            overrides.get("loss.box"),
        )
    assert seen == {
        f"{detector}-{name}": (detector, *parts)
        for detector in ("retinanet", "ssd")
        for name, parts in {
            "ce-smooth-l1": ("ce_ohem", None, None),
            "ce-hiou": ("ce_ohem", "harmonic_iou", None),
            "harmonic": ("harmonic", "none", None),
            "harmonic-hiou": ("harmonic", "none", "harmonic_iou"),
        }.items()
    }
    assert len({run.config_hash for run in plan.runs()}) == 8
    terms = {row.printed.key: [type(term).__name__ for term in built(row).last.criterion.terms] for row in plan.rows}
    for detector in ("retinanet", "ssd"):
        assert terms[f"{detector}-ce-smooth-l1"] == ["CEOHEMLoss", "SmoothL1Loss"]
        assert terms[f"{detector}-ce-hiou"] == ["CEOHEMLoss", "HarmonicIoULoss"]
        assert terms[f"{detector}-harmonic"] == terms[f"{detector}-harmonic-hiou"] == ["HarmonicLoss"]
    assert not (set(manifest.tables[0].rows) & {row for table in registry.tables.values() for row in table.rows})
    assert "harmonic" not in {table.partition("/")[0] for table in registry.tables}
    assert yaml.safe_load((repo / "experiments" / "harmonic" / "comparison.yaml").read_text())["title"]
