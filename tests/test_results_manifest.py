"""The manifests against the registry and the configs, and what a mistake in one gets."""

from dataclasses import replace

import pytest

from rankdet.errors import UserError
from rankdet.results.datasets import choose_data
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import make_plan


@pytest.mark.parametrize(
    ("name", "protocol", "num_rows", "num_trainings"),
    [
        ("table-1", "mini", 11, 9),
        ("table-2", "mini", 12, 12),
        pytest.param("table-2", "mini_long", 12, 12, marks=pytest.mark.full),
        ("table-8", "mini", 3, 3),
        ("table-10", "mini", 4, 4),
        ("table-14", "mini", 12, 12),
    ],
)
def test_every_own_row_has_its_runs_and_every_override_composes(
    repo, registry, name, protocol, num_rows, num_trainings, tmp_path
):
    """make_plan composes each row's config, which refuses unknown keys; equal configs would share a directory."""
    manifest = load_manifest(repo / "experiments" / "ap-loss" / f"{name}.yaml", registry)
    own = [row.key for table in manifest.tables for row in table.own_rows()]
    assert len(own) == num_rows
    assert set(own) == set(manifest.rows)
    assert manifest.seeds == (0, 1, 2)
    plan = make_plan(manifest, protocol, None, tmp_path)
    assert len(plan.rows) == num_rows
    assert len({run.config_hash for run in plan.runs()}) == num_trainings
    assert len(plan.runs()) == 3 * num_trainings
    assert all(bool(row.runs) != bool(row.why) for row in plan.rows)


def test_table_1_differs_from_its_base_row_only_as_printed(repo, registry):
    manifest = load_manifest(repo / "experiments" / "ap-loss" / "table-1.yaml", registry)
    assert manifest.mini_overrides == ("model.backbone.norm=gn",)
    assert [note.split()[:2] for note in manifest.mini_notes] == [
        ["Learning", "rate"],
        ["The", "learning"],
        ["The", "warm-up"],
        ["Group", "norm"],
    ]
    assert {key: row.same_run_as for key, row in manifest.rows.items() if row.same_run_as} == {
        "delta-1": "batch-8", "interpolated-yes": "batch-8",
    }  # fmt: skip
    extra = {key: set(row.overrides) - {"loss=ap"} for key, row in manifest.rows.items()}
    assert extra["batch-8"] == extra["delta-1"] == extra["interpolated-yes"] == set()
    assert extra["batch-1"] == {"batch_size=1"}
    assert extra["delta-0.25"] == {"loss.delta=0.25"}
    assert extra["interpolated-no"] == {"loss.interpolate=false"}


def test_table_2_takes_another_ssd_under_each_protocol(repo, registry):
    """Focal loss has gamma 1 on SSD; tests are at 512 x 512, where RetinaNet's shorter side is 600 (Sec. 4.1.1)."""
    rows = load_manifest(repo / "experiments" / "ap-loss" / "table-2.yaml", registry).rows
    ssd = {key: row for key, row in rows.items() if "-ssd-" in key}
    assert len(ssd) == 4
    for key, row in ssd.items():
        own = ("loss.gamma=1",) if key.startswith("focal") else ()
        loss = (f"loss={row.loss}", *own)
        assert row.under("mini") == row.under("mini_long") == (*loss, "model=ssd_eighth", "matching=best_prior")
        assert row.under("paper") == (*loss, "model=ssd512_vgg16", "matching=best_prior", "test_input=stretch")
    assert rows["focal-retinanet-voc07"].under("paper") == ("loss=focal",)


def test_table_8_shares_its_last_row_with_table_2(repo, registry, tmp_path):
    """Equal configs are equal directories: nothing is trained twice."""
    folder, shapes = repo / "experiments" / "ap-loss", choose_data("shapes")
    plans = {
        name: make_plan(load_manifest(folder / f"{name}.yaml", registry), "mini", shapes, tmp_path)
        for name in ("table-2", "table-8")
    }
    rows = {name: {row.printed.key: row.runs for row in plan.rows} for name, plan in plans.items()}
    assert rows["table-8"]["original-ap-loss"] == tuple(
        replace(run, label="original-ap-loss") for run in rows["table-2"]["ap-loss-retinanet-voc07"]
    )
    assert len({run.directory for run in plans["table-8"].runs()}) == 9


def test_table_10_differs_in_k_alone(repo, registry):
    rows = load_manifest(repo / "experiments" / "ap-loss" / "table-10.yaml", registry).rows
    assert {key: row.overrides for key, row in rows.items()} == {
        f"k-{k}": ("loss=ap", "loss.step=sigmoid", f"loss.k={k}") for k in ("0.25", "0.5", "1", "2")
    }


def test_table_14_has_as_many_rois_as_its_rows_say(repo, registry):
    """Under paper the printed number; under mini a sixteenth of it, in the same proportions for both losses."""
    rows = load_manifest(repo / "experiments" / "ap-loss" / "table-14.yaml", registry).rows
    assert len(rows) == 12
    for key, row in rows.items():
        number = int(key.rpartition("-")[2])
        assert row.loss == ("ap" if "ap-loss" in key else "cross_entropy")
        assert row.paper_overrides == (f"model.roi_sampler.num_samples={number}",)
        assert row.mini_overrides == (f"model.roi_sampler.num_samples={number // 16}",)


GOOD = """
tables: [ap-loss/table-1c]
experiment: ap_table_1
seeds: [0, 1]
rows:
  interpolated-no: {overrides: [loss=ap, loss.interpolate=false], mini: false, reason: too slow}
  interpolated-yes: {overrides: [loss=ap], mini: true}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds:", "sedes:", "unknown key 'sedes'"),
        ("experiment: ap_table_1\n", "", "key 'experiment' is missing"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "seeds: expected different whole numbers"),
        ("seeds: [0, 1]", "seeds: []", "seeds: expected different whole numbers"),
        ("table-1c", "table-1z", "no table 'ap-loss/table-1z'"),
        ("interpolated-yes:", "interpolated-maybe:", "'interpolated-yes' is missing"),
        ("mini: true}", "mini: true}\n  extra: {overrides: [loss=ap], mini: true}", "'extra' is no row of"),
        ("mini: true", "mini: true, paperr: true", "rows.interpolated-yes: unknown key 'paperr'"),
        ("mini: true", "mini: sometimes", "rows.interpolated-yes.mini: expected true or false"),
        ("mini: true", "mini: true, reason: none", "rows.interpolated-yes: a row says reason if, and only if"),
        (", reason: too slow", "", "rows.interpolated-no: a row says reason if, and only if"),
        ("overrides: [loss=ap], mini: true", "same_run_as: nobody", "same_run_as: 'nobody'"),
        ("overrides: [loss=ap], mini: true", "same_run_as: interpolated-no, mini: true", "same_run_as stands alone"),
        ("mini: true", "mini: true, paper_overrides: [batch_size=2]", "the row is not done under paper"),
        ("mini: true", "mini: true, mini_overrides: [seed=2]", "'seed=2' is not a row's to set"),
        ("mini: true", "mini: true, start_from: broken#interpolated-no", "is a row of this manifest"),
        ("mini: true", "mini: true, start_from: good#interpolated-no", "is not done under each protocol that this row"),
        ("rows:", "labels: {interpolated-so: x}\nrows:", "labels: unknown key 'interpolated-so'"),
        ("rows:", "ordered: no one\nrows:", "ordered: expected true or false, got 'no one'"),
        ("rows:", "columns: {AP: {metric: {voc12-test: AP}}}\nrows:", "columns.AP.metric: unknown key 'voc12-test'"),
        (", reason: too slow", ", reason: too slow, mini_overrides: [batch_size=2]", "is not done under mini"),
        ("overrides: [loss=ap],", "overrides: [batch_size=2],", "name the loss"),
        ("overrides: [loss=ap],", "overrides: [loss=ap, seed=3],", "'seed=3' is not a row's to set"),
        ("overrides: [loss=ap],", "overrides: [loss=ap, 3],", "expected key=value, got 3"),
        ("overrides: [loss=ap],", "overrides: loss=ap,", "expected a list"),
        ("  interpolated-yes:", "  interpolated-no:", "appears twice"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, registry, old, new, message):
    assert old in GOOD
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    assert load_manifest(path, registry).rows["interpolated-no"].reason == "too slow"
    broken = tmp_path / "broken.yaml"
    broken.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        load_manifest(broken, registry)
    assert message in str(caught.value)
    assert "broken.yaml" in str(caught.value) or "registry.yaml" in str(caught.value)


def test_rows_may_be_called_otherwise_than_printed(tmp_path, registry):
    """In this table alone: what the registry has stays."""
    path = tmp_path / "good.yaml"
    path.write_text(GOOD.replace("rows:", "labels: {interpolated-no: as it is}\nrows:"))
    (table,) = load_manifest(path, registry).tables
    labels = {row.key: row.label for row in table.own_rows()}
    before = {row.key: row.label for row in registry.table("ap-loss/table-1c").own_rows()}
    assert labels == before | {"interpolated-no": "as it is"} != before


def test_a_missing_manifest_names_those_there_are(repo, registry):
    with pytest.raises(
        UserError, match=r"table-77\.yaml: no such manifest; there are: .*table-1, table-10, .*table-14, table-2"
    ):
        load_manifest(repo / "experiments" / "ap-loss" / "table-77.yaml", registry)
