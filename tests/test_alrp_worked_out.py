"""What of aLRP is worked out without a training: Fig. 1 and Table 1; and what make and the overview call its tables."""

import csv
import io
import subprocess
from dataclasses import replace

import pytest

from rankdet.errors import UserError
from rankdet.figures import hyperparameters, scores_and_boxes
from rankdet.figures.computed import ComputedFigure
from rankdet.figures.manifest import figure_manifests, is_figure, load_figure
from rankdet.overview.index import index
from rankdet.overview.targets import goal, load_target
from rankdet.results.registry import load_registry

PARTS = ("alrp/figure-1a", "alrp/figure-1b", "alrp/figure-1c")


@pytest.fixture(scope="module")
def tables(repo):
    registry = load_registry(repo / "experiments" / "registry.yaml")
    return {name: registry.table(name) for name in (*PARTS, "alrp/table-1")}


@pytest.fixture(scope="module")
def figure_1(tables):
    return scores_and_boxes.content(*(tables[name] for name in PARTS))


def spoilt(table, row, **values):
    """The printed table with other numbers in a row."""
    other = replace(table.rows[row], values=table.rows[row].values | values)
    return replace(table, rows=table.rows | {row: other})


def test_27_of_30_digits_of_figure_1(figure_1):
    """15 of AP, 9 of 12 losses (the three of L1 cannot be had) and 3 of aLRP; unrounded AP50 of R1 by hand."""
    assert figure_1.measured["anchors"] == "16 of 16 ranks as printed"
    assert figure_1.measured["performance"] == "15 of 15 values as printed"
    assert figure_1.measured["losses"] == "9 of 12 values as printed; the same for all three outputs"
    assert figure_1.measured["alrp"] == "3 of 3 values as printed: 0.5300, 0.6925, 0.8925"
    rows = list(csv.DictReader(io.StringIO(figure_1.csv)))
    assert float(rows[0]["AP50_ours"]) == pytest.approx((1 + 2 / 3 + 3 / 6 + 4 / 10) / 5)
    assert (rows[1]["iou_loss_paper"], rows[2]["l1_loss_ours"]) == ("0.28", "")
    for key, line in zip(("c-r1", "c-r2", "c-r3"), figure_1.table.splitlines()[2::2], strict=True):
        assert f"(C & {key[2:].upper()}), ours" in line
        assert line.split("|")[10].strip() == "0.28"


def test_other_numbers_would_not_agree(tables):
    """A rank exchanged, an AP and a loss a hundredth off."""
    anchors = spoilt(tables[PARTS[0]], "a3", rank=1)
    performance = spoilt(tables[PARTS[1]], "c-r3", AP80=0.07)
    losses = spoilt(tables[PARTS[2]], "c-r2", alrp_loss=0.68)
    measured = scores_and_boxes.content(anchors, performance, losses).measured
    assert measured["anchors"] == "15 of 16 ranks as printed"
    assert measured["performance"] == "14 of 15 values as printed"
    assert measured["alrp"].startswith("2 of 3 values as printed")


def test_hyperparameters_are_counted(tables):
    """AP-loss: delta, the box loss's beta, one of two weights. aLRP's second is what self-balancing starts at."""
    found = hyperparameters.content(tables["alrp/table-1"])
    counts = {row["row"]: row["counted"] for row in csv.DictReader(io.StringIO(found.csv))}
    assert (counts["ap-loss"], counts["focal-loss"], counts["alrp"]) == ("3", "4", "2")
    assert [key for key, count in counts.items() if not count] == ["fcos", "freeanchor", "faster-rcnn", "centernet"]
    assert found.measured["alrp"] == "2: delta and initial_weight"
    assert found.measured["others"] == "2 of 3 counts as printed; the mean of all 7 printed ones is 6.1"


def test_a_table_that_is_worked_out_is_written_like_a_figure(repo, tmp_path, front_end, capsys):
    """Its files lie beside the figures'; nothing is left to train; publishing finds it."""
    folder = repo / "experiments" / "alrp"
    assert is_figure(folder / "table-1.yaml") and not is_figure(folder / "table-2.yaml")
    assert folder / "table-1.yaml" in figure_manifests(repo / "experiments")
    assert load_target("table-1", "alrp", "mini", None, repo).order == ()
    root = tmp_path
    (root / "experiments" / "alrp").mkdir(parents=True)
    for name in ("registry.yaml", "alrp/table-1.yaml"):
        (root / "experiments" / name).write_text((repo / "experiments" / name).read_text())
    assert front_end("reproduce")(["table-1", "--paper", "alrp"], root) == 0
    assert "| Ours " in capsys.readouterr().out
    written = {path.name for path in (root / "runs" / "figures" / "alrp").iterdir()}
    assert written == {f"table-1.{kind}" for kind in ("md", "csv", "png", "svg")}
    path = root / "experiments" / "alrp" / "table-1.yaml"
    path.write_text(path.read_text().replace("[alrp/table-1]", "[alrp/table-0]"))
    with pytest.raises(UserError, match="no table 'alrp/table-0'"):
        ComputedFigure(load_figure(path), root).content(published=False)


def test_the_overview_lists_every_table_once(repo):
    """By the goals of make that do them; Fig. 1's three parts have one manifest."""
    text = index(repo, [])
    own = text[text.index("## aLRP") : text.index("## DR")].splitlines()
    states = {line.split("|")[1].strip(" *"): line.split("|")[5].strip() for line in own if line.startswith("| **")}
    names = [*(f"table-{n}" for n in range(1, 9)), *(f"figure-{n}" for n in (1, 3, 4))]
    assert states == {
        name.replace("-", " ").capitalize(): f"nothing published: `make reproduce-alrp-{name}`" for name in names
    }
    assert len([line for line in own if line.startswith("| ") and "what it shows" not in line]) == len(names)


@pytest.mark.parametrize(
    ("paper", "name", "expected", "script"),
    [
        ("ap-loss", "table-2", "reproduce-table-2", "reproduce.py table-2"),
        ("alrp", "table-6", "reproduce-alrp-table-6", "reproduce.py table-6"),
        ("dr-loss", "figure-1", "reproduce-dr-figure-1", "figure.py figure-1"),
        ("harmonic", "figure-3", "reproduce-harmonic-figure-3", "figure.py figure-3"),
        ("pap", "table-3", "reproduce-pap-table-3", "reproduce.py table-3"),
    ],
)
def test_goals_of_make(repo, tmp_path, paper, name, expected, script):
    """The stamp is fresh, so that nothing is installed."""
    assert goal(paper, name) == expected
    (tmp_path / "stamp").touch()
    line = [
        "make",
        "-n",
        "--no-print-directory",
        f"STAMP={tmp_path}/stamp",
        expected,
        "PROTOCOL=paper",
        "DATA=a b",
        "ARGS=--dry-run",
    ]
    done = subprocess.run(line, cwd=repo, capture_output=True, text=True, check=True)
    assert f'scripts/{script} --paper {paper} --protocol paper --data "a b" ' in done.stdout
    assert done.stdout.strip().endswith(" --dry-run")
