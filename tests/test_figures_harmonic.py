"""The supplements' figures that are drawn from formulas or from densities of scores: by hand, and as published."""

import csv
import io
import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from paper_made_up import TABLE_OF_BATCH_SIZES, make_experiments
from results_made_up import record_content, trained_run

from rankdet.errors import UserError
from rankdet.figures import harmonic_gradients, harmonic_iou_family
from rankdet.figures.anchors import FILE, CountedRun, count, count_missing, counted
from rankdet.figures.kinds import reproduction
from rankdet.figures.manifest import load_figure
from rankdet.figures.score_densities import separation
from rankdet.figures.work import Work
from rankdet.report.score_distributions import BINS
from rankdet.results.datasets import choose_data
from rankdet.results.launch import ANY
from rankdet.results.records import Record

DENSITIES = """
title: Densities
kind: densities
table: table-1
series:
  one: {label: one image, fact: apart, row: batch-1}
  eight: {label: eight images, fact: close, row: batch-8}
"""


def cells(table, first):
    """The numbers of a line of a Markdown table."""
    line = next(line for line in table.splitlines() if line.split("|")[1].strip() == first)
    return [float(cell) for cell in line.split("|")[2:-1]]


@pytest.fixture(scope="module")
def offsets():
    return harmonic_gradients.of_offsets()


@pytest.fixture(scope="module")
def scores():
    return harmonic_gradients.of_scores()


class TestGradients:
    def test_offsets_by_hand(self, offsets):
        """Eq. 5 at p = 0.1: L = t^2 / 2 = 0.005 for t = 0.1, so 1.1 + e^-0.005 ln 0.1 = 1.1 - 2.2911 = -1.191, and
        L = 1.5 for t = 2: 1.1 - 0.2231 * 2.3026 = 0.586."""
        row = dict(zip(harmonic_gradients.T_SHOWN, cells(offsets.table, "0.1"), strict=True))
        assert row[0.1] == pytest.approx(1.1 + math.exp(-0.005) * math.log(0.1), abs=6e-4)
        assert (row[0.1], row[2.0]) == (-1.191, 0.586)

    def test_where_a_box_is_pushed_away(self, offsets):
        """Exactly where the factor of Eq. 5 is negative; for a score of 0.01 up to L = 1.517, so t = 2.017."""
        points = list(csv.DictReader(io.StringIO(offsets.csv)))
        assert len(points) == harmonic_gradients.NUM_P * harmonic_gradients.NUM_T
        away = 0
        for point in points:
            p, t, gradient = (float(point[name]) for name in ("p", "t", "harmonic"))
            loss = 0.5 * t * t if abs(t) < 1 else abs(t) - 0.5
            factor = 1 + p + math.exp(-loss) * math.log(p)
            if abs(t) > 1e-9 and abs(factor) > 1e-3:
                assert (gradient * t < 0) == (factor < 0), point
                away += factor < 0
            assert float(point["standard"]) == pytest.approx(max(-1.0, min(1.0, t)), abs=1e-5)
        assert 0.05 < away / len(points) < 0.15
        assert "its box is pushed away" in offsets.measured["low-scores"]
        assert offsets.measured["standard"].endswith(" 0")

    def test_scores_by_hand(self, scores):
        """Eq. 10 at p = 0.9, L = 3: 3 - (1 + e^-3) / 0.9 = 1.834."""
        row = dict(zip(harmonic_gradients.L_SHOWN, cells(scores.table, "0.9"), strict=True))
        assert row[3.0] == pytest.approx(3 - (1 + math.exp(-3)) / 0.9, abs=6e-4) == 1.834

    def test_where_a_score_is_lowered(self, scores):
        """Above p = (1 + e^-L) / L alone, which takes L over 1.278."""
        points = [tuple(map(float, row.values())) for row in csv.DictReader(io.StringIO(scores.csv))]
        rising = [(p, box) for p, box, gradient in points if gradient > 0]
        assert {(p, box) for p, box, _ in points if p > (1 + math.exp(-box)) / box} == set(rising)
        assert min(box for _, box in rising) > 1.278
        share = len(rising) / len(points)
        assert f"not at {share:.1%} of (p, L)" in scores.measured["always"]
        assert f"at {len(points)} of {len(points)} (p, L)" in scores.measured["condition"]

    def test_the_iou_family_by_hand(self):
        """gamma 1 is 1 - IoU^2: slopes 0, -1 and -2. gamma 2: highest at 1/3, (4/3)^2 2/3 = 1.185; gamma 3 at 1/2."""
        shown = harmonic_iou_family.content()
        assert cells(shown.table, "1") == [0, -1, -2, 0, 1]
        assert cells(shown.table, "2")[-1] == pytest.approx(1.185, abs=2e-3)
        assert cells(shown.table, "3")[-2:] == [0.5, 1.688]
        points = {row["iou"]: row for row in csv.DictReader(io.StringIO(shown.csv))}
        assert float(points["0.500"]["gamma_1"]) == 0.75 and float(points["0.500"]["gamma_0"]) == 0.5
        assert "gamma 3: up to IoU 0.500" in shown.measured["condition"]

    @pytest.mark.parametrize("name", ["figure-1", "figure-2", "figure-4"])
    def test_the_checkout_s_manifests_tell_of_them(self, repo, name):
        manifest = load_figure(repo / "experiments" / "harmonic" / f"{name}.yaml")
        assert set(reproduction(manifest, "mini", None, repo).content(False).measured) == set(manifest.series)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 4 steps, finished."""
    return trained_run(tmp_path_factory.mktemp("tiny"))


class TestDensities:
    def test_separation_by_hand(self):
        """Foreground in bins 10, 20 and twice 40: half of it up to bin 20. Of a hundred of background one is in bin 15,
        so 99 % up to bin 0, with all of the foreground above; they share nothing, and with one in bin 0 a quarter."""
        foreground, background = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        foreground[[10, 20]], foreground[40] = 1, 2
        background[0], background[15] = 99, 1
        found = separation(foreground, background)
        assert (found.foreground, found.background, found.above, found.common) == (0.42, 0.02, 1.0, 0.0)
        foreground[0], foreground[40] = 1, 1
        found = separation(foreground, background)
        assert (found.above, found.common) == (0.75, 0.25)
        assert separation(foreground, np.zeros(BINS, np.int64)) is None

    def test_counts_of_a_run_and_of_one_counted_before_there_were_densities(self, trained, tmp_path, capsys):
        """Pairs of 9 images, 252 cells, 6 anchors and 6 classes; what is ignored is in neither density."""
        count(trained)
        found = counted(trained)
        pairs = 9 * 252 * 6 * 6
        assert 0 < found.foreground.sum() < found.background.sum() < pairs
        assert found.foreground.sum() + found.background.sum() > 0.9 * pairs
        path = trained.directory / FILE
        older = {key: value for key, value in json.loads(path.read_text()).items() if key in ("num_images", "overlap")}
        path.write_text(json.dumps(older))
        assert counted(trained).foreground is None
        count_missing([trained], Work(trained.directory.parents[3], 1, ANY, dry_run=False))
        assert counted(trained).foreground.tolist() == found.foreground.tolist()
        capsys.readouterr()
        count_missing([trained], Work(trained.directory.parents[3], 1, ANY, dry_run=False))
        assert capsys.readouterr().out == ""

    def test_other_counts_are_refused(self):
        counts = {"num_images": 1, "overlap": [" ".join(["0"] * BINS)] * BINS, "foreground": "1 2"}
        with pytest.raises(UserError, match="foreground: expected 50 counts; remove the file"):
            CountedRun(Record(None, {}), counts, SimpleNamespace())

    @pytest.mark.full
    def test_from_here_and_as_published(self, repo, tmp_path, front_end, trained):
        """One series has the tiny run's counts, the other was not run; what is published needs neither."""
        root = make_experiments(repo, tmp_path, {"table-1": TABLE_OF_BATCH_SIZES, "figure-1": DENSITIES})
        entry = "- {paper: ap-loss, figure: figure-1, protocol: mini, data: shapes}\n"
        (root / "experiments" / "published.yaml").write_text(entry)
        count(trained)
        manifest = load_figure(root / "experiments/ap-loss/figure-1.yaml")
        for run in reproduction(manifest, "mini", choose_data("shapes"), root).of.series()["one"]:
            run.directory.mkdir(parents=True)
            (run.directory / "record.json").write_text(json.dumps(record_content(run, 0.3)))
            shutil.copy(trained.directory / FILE, run.directory)
        publish = front_end("publish")
        assert publish(root) == 0
        folder = root / "experiments" / "ap-loss"
        text = (folder / "figure-1.mini.md").read_text()
        assert "| eight images | close" in text and "not run" in text
        assert "99% of the background is scored" in text
        points = list(csv.DictReader(io.StringIO((folder / "figure-1.mini.csv").read_text())))
        assert len(points) == 2 * BINS
        own = counted(trained)
        assert sum(int(point["foreground"]) for point in points) == 2 * own.foreground.sum()
        before = {path: path.read_bytes() for path in folder.rglob("figure-1*")}
        shutil.rmtree(root / "runs")
        assert publish(root) == 0
        assert {path: path.read_bytes() for path in folder.rglob("figure-1*")} == before
