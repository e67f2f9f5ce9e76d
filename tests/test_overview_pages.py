"""make publish's two pages about everything: what they say, that they hold together, and how the large one looks."""

import json
import re
import shutil

import pytest
from browser import MEASURE
from paper_made_up import make_checkout
from results_made_up import make_run, record_content

from rankdet.overview.index import PAPERS, index
from rankdet.overview.output import write_overview
from rankdet.overview.published import _told, editions
from rankdet.overview.targets import load_target
from rankdet.results.datasets import choose_data
from rankdet.results.describe import run_facts
from rankdet.results.publish import load_published, publish, published_table
from rankdet.results.records import Record
from rankdet.results.registry import load_registry
from rankdet.results.render import csv_text, markdown

FIGURE = """# Figure 8a

![a plot](figure-8a.mini.png)

- noted: 1 < 2 & 3
- Seeds: 0.
- Budget of a run: 500 steps. All 1 run: 1 CPU minutes.
- Code: commit abc; runs of 2026-01-07, 2026-01-05.
"""


@pytest.fixture(scope="module")
def root(repo, tmp_path_factory):
    """A checkout whose table 1 is published with one seed of two in its second row; nothing of table 8's own."""
    root = make_checkout(repo, tmp_path_factory.mktemp("checkout"))
    runs = load_target("table-1", "ap-loss", "mini", choose_data("shapes"), root).order
    for i, run in enumerate(runs[:3]):
        run.directory.mkdir(parents=True)
        content = record_content(run, 0.3 + i / 100, date=f"2026-01-0{i + 1}", config_hash=run.config_hash)
        (run.directory / "record.json").write_text(json.dumps(content))
    publish(root)
    shutil.rmtree(root / "runs")
    # The figure's files, which its own tests are about.
    folder = root / "experiments" / "ap-loss"
    (folder / "figure-8a.mini.md").write_text(FIGURE)
    shutil.copy(folder / "table-1.mini.png", folder / "figure-8a.mini.png")
    return root


@pytest.fixture(scope="module")
def pages(root):
    """README.md and report.html."""
    return write_overview(root)


def row(text, name, paper="AP-loss (TPAMI 2020)"):
    """The cells of an entry's line in the list of a paper."""
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (own,) = [part for part in section if part.startswith(paper)]
    (line,) = [line for line in own.splitlines() if re.match(rf"\| \**{name}\** ", line)]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_state_of_each_table(pages):
    """Table 1: seeds 0 of both rows come first, then seed 1 of the first, so that one row of two is done."""
    text = pages[0].read_text()
    assert row(text, "Table 1")[2:7] == ["mini", "shapes", "1 of 2 rows (1 in part)", "0, 1", "2026-01-03"]
    # Its last row is table 1's second one, of which one seed is there.
    assert row(text, "Table 8")[2:7] == [
        "mini",
        "shapes",
        "0 of 3 rows (1 in part, 1 not under this protocol or on these data)",
        "0",
        "2026-01-02",
    ]
    assert row(text, "Table 2")[4] == "not yet: 12 own rows"
    assert row(text, "Figure 8a")[2:7] == ["mini", "shapes", "1 of 1 runs", "0", "2026-01-07"]  # as its text says
    assert row(text, "Figure 1a", "aLRP")[4] == "nothing to train: `make reproduce-theory` works it out"


def test_every_table_of_every_paper_is_there(pages, root):
    text = pages[0].read_text()
    registry = load_registry(root / "experiments" / "registry.yaml")
    assert {table.partition("/")[0] for table in registry.tables} == set(PAPERS) - {"harmonic", "all-losses"}
    for table in registry.tables.values():
        assert table.title in text, table.id
    for title in PAPERS.values():
        assert f"\n## {title}\n" in text


def test_every_link_leads_to_a_file(pages):
    links = re.findall(r"\]\(([^)]+)\)", pages[0].read_text())
    assert len(links) >= 8
    for link in links:
        assert (pages[0].parent / link).is_file(), link


def test_again_the_same_bytes(pages, root):
    before = [path.read_bytes() for path in pages]
    assert [path.read_bytes() for path in write_overview(root)] == before


def test_the_page_holds_everything(pages):
    text = pages[1].read_text()
    assert len(text) < 5e6
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "<script" not in text
    assert "31.0 ± 1.4" in text  # table 1, first row: 30 and 32 percent
    assert "noted: 1 &lt; 2 &amp; 3" in text
    assert text.count("<section id=") == 3


@pytest.mark.parametrize(("width", "dark", "phone"), [(1280, False, False), (375, True, True)])
def test_the_page_in_a_browser(pages, chromium, width, dark, phone):
    """No error, no request, every plot decoded, every link's place there, nothing wider than the screen."""
    assert chromium.open(pages[1], width, dark=dark, phone=phone) == []
    seen = chromium.evaluate(MEASURE)
    assert (seen["broken"], seen["lost"]) == (0, 0)
    assert seen["images"] == 3
    assert seen["links"] >= 3 * 3  # each section: in the list above, in the table, and back
    assert seen["overflow"] <= 0


def test_the_committed_page_has_what_is_published(repo):
    """Every table's and figure's text that lies there, by its file's name."""
    text = (repo / "experiments" / "README.md").read_text()
    paths = [path for paper in PAPERS for path in sorted((repo / "experiments" / paper).glob("*.md"))]
    assert len(paths) >= 49
    for path in paths:
        assert f"]({path.parent.name}/{path.name})" in text, path


@pytest.mark.full
def test_what_is_committed_follows_from_the_records(repo, tmp_path):
    """The page and each table, written again from the committed records and settings alone."""
    (tmp_path / "experiments").symlink_to(repo / "experiments")
    assert index(tmp_path, editions(tmp_path)) == (repo / "experiments" / "README.md").read_text()
    entries = load_published(repo / "experiments" / "published.yaml", "table")
    assert len(entries) >= 22
    for entry in entries:
        table = published_table(entry, tmp_path)
        stem = repo / "experiments" / entry.paper / table.plan.file_stem
        assert stem.with_name(f"{stem.name}.md").read_text().startswith(markdown(table)), stem
        assert stem.with_name(f"{stem.name}.csv").read_text() == csv_text(table), stem


@pytest.mark.parametrize("number", [1, 3])
def test_a_figure_s_own_text_tells_how_many_runs_it_is_of(tmp_path, number):
    """As run_facts writes it."""
    records = [
        Record(tmp_path, record_content(make_run(tmp_path, "a", seed), 0.3, date=f"2026-01-0{seed + 1}"))
        for seed in range(number)
    ]
    path = tmp_path / "figure-1.md"
    path.write_text("".join(f"- {line}\n" for line in run_facts(["train"], records)))
    assert _told(path) == (number, tuple(range(number)), f"2026-01-0{number}")
