"""Publishing: what is copied, what is removed, and that doing it again changes no byte."""

import json
import shutil

import pytest
from results_made_up import make_run, write_record

from rankdet.errors import UserError
from rankdet.results.datasets import DataChoice
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import make_plan
from rankdet.results.publish import copy_records, load_published, publish
from rankdet.results.registry import load_registry

MANIFEST = """
tables: [ap-loss/table-1c]
experiment: ap_table_1
seeds: [0, 1]
rows:
  interpolated-no: {overrides: [loss=ap, loss.interpolate=false], mini: true}
  interpolated-yes: {overrides: [loss=ap], mini: true}
"""


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def root(repo, tmp_path):
    """A checkout with one small manifest, published for the drawn set and for a folder, and no runs."""
    experiments = tmp_path / "experiments"
    (experiments / "ap-loss").mkdir(parents=True)
    for name in ("registry.yaml", "datasets.yaml"):
        shutil.copy(repo / "experiments" / name, experiments)
    (experiments / "ap-loss" / "table-1.yaml").write_text(MANIFEST)
    (experiments / "published.yaml").write_text(
        "- {paper: ap-loss, table: table-1, protocol: mini}\n"
        "- {paper: ap-loss, table: table-1, protocol: mini, data: blood, source: voc}\n"
    )
    return tmp_path


def planned(root, data):
    manifest = load_manifest(
        root / "experiments" / "ap-loss" / "table-1.yaml", load_registry(root / "experiments" / "registry.yaml")
    )
    return make_plan(manifest, "mini", data, root).runs()


def test_publishing_twice_changes_no_byte(root):
    """The records of a folder of data come without its path; deleting runs/ changes nothing either."""
    for i, run in enumerate(planned(root, DataChoice("shapes", ("data=shapes",)))):
        write_record(run, 0.3 + i / 100)
    far = DataChoice("blood", ("data=voc", "data.root='/far/away/blood'"))
    for run in planned(root, far):
        write_record(run, 0.5)
    paths = publish(root)
    assert [path.name for path in paths] == [
        "table-1.mini.md", "table-1.mini.csv", "table-1.mini.png", "table-1.mini.tex",
        "table-1.blood.md", "table-1.blood.csv", "table-1.blood.png", "table-1.blood.tex",
    ]  # fmt: skip
    records = sorted((root / "experiments" / "records" / "blood" / "mini").glob("*.json"))
    assert len(records) == 4
    assert "/far/away" not in records[0].read_text()
    published = json.loads(records[0].read_text())
    assert published["overrides"][:3] == ["experiment=ap_table_1", "protocol=mini", "data=voc"]
    assert records[0].name.endswith("-seed0.json")
    before = contents(root / "experiments")
    assert publish(root) == paths
    assert contents(root / "experiments") == before
    shutil.rmtree(root / "runs")
    publish(root)
    assert contents(root / "experiments") == before
    text = paths[0].read_text()
    assert "30.0" not in text.splitlines()[4]
    assert "| Interpolated AP: no  | 31.0 ± 1.4 |" in text  # seeds 0 and 1 come first and third: 30 and 32


def test_nothing_finished_is_published_as_not_run(root):
    paths = publish(root)
    assert paths[0].read_text().count("not run") == 2
    assert not (root / "experiments" / "records").exists()


def test_fresh_tuned_settings_are_published(root):
    tuned = root / "runs" / "tuning" / "shapes.yaml"
    tuned.parent.mkdir(parents=True)
    tuned.write_text(
        "data: shapes\ndata_hash: a-b\nprotocol: mini\nprotocol_version: 1\nseeds: [1000]\ngrid: {}\ndefault: {}\n"
        "losses: {ap: {best: {schedule.lr: 0.002, box_loss.weight: 4.0}, val_ap: 0.3, at_edge: [], trials: []}}\n"
    )
    paths = publish(root)
    assert (root / "experiments" / "tuning" / "shapes.yaml").read_bytes() == tuned.read_bytes()
    assert not (root / "experiments" / "tuning" / "blood.yaml").exists()
    assert "ap: schedule.lr 0.002, box_loss.weight 4.0" in paths[0].read_text()
    assert "These settings were tuned on shapes, not on blood" in paths[4].read_text()


def test_a_new_record_replaces_that_of_the_same_row_only(tmp_path):
    folder = tmp_path / "records"
    old = [make_run(tmp_path, key, seed, config_hash=f"{key * 8}") for key in "ab" for seed in (0, 1)]
    for run in old:
        write_record(run, 0.3)
    copy_records(old, folder)
    assert len(contents(folder)) == 4
    new = make_run(tmp_path, "a", 0, config_hash="cccccccc", version=2)
    unfinished = make_run(tmp_path, "b", 0, config_hash="dddddddd", version=2)
    write_record(new, 0.4)
    copy_records([new, unfinished], folder)
    names = [path.name for path in contents(folder)]
    assert names == [
        "net-a-aaaaaaaa-seed1.json",
        "net-a-cccccccc-seed0.json",
        "net-b-bbbbbbbb-seed0.json",
        "net-b-bbbbbbbb-seed1.json",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{paper: ap-loss}", "expected a list of tables"),
        ("- {paper: p, tabel: t, protocol: mini, data: shapes}", "unknown key 'tabel'"),
        ("- {paper: p, table: t, data: shapes}", "key 'protocol' is missing"),
    ],
)
def test_mistakes_in_the_list(tmp_path, text, message):
    path = tmp_path / "published.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_published(path, "table")


def test_a_record_that_is_damaged_is_named(root):
    run = planned(root, DataChoice("shapes", ("data=shapes",)))[0]
    run.directory.mkdir(parents=True)
    (run.directory / "record.json").write_text('{"seed": 0')
    with pytest.raises(UserError, match=r"seed0/record\.json: not valid JSON"):
        publish(root)
    (run.directory / "record.json").write_text('{"seed": 0}')
    with pytest.raises(UserError, match=r"seed0/record\.json: key 'config_hash' is missing"):
        publish(root)


def test_the_list_in_the_checkout(repo):
    """Each committed table, once, of a manifest that is there; those that need no training are on no list."""
    entries = load_published(repo / "experiments" / "published.yaml", "table")
    places = [(entry.paper, entry.name, entry.data and entry.data.name, entry.protocol) for entry in entries]
    assert len(set(places)) == len(places) >= 9
    assert {"table-1", "table-2", "table-3", "table-8", "table-10"} <= {entry.name for entry in entries}
    computed = {repo / "experiments" / "alrp" / "table-1.md"}
    assert all("kind: computed" in path.with_suffix(".yaml").read_text() for path in computed)
    listed = {path for stem in ("table-*", "comparison.*") for path in (repo / "experiments").glob(f"*/{stem}.md")}
    listed -= computed
    assert len(places) == len(listed)
    for entry in entries:
        assert (repo / "experiments" / entry.paper / f"{entry.name}.yaml").is_file()
