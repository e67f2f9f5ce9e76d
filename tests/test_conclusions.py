"""The page on the comparison of all losses: what it says follows from made-up runs by hand."""

import re
import shutil
from dataclasses import replace

import pytest
from results_made_up import make_plan, printed_row, printed_table, record_content

from rankdet.overview.conclusions import conclusions, write_conclusions
from rankdet.overview.order_of_losses import kendall, ranked, unbeaten
from rankdet.results.records import Record
from rankdet.results.registry import OWN
from rankdet.results.tables import collect
from rankdet.results.tuning import Tuning

ROWS = replace(printed_table(*(printed_row(key, None) for key in "abc")), kind=OWN)


def made_up(root, **aps):
    """A table of the losses a, b and c; key -> AP a seed, in percent."""
    plan = make_plan(root, ROWS)
    records = [
        Record(run.directory / "record.json", record_content(run, ap / 100))
        for row in plan.rows
        for run, ap in zip(row.runs, aps.get(row.printed.key, ()), strict=False)
    ]
    return collect(plan, records)


def on(table, data):
    """The table as it would be on another data set."""
    rows = tuple(
        replace(
            row,
            planned=replace(
                row.planned,
                runs=tuple(
                    replace(run, directory=run.directory.parents[3] / data / "mini" / run.name / f"seed{run.seed}")
                    for run in row.planned.runs
                ),
            ),
        )
        for row in table.rows
    )
    plan = replace(table.plan, rows=tuple(row.planned for row in rows), data=replace(table.plan.data, name=data))
    return replace(table, plan=plan, rows=rows)


def test_one_data_set_by_hand(tmp_path):
    """Means 31, 22 and 21. Of three pairs a is told from both, b and c overlap. Three seeds: 2 / 20 by chance."""
    table = made_up(tmp_path, a=(30, 31, 32), b=(20, 22, 24), c=(19, 21, 23))
    text = conclusions([table])
    assert [row.planned.printed.key for row in ranked(table)] == ["a", "b", "c"]
    assert [row.planned.printed.key for row in unbeaten(ranked(table))] == ["a"]
    assert re.search(r"\| Row a +\| +31.0 ± 1.0 \| +2 \| +0 \| +3 \|", text)
    assert re.search(r"\| Row c +\| +21.0 ± 2.0 \| +0 \| +1 \| +3 \|", text)
    assert "9 of 9 runs: 40 images to learn from, 20 to test on, 500 steps (100 epochs)." in text
    assert "2 of 3 pairs of losses are told apart." in text
    assert "by chance in 10.0% of cases with 3 seeds each: if none differed, in about 0.3 of 3 pairs" in text
    assert "No loss is told to lie above Row a." in text
    assert "One data set has been published" in text
    assert "the standard deviation of AP over the seeds is 2.0 for the median loss, 2.0 for the worst" in text
    assert "Nothing here confirms or refutes" in text


def test_two_data_sets_by_hand(tmp_path):
    """On the other set c leads and a is last: b lies above a there and below it here, as c does."""
    one = made_up(tmp_path, a=(30, 31, 32), b=(20, 22, 24), c=(19, 21, 23))
    other = on(made_up(tmp_path, a=(10, 11, 12), b=(20, 22, 24), c=(40, 41, 42)), "photos")
    assert kendall(ranked(one), ranked(other)) == -1.0
    assert kendall(ranked(one), ranked(one)) == 1.0
    assert kendall(ranked(one)[:1], ranked(one)) is None
    text = conclusions([one, other])
    assert "Told apart in the same order on all of 2 data sets: 0 pairs." in text
    assert "Each loss is told to lie below another on some data set." in text
    assert "On each data set some loss is told to lie above Row b." in text
    assert "in opposite orders on different data sets: Row a and Row b, Row a and Row c" in text
    assert "on made, mini and photos, mini: -1.00." in text
    same = conclusions([one, on(one, "photos")])
    assert "Told apart in the same order on all of 2 data sets: 2 pairs." in same
    assert "On no data set is any loss told to lie above Row a." in same
    assert "opposite orders" not in same


def test_what_the_search_left_doubtful(tmp_path):
    """b was not searched; a's best rate is the grid's last, and two of its ten settings came to nothing."""
    table = made_up(tmp_path, a=(30, 31, 32), b=(20, 22, 24))
    best, edges = {"a": {"schedule.lr": 0.008}}, {"a": ("schedule.lr",)}
    tuning = Tuning(tmp_path, "made", "x", "mini", 1, 10, (7,), best, edges, {"a": 2})
    plan = replace(table.plan, tunings={("retinanet", "made"): tuning})
    text = conclusions([replace(table, plan=plan)])
    assert "Settings were searched on made for all but Row b, which have defaults." in text
    assert "Best at the edge of the grid, so that a better value may lie beyond: Row a." in text
    assert "Settings of the search that ended below 1 AP: Row a (2 of 10)." in text
    assert "6 of 9 runs" in text


def test_a_single_seed_tells_nothing_apart(tmp_path):
    text = conclusions([made_up(tmp_path, a=(30,), b=(20,))])
    assert re.search(r"\| Row a +\| +30.0 \| +0 \| +0 \| +1 \|", text)
    assert "by chance" not in text and "told to lie above Row" not in text


@pytest.mark.parametrize("published", ["[]\n", "- {paper: all-losses, table: comparison, protocol: mini}\n"])
def test_no_page_before_there_is_something_to_say(repo, tmp_path, published):
    experiments = tmp_path / "experiments"
    (experiments / "all-losses").mkdir(parents=True)
    for name in ("registry.yaml", "datasets.yaml", "all-losses/comparison.yaml"):
        shutil.copy(repo / "experiments" / name, experiments / name)
    (experiments / "published.yaml").write_text(published)
    assert write_conclusions(tmp_path) == []
    assert not (experiments / "all-losses" / "README.md").exists()
