"""Means, spreads, staleness and order, on made-up records with the arithmetic written out."""

import csv
import io
from dataclasses import replace
from itertools import permutations

import pytest
from results_made_up import make_plan, make_run, printed_row, printed_table, record_content
from scipy.stats import kendalltau

from rankdet.results.output import save_table
from rankdet.results.records import Record, flag_other_data, match
from rankdet.results.render import csv_text, markdown
from rankdet.results.tables import collect, orderings

TABLE = printed_table(printed_row("a", 50.0, 80.5), printed_row("b", 40.0, 70.25), printed_row("c", 45.0))


def records_of(plan, values, **changes):
    """values: row key -> AP per seed, None for a run that is missing."""
    found = []
    for row in plan.rows:
        for run, ap in zip(row.runs, values.get(row.printed.key, ()), strict=False):
            if ap is not None:
                found.append(Record(run.directory / "record.json", record_content(run, ap, **changes)))
    return found


def row_of(table, key):
    return next(row for row in table.rows if row.planned.printed.key == key)


def cells(table, key):
    """What follows a row's name in the Markdown table."""
    line = next(line for line in markdown(table).splitlines() if line.startswith(f"| Row {key} "))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_mean_and_sample_standard_deviation(tmp_path):
    """AP 30, 32, 37: mean 33, deviations -3, -1, 4, squares 9 + 1 + 16 = 26, over n - 1 = 2: 13, sd 3.60555."""
    plan = make_plan(tmp_path, TABLE)
    table = collect(plan, records_of(plan, {"a": [0.30, 0.32, 0.37]}))
    score = row_of(table, "a").score("AP")
    assert score.mean == pytest.approx(33.0)
    assert score.sd == pytest.approx(13**0.5)
    assert score.values == pytest.approx((30.0, 32.0, 37.0))
    assert row_of(table, "a").score("AP50").mean == pytest.approx(66.0)
    assert row_of(table, "a").score("AP75") is None
    assert cells(table, "a") == ["33.0 ± 3.6", "50.0", "66.0 ± 7.2", "80.50", "3", ""]


def test_status_of_rows(tmp_path):
    plan = make_plan(tmp_path, TABLE, why={"c": "SSD: detector not built yet"})
    table = collect(plan, records_of(plan, {"a": [0.3, None, 0.31]}))
    assert [row.status for row in table.rows] == ["partial", "not run", "not done"]
    assert cells(table, "a") == ["30.5 ± 0.7", "50.0", "61.0 ± 1.4", "80.50", "2", "2 of 3 seeds"]
    assert cells(table, "b") == ["-", "40.0", "-", "70.25", "-", "not run"]
    assert cells(table, "c") == ["-", "45.0", "-", "-", "-", "SSD: detector not built yet"]


def test_a_single_seed_has_no_spread(tmp_path):
    plan = make_plan(tmp_path, TABLE, seeds=(0,))
    table = collect(plan, records_of(plan, {"a": [0.3], "b": [0.2]}))
    assert row_of(table, "a").score("AP").sd is None
    assert cells(table, "a") == ["30.0", "50.0", "60.0", "80.50", "1", ""]
    assert orderings(table, "AP")[0].separated == 0  # one run a row separates nothing


def test_nothing_run_at_all(tmp_path):
    table = collect(make_plan(tmp_path, TABLE), [])
    assert {row.status for row in table.rows} == {"not run"}
    assert "Order by AP" not in markdown(table)
    assert len(csv_text(table).splitlines()) == 4
    assert [path.stat().st_size > 0 for path in save_table(table, tmp_path / "out")] == [True] * 4


def test_a_shortened_run_says_so(tmp_path):
    plan = make_plan(tmp_path, TABLE, seeds=(0,))
    assert "stopped at step 400 of 500" in markdown(collect(plan, records_of(plan, {"a": [0.3]}, steps=400)))


def test_runs_that_came_to_nothing_are_counted(tmp_path):
    """Mean and spread alone would hide that two of three seeds collapsed."""
    plan = make_plan(tmp_path, TABLE)
    table = collect(plan, records_of(plan, {"a": [0.0, 0.054, 0.0099], "b": [0.01, 0.2, 0.3]}))
    assert [cells(table, key)[-1] for key in "ab"] == ["2 of 3 seeds below 1 AP", ""]


def stale_setup(tmp_path, **changes):
    """A plan under protocol version 2, and the records that its rows left under version 1, published."""
    old = make_plan(tmp_path, TABLE, config_hash="11111111")
    new = make_plan(tmp_path, TABLE, config_hash="22222222", version=2)
    records = []
    for row in old.rows:
        for run in row.runs:
            content = record_content(run, 0.3, overrides=list(run.overrides), tuned=list(run.tuned), **changes)
            records.append(Record(run.directory / "old.json", content))
    return new, records


def test_another_protocol_version_makes_records_stale(tmp_path):
    """Shown with a mark and the reason, and left out of the order."""
    plan, records = stale_setup(tmp_path)
    table = collect(plan, records)
    assert {row.status for row in table.rows} == {"stale"}
    text = markdown(table)
    assert "30.0 ± 0.0 †" in text
    assert "† stale: protocol version 1, now 2" in text
    assert orderings(table, "AP") == []
    assert {line["stale"] for line in csv.DictReader(io.StringIO(csv_text(table)))} == {"1"}


def test_a_current_record_beats_a_stale_one(tmp_path):
    plan, records = stale_setup(tmp_path)
    table = collect(plan, [*records, *records_of(plan, {"a": [0.4, None, None]})])
    row = row_of(table, "a")
    assert row.status == "partial"
    assert row.score("AP").values == pytest.approx((40.0,))
    assert "stale and left out: protocol version 1, now 2" in markdown(table)


def test_another_config_under_the_same_version_is_stale(tmp_path):
    run = make_run(tmp_path, "a", config_hash="22222222")
    old = make_run(tmp_path, "a", config_hash="11111111")
    record = Record(old.directory, record_content(old, 0.3, overrides=["data.root='x'", "gpus=0", *old.overrides]))
    assert match(run, [record]).stale == ("its configuration has changed since",)
    assert match(make_run(tmp_path, "a", seed=1), [record]) is None
    assert match(make_run(tmp_path, "b"), [record]) is None


def test_new_tuned_settings_make_the_old_run_stale_but_do_not_lose_it(tmp_path):
    """The learning rate is a tuned one in the first pair, so it is no part of the row; in the second the row's own."""
    old = make_run(tmp_path, "a", config_hash="11111111", tuned=("schedule.lr=0.001",))
    new = make_run(tmp_path, "a", config_hash="22222222", tuned=("schedule.lr=0.002",))
    content = record_content(old, 0.3, overrides=list(old.overrides), tuned=list(old.tuned))
    assert match(new, [Record(old.directory, content)]).stale
    other_row = make_run(tmp_path, "a", config_hash="33333333", extra=("schedule.lr=0.002",))
    assert match(other_row, [Record(old.directory, content)]) is None


def test_records_on_other_data_are_stale(tmp_path):
    """Without today's hash, the data of most records are taken for the right ones."""
    plan = make_plan(tmp_path, TABLE)
    records = records_of(plan, {"a": [0.3, 0.3, 0.3], "b": [0.2, 0.2, 0.2]})
    odd = Record(records[0].path, records[0].content | {"data_hash": "cccc-dddd"})
    table = collect(plan, [odd, *records[1:]])
    assert row_of(table, "a").status == "partial"
    assert "other data (cccc-dddd, not aaaa-bbbb)" in markdown(table)
    today = {("made", "trainval", "test"): "eeee-ffff"}
    assert {row.status for row in collect(plan, records, today).rows} == {"stale", "not run"}
    other = {("other", "trainval", "test"): "eeee-ffff"}
    assert {row.status for row in collect(plan, records, other).rows} == {"done", "not run"}
    assert flag_other_data([None], "eeee-ffff") == [None]


def test_order_by_hand(tmp_path):
    """Printed a 50 > c 45 > b 40. Ours by seed: a 30, 32, 31; c 33, 29, 33; b 20, 21, 31.5.

    Means a 31, c 31.67, b 24.17: of the pairs (a, c), (a, b), (c, b) the first is reversed, two are as printed. All
    runs of one above all of the other: none, since b's 31.5 is above a's 30 and c's 29. Tau at seed 0: a-c reversed,
    a-b and c-b as printed: (-1 + 1 + 1)/3 = 1/3; seed 1: all three as printed: 1; seed 2: a-c and a-b reversed, c-b as
    printed: -1/3.
    """
    plan = make_plan(tmp_path, TABLE)
    values = {"a": [0.30, 0.32, 0.31], "c": [0.33, 0.29, 0.33], "b": [0.20, 0.21, 0.315]}
    (order,) = orderings(collect(plan, records_of(plan, values)), "AP")
    assert (order.num_rows, order.num_pairs, order.as_printed) == (3, 3, 2)
    assert (order.separated, order.separated_as_printed) == (0, 0)
    assert order.taus == pytest.approx((1 / 3, 1.0, -1 / 3))


def test_separated_pairs_by_hand(tmp_path):
    """a 40, 41, 42 lies above b 30, 31, 32 (as printed) and below c 50, 51, 52 (printed the other way); c above b."""
    plan = make_plan(tmp_path, TABLE)
    values = {"a": [0.40, 0.41, 0.42], "b": [0.30, 0.31, 0.32], "c": [0.50, 0.51, 0.52]}
    (order,) = orderings(collect(plan, records_of(plan, values)), "AP")
    assert (order.separated, order.separated_as_printed) == (3, 2)
    text = markdown(collect(plan, records_of(plan, values)))
    assert "our means put 2 of 3 pairs of rows in the paper's order" in text
    assert "In 3 all runs of one row lie above all of the other, 2 of them as in the paper." in text
    assert "Kendall's tau with the paper, seed by seed: 0.33 ± 0.00 (n = 3)" in text


def test_tau_is_kendalls(tmp_path):
    """Against scipy on every order of four untied rows."""
    printed = [10.0, 20.0, 30.0, 40.0]
    table = printed_table(*(printed_row(key, ap) for key, ap in zip("abcd", printed, strict=True)))
    plan = make_plan(tmp_path, table, seeds=(0,))
    orders = list(permutations([0.1, 0.2, 0.3, 0.4]))
    assert len(orders) == 24
    for ours in orders:
        values = {key: [ap] for key, ap in zip("abcd", ours, strict=True)}
        (order,) = orderings(collect(plan, records_of(plan, values)), "AP")
        assert order.taus == pytest.approx((kendalltau(printed, ours).statistic,))


def test_rows_of_another_detector_have_an_order_of_their_own(tmp_path):
    """a, b on RetinaNet as printed (50 > 40: 31 > 20), c, d on SSD reversed (45 > 30: 10 < 12); none across."""
    table = printed_table(*(printed_row(key, ap) for key, ap in (("a", 50.0), ("b", 40.0), ("c", 45.0), ("d", 30.0))))
    plan = make_plan(tmp_path, table, seeds=(0,))
    rows = [
        replace(row, runs=tuple(replace(run, detector="ssd") for run in row.runs)) if row.printed.key in "cd" else row
        for row in plan.rows
    ]
    plan = replace(plan, rows=tuple(rows))
    found = collect(plan, records_of(plan, {"a": [0.31], "b": [0.2], "c": [0.1], "d": [0.12]}))
    assert [(order.detector, order.num_pairs, order.as_printed) for order in orderings(found, "AP")] == [
        ("retinanet", 1, 1), ("ssd", 1, 0),
    ]  # fmt: skip
    text = markdown(found)
    assert "Order by AP, paper/table-9, SSD: our means put 0 of 1 pair of rows" in text
    assert "a quarter-width RetinaNet or SSD from scratch" in text


def test_pairs_that_the_paper_ties_are_left_out(tmp_path):
    table = printed_table(printed_row("a", 50.0), printed_row("b", 50.0), printed_row("c", 45.0))
    plan = make_plan(tmp_path, table)
    values = {"a": [0.4] * 3, "b": [0.3] * 3, "c": [0.2] * 3}
    (order,) = orderings(collect(plan, records_of(plan, values)), "AP")
    assert (order.num_pairs, order.as_printed) == (2, 2)


def test_text_of_the_paper_protocol_says_how_it_tests(tmp_path):
    """AP-loss, Sec. 4.1.1: a shorter side of 600, not 512 x 512, which it trains with."""
    plan = replace(make_plan(tmp_path, TABLE), protocol="paper")
    text = markdown(collect(plan, records_of(plan, {"a": [0.3]})))
    assert "version 1 (the paper's training, tested at a shorter side of 600 with the aspect ratio kept)." in text
    assert "512" not in text


def test_text_states_what_was_run(tmp_path):
    plan = make_plan(tmp_path, TABLE, args=("loss.delta=0.5",))
    plan = replace(plan, manifest=replace(plan.manifest, mini_notes=("Rows were warmed up unequally.",)))
    records = records_of(plan, {"a": [0.3, 0.31, 0.32], "b": [0.2, 0.2, 0.2]}, dirty=True)
    records[0].content.update(train_seconds=55.4, image_passes=8000)
    text = markdown(collect(plan, records))
    for part in (
        "Protocol: mini, version 1",
        "Data: made; trained on trainval (40 images, annotations hashed to aaaa), reported on test (20 images, bbbb).",
        "Seeds: 0, 1, 2.",
        "500 steps, 4000 to 8000 images seen (100 to 200 epochs), 39 CPU seconds of training. ",
        "All 6 runs: 4 CPU minutes",  # 6 * 39 s = 3.9 min
        "A CPU, 2 cores; torch 2.15.0, threads per run: 1",
        "commit abc123 (with uncommitted changes); runs of 2026-01-02",
        "Own overrides in every row whose loss has them: loss.delta=0.5",
        "- Rows were warmed up unequally.",
        "nothing was tuned",
        "nothing here confirms or refutes them",
        "Rows that were not run are no part of that order.",
        "all runs of one of two rows that do not differ lie above all of the other by chance in 10.0% of cases.",
    ):
        assert part in text, part


def test_no_order_is_told_of_rows_that_are_no_printed_ones_in_turn(tmp_path):
    plan = make_plan(tmp_path, TABLE)
    records = records_of(plan, {"a": [0.3, 0.31, 0.32], "b": [0.2, 0.2, 0.2]})
    assert "refutes them: only the order" in markdown(collect(plan, records))
    plan = replace(plan, manifest=replace(plan.manifest, ordered=False))
    text = markdown(collect(plan, records))
    assert "refutes them.\n" in text and "order" not in text


def test_a_drawn_set_is_described(tmp_path):
    """Its shapes' sizes are those of its config; of a set by another name nothing is known."""
    for name, words in (("shapes_small", " (6 kinds of drawn shapes, 14 to 48 pixels across)"), ("made", "")):
        plan = make_plan(tmp_path, TABLE)
        text = markdown(collect(plan, records_of(plan, {"a": [0.3]}, data_name=name)))
        assert f"Data: {name}{words}; trained on" in text


def test_csv_is_tidy_and_unrounded(tmp_path):
    plan = make_plan(tmp_path, TABLE, seeds=(0, 1), why={"c": "no"})
    lines = list(csv.DictReader(io.StringIO(csv_text(collect(plan, records_of(plan, {"a": [0.1234567, 0.2]}))))))
    assert [line["row"] for line in lines] == ["a", "b", "c"]
    first = lines[0]
    assert float(first["AP_mean"]) == pytest.approx(16.172835, abs=1e-12)
    assert [float(value) for value in first["AP_seeds"].split(";")] == pytest.approx([12.34567, 20.0], abs=1e-12)
    assert (first["n"], first["seeds"], first["steps"], first["commit"]) == ("2", "0;1", "500;500", "abc123")
    assert (first["status"], first["AP_printed"]) == ("done", "50.0")
    assert (first["epochs"], first["hardware"]) == ("100;100", "A CPU, 2 cores")  # 4000 images seen of 40
    assert lines[1]["AP_mean"] == "" and lines[1]["status"] == "not run"
    assert (lines[2]["status"], lines[2]["note"]) == ("not done", "no")


def test_a_correlation_has_two_decimals_and_a_falling_metric_is_named(tmp_path):
    """AP50 as a correlation: 0.52 and 0.55, in no percent."""
    printed = replace(TABLE, units={"AP": "percent", "AP50": "correlation"}, falling=("AP",))
    plan = make_plan(tmp_path, printed)
    table = collect(plan, records_of(plan, {"a": [0.26, 0.275], "b": [-0.3]}))
    assert cells(table, "a")[2:4] == ["0.54 ± 0.02", "80.50"]
    assert cells(table, "b")[2] == "-0.60"
    text = markdown(table)
    assert "over n seeds, in percent but for AP50, on made." in text
    assert "- Less is better: AP." in text
    assert len(save_table(table, tmp_path)) == 4  # the plot has room below 0


def test_equal_tables_are_equal_bytes(tmp_path):
    plan = make_plan(tmp_path, TABLE)
    records = records_of(plan, {"a": [0.3, 0.31, 0.35], "b": [0.2, None, None]})
    first = save_table(collect(plan, records), tmp_path / "one")
    again = save_table(collect(plan, records), tmp_path / "two")
    assert [path.name for path in first] == [f"table-9.made.{kind}" for kind in ("md", "csv", "png", "tex")]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(path.name for path in first)
    assert "![bars of the table above](table-9.made.png)" in first[0].read_text()
