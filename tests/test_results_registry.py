"""The registry of printed numbers: spot checks against the paper, and what a damaged file gets."""

import pytest
import yaml

from rankdet.errors import UserError
from rankdet.results.registry import load_registry


def test_holds_every_table(registry):
    assert len(registry.tables) == 33
    assert sum(len(table.rows) for table in registry.tables.values()) == 282
    assert [key for key in registry.tables if key.startswith("ap-loss/table-1")][:3] == [
        "ap-loss/table-1a", "ap-loss/table-1b", "ap-loss/table-1c",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("address", "values"),
    [
        ("ap-loss/table-2#ce-ohem-retinanet-voc07", [49.1, 81.5, 51.5]),
        ("ap-loss/table-2#focal-retinanet-voc07", [51.3, 80.9, 55.3]),
        ("ap-loss/table-2#auc-loss-ssd-voc07", [33.8, 63.7, 31.5]),
        ("ap-loss/table-2#ap-loss-retinanet-coco", [35.0, 57.2, 36.6]),
        ("ap-loss/table-1b#delta-4", [50.5, 80.2, 54.7]),
    ],
)
def test_rows_are_as_printed(registry, address, values):
    assert list(registry.row(address).values.values()) == values


def test_same_numbers_as_the_collected_facts(registry, shared_data, repo):
    """Every table but its place in the text is equal to the facts that were collected from the papers."""
    path = shared_data.parent / "papers" / "tables.yaml"
    if not path.is_file():
        pytest.skip(f"{path.name} lies only beside the development checkout")
    loader = yaml.CSafeLoader
    ours = yaml.load((repo / "experiments" / "registry.yaml").read_text(), loader)
    assert ours == yaml.load(path.read_text(), loader)


def test_columns_say_how_they_are_read(registry):
    """aLRP's rho is a correlation with two decimals, its oLRP falls; the rest are percentages that rise."""
    table = registry.table("alrp/table-2")
    assert table.falling == ("oLRP",)
    assert {key: table.digits(key) for key in table.columns} == dict.fromkeys(table.columns, 1) | {"rho": 2}
    assert [key for key in table.columns if not table.in_percent(key)] == ["rho"]


@pytest.mark.parametrize(
    ("table", "row", "column", "text"),
    [
        ("ap-loss/table-14", "faster-512", "AP", "54.09"), ("ap-loss/table-14", "faster-ap-loss-1024", "AP", "54.70"),
        ("alrp/table-2", "ap-loss", "AP90", "9.0"), ("alrp/table-1", "focal-loss", "n_hyperparameters", "4"),
    ],
)  # fmt: skip
def test_values_are_shown_as_printed(registry, table, row, column, text):
    """Trailing zeros, which YAML drops, included."""
    printed = registry.table(table)
    assert printed.as_printed(printed.rows[row], column) == text


def test_own_rows_leave_out_quoted_ones(registry):
    table = registry.table("ap-loss/table-4")
    assert len(table.rows) > len(table.own_rows()) > 0
    assert not any(row.quoted for row in table.own_rows())


def test_unknown_addresses_name_what_there_is(registry):
    with pytest.raises(UserError, match=r"no table 'ap-loss/table-99'"):
        registry.row("ap-loss/table-99#x")
    with pytest.raises(UserError, match=r"no row 'focal'; it has ce-ohem-retinanet-voc07"):
        registry.row("ap-loss/table-2#focal")


GOOD = """
- id: p/table-1
  paper: p
  title: t
  kind: measured
  source: {locus: Table 1}
  datasets: [{key: d, name: D, split: test}]
  columns: [{key: AP, label: AP, unit: percent, better: higher}]
  printed_rows: 1
  rows:
  - {key: a, label: A, quoted: false, dataset: d, settings: {}, values: [1.5]}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("values: [1.5]", "values: [1.5, 2]", "p/table-1#a: 2 values for 1 columns"),
        ("values: [1.5]", "values: [x]", "p/table-1#a: values must be numbers or null"),
        ("dataset: d", "dataset: e", "p/table-1#a: data set 'e'"),
        ("quoted: false", "quotd: false", "unknown key 'quotd'"),
        ("title: t", "titel: t", "unknown key 'titel'"),
        ("kind: measured", "kind: guessed", "kind is 'guessed'"),
        ("settings: {}", "settings: {}, same_run_as: b", "has no row 'b'"),
        ("  title: t", "  title: t\n  title: u", "key 'title' appears twice"),
        ("columns: [", "columns: [[", "not valid YAML"),
    ],
)
def test_damage_is_named(tmp_path, old, new, message):
    assert old in GOOD
    path = tmp_path / "registry.yaml"
    path.write_text(GOOD)
    assert load_registry(path).row("p/table-1#a").values == {"AP": 1.5}
    damaged = tmp_path / "damaged.yaml"
    damaged.write_text(GOOD.replace(old, new))
    with pytest.raises(UserError, match=r"damaged\.yaml") as caught:
        load_registry(damaged)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
