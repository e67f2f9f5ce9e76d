"""The manifests against the registry and the configs, and what a mistake in one gets."""

import pytest

from rankdet.errors import UserError
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import choose_data, make_plan
from rankdet.results.registry import load_registry

MANIFESTS = {
    "table-1": (11, 9),
    "table-2": (12, 4),
    "table-3": (4, 4),
}  # name -> printed rows, distinct trainings of one seed under mini


@pytest.fixture(scope="module")
def registry(repo):
    return load_registry(repo / "experiments" / "registry.yaml")


def test_all_manifests_are_listed_here(repo):
    assert {path.stem for path in (repo / "experiments" / "ap-loss").glob("*.yaml")} == set(MANIFESTS)


@pytest.mark.parametrize(("name", "protocol"), [("table-1", "mini"), ("table-2", "mini"), ("table-2", "mini_long")])
def test_every_own_row_has_its_runs_and_every_override_composes(repo, registry, name, protocol, tmp_path):
    """make_plan composes each row's config, which refuses unknown keys; equal configs would share a directory."""
    manifest = load_manifest(repo / "experiments" / "ap-loss" / f"{name}.yaml", registry)
    own = [row.key for table in manifest.tables for row in table.own_rows()]
    num_rows, num_trainings = MANIFESTS[name]
    assert len(own) == num_rows
    assert set(own) == set(manifest.rows)
    assert manifest.seeds == (0, 1, 2)
    plan = make_plan(manifest, protocol, choose_data("shapes"), tmp_path)
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
    ]
    assert {key: row.same_run_as for key, row in manifest.rows.items() if row.same_run_as} == {
        "delta-1": "batch-8", "interpolated-yes": "batch-8",
    }  # fmt: skip
    extra = {key: set(row.overrides) - {"loss=ap"} for key, row in manifest.rows.items()}
    assert extra["batch-8"] == extra["delta-1"] == extra["interpolated-yes"] == set()
    assert extra["batch-1"] == {"batch_size=1"}
    assert extra["delta-0.25"] == {"loss.delta=0.25"}
    assert extra["interpolated-no"] == {"loss.interpolate=false"}


def test_table_2_says_why_rows_are_missing(repo, registry):
    manifest = load_manifest(repo / "experiments" / "ap-loss" / "table-2.yaml", registry)
    reasons = {key: row.reason for key, row in manifest.rows.items()}
    assert sum(reason is None for reason in reasons.values()) == 4
    assert reasons["focal-retinanet-coco"] == "COCO: not in the mini protocol"
    assert reasons["focal-ssd-voc07"] == "SSD: detector not built yet"


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


def test_a_missing_manifest_names_those_there_are(repo, registry):
    with pytest.raises(UserError, match=r"table-77\.yaml: no such manifest; there are: table-1, table-2"):
        load_manifest(repo / "experiments" / "ap-loss" / "table-77.yaml", registry)
