"""Tables as LaTeX: special characters, as many cells a line as columns, and all that the Markdown says."""

import re

import pytest
from results_made_up import make_plan, printed_row, printed_table, record_content

from rankdet.results.latex import escaped, latex
from rankdet.results.records import Record
from rankdet.results.tables import collect

ROWS = (printed_row("a_b", 50.0, 80.0), printed_row("c & 5% {x}", 40.0))


def lines(text):
    """The lines of the tables, each as its cells."""
    return [re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in text.splitlines() if line.endswith(r" \\")]


def balanced(text):
    """Whether every brace that is not escaped has its partner."""
    depth = 0
    for sign in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    return depth == 0


@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        ("50 % of a_b & c#1", r"50 \% of a\_b \& c\#1"),
        ("1 ± 2 †", r"1 $\pm$ 2 $\dagger$"),
        (r"\x{~^}", r"\textbackslash{}x\{\textasciitilde{}\textasciicircum{}\}"),
        ("$5 < 6", r"\$5 $<$ 6"),
    ],
)
def test_special_characters(plain, expected):
    assert escaped(plain) == expected


def test_a_table_line_by_line(tmp_path):
    """Seeds at 30 and 32 percent: 31.0 with a sample standard deviation of 1.4, and AP50 twice that."""
    plan = make_plan(tmp_path, printed_table(*ROWS), seeds=(0, 1), args=("loss.delta=0.5",))
    records = [
        Record(run.directory / "record.json", record_content(run, ap))
        for run, ap in zip(plan.rows[0].runs, (0.30, 0.32), strict=True)
    ]
    text = latex(collect(plan, records))
    assert lines(text) == [
        ["row", "AP ours", "AP paper", "AP50 ours", "AP50 paper", "n", "note"],
        [r"Row a\_b", r"31.0 $\pm$ 1.4", "50.0", r"62.0 $\pm$ 2.8", "80.0", "2", ""],
        [r"Row c \& 5\% \{x\}", "-", "40.0", "-", "-", "-", "not run"],
    ]
    assert r"\begin{tabular}{lrrrrrl}" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    assert balanced(text)
    for told in ("100 epochs", "A CPU, 2 cores", "commit abc123", "Seeds: 0, 1.", r"loss.delta=0.5"):
        assert told in text, told


def test_every_published_table(repo):
    """Nothing that LaTeX reads otherwise than it is meant, and no character that needs a package."""
    paths = sorted((repo / "experiments").glob("*/table-*.tex"))
    trained = set((repo / "experiments").glob("*/table-*.csv")) - {
        repo / "experiments" / "alrp" / "table-1.csv"
    }  # a plot
    assert len(paths) == len(trained) >= 9
    for path in paths:
        text = path.read_text(encoding="ascii")
        assert balanced(text), path
        columns = re.findall(r"\\begin\{tabular\}\{(l(r*)l)\}", text)
        assert columns, path
        widths = {len(found) for found, _ in columns}
        assert {len(line) for line in lines(text)} == widths, path
        assert not re.search(r"(?<!\\)[#&%](?! )", text.partition("\n")[2]), path
