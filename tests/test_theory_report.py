"""The framework of claims: verdicts, the printed lines, the saved files and the command."""

import csv
import math
from types import ModuleType

import pytest
import torch
from PIL import Image

from rankdet.theory import report
from rankdet.theory.claim import Finding, Plot, Table, Verdict, agree, at_most, claim, claims_of, difference


@pytest.fixture
def main(front_end):
    """The command's main."""
    return front_end("theory")


@pytest.fixture
def made_up():
    """A module of two claims, one of which fails, with a table and a plot."""

    @claim("XX-Q1", "Eq. 1", "One is one.")
    def right():
        return Verdict((agree("1 and 1", 0.0, 0.0),), exceptions="nowhere else.", reading="one.")

    @claim("XX-Q2", "Eq. 2", "One is two, with a | in it.")
    def wrong():
        table = Table("numbers", ("a", "b"), [(1, "2, 3")])
        plot = Plot("line", "A line.", (2, 1), lambda figure: figure.add_subplot().plot([0, 1]))
        findings = (at_most("one", 1, 1), Finding(False, "1 is not 2"))
        return Verdict(findings, tables=(table,), plots=(plot,))

    module = ModuleType("made_up")
    module.second, module.first, module.other = wrong, right, 3
    return module


def test_findings():
    assert agree("a", 1e-9, 1e-9).holds and not agree("a", 2e-9, 1e-9).holds
    assert not agree("a", math.nan, 1e9).holds
    assert at_most("a", 1, 1).holds and not at_most("a", 1.1, 1).holds and not at_most("a", math.nan, 1).holds
    assert "3.0e-09" in agree("a", 3e-9, 1e-8).text
    assert not Verdict(()).holds
    assert not Verdict((Finding(True, "a"), Finding(False, "b"))).holds


def test_difference():
    assert difference(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 3.0])) == 2
    assert difference(torch.zeros(0), torch.zeros(0)) == 0
    assert difference(torch.zeros(2), torch.zeros(3)) == math.inf
    assert math.isnan(difference(math.nan, 1.0))


def test_a_decorated_function_is_all_that_a_claim_needs(made_up):
    assert [claim.id for claim in claims_of(made_up)] == ["XX-Q2", "XX-Q1"]


def test_report(made_up, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "MODULES", (made_up,))
    results = list(report.check(report.chosen([])))
    assert report.summary(results) == "1 of 2 claims hold, not XX-Q2"
    printed = report.terminal(results[0])
    assert printed.startswith("XX-Q2: DOES NOT HOLD (Eq. 2;") and "\n  NOT 1 is not 2\n" in printed
    assert "\n  + one: 1 (allowed: at most 1)\n" in printed and "2, 3" in printed
    assert "except: nowhere else.\n  read as: one.\n" in report.terminal(results[1])
    paths = report.save(results, tmp_path / "runs" / "theory")
    assert [path.name for path in paths] == ["theory.md", "theory.csv", "xx-q2-numbers.csv", "xx-q2-line.png"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)
    text = paths[0].read_text()
    assert "1 of 2 claims hold, not XX-Q2." in text and "## XX-Q2: does not hold" in text
    assert "- **does not hold:** 1 is not 2" in text and "![A line.](xx-q2-line.png)" in text
    assert "One is two, with a \\| in it." in text
    with paths[1].open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["claim"], row["verdict"], row["finding_holds"]) for row in rows] == [
        ("XX-Q2", "does not hold", "yes"), ("XX-Q2", "does not hold", "no"), ("XX-Q1", "holds", "yes"),
    ]  # fmt: skip
    assert paths[2].read_text() == 'a,b\n1,"2, 3"\n'
    with Image.open(paths[3]) as image:
        assert image.size == (240, 120) and len(image.convert("L").getcolors()) > 1


def test_command(main, made_up, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(report, "MODULES", (made_up,))
    assert main([], root=tmp_path) == 0
    out = capsys.readouterr().out
    assert "XX-Q1: HOLDS" in out and out.endswith(
        "1 of 2 claims hold, not XX-Q2\n"
        f"saved 4 files in {tmp_path}/runs/theory: theory.md, theory.csv, xx-q2-numbers.csv, xx-q2-line.png\n"
    )
    saved = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "theory").iterdir()}
    assert main(["XX-Q1"], root=tmp_path) == 0
    assert capsys.readouterr().out.endswith("1 of 1 claims hold\n")
    assert saved == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "theory").iterdir()}
    assert main(["--output", str(tmp_path / "there")], root=tmp_path) == 0
    assert {path.name for path in (tmp_path / "there").iterdir()} == set(saved)


def test_unknown_claim(main, capsys, tmp_path):
    assert main(["AP-Q99"], root=tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: AP-Q99: no such claim; there are AP-Q1, AP-Q2,") and error.count("\n") == 1


def test_claims_are_well_formed():
    claims = report.all_claims()
    assert len(claims) >= 23 and len({claim.id for claim in claims}) == len(claims)
    for one in claims:
        assert one.statement.endswith(".") and "\n" not in one.statement + one.where, one.id


@pytest.mark.full
def test_the_whole_report(main, tmp_path, capsys):
    """Every table and plot is saved; timings apart, all claims hold but those known not to."""
    assert main([], root=tmp_path) == 0
    folder = tmp_path / "runs" / "theory"
    pictures = sorted(path.name for path in folder.glob("ap-*.png"))
    assert pictures == [
        f"ap-{name}.png"
        for name in (
            "p1-steps", "p2-paths", "p5-bounds", "p6-segment", "q10-steps", "q11-sigmoid", "q12-envelope", "q14-cost",
        )
    ]  # fmt: skip
    with (folder / "theory.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["claim"] != "AP-Q14"]
    refuted = {row["claim"] for row in rows if row["finding_holds"] == "no"}
    assert refuted == {"AL-Q3", "AL-Q9", "AL-T1", "HL-F1", "HL-Q3", "HL-Q5"}
