"""Parameterized AP loss Fig. 1: the released functions, and beside them those of published searches, by detector."""

import csv
import io

import pytest
import torch

from rankdet.config import CONFIG_DIR, option_of
from rankdet.figures.content import Edition
from rankdet.figures.manifest import load_figure
from rankdet.figures.output import save_figure
from rankdet.figures.searched_functions import DETECTORS, content, distance, shape_of
from rankdet.search.found import Found, save
from rankdet.search.settings import SEARCHES, load_search


@pytest.fixture
def searches(tmp_path):
    """Two published ones: shared functions for RetinaNet, and separate ones for both parts of Faster R-CNN."""
    for name in ("retinanet-coco-shared", "faster-rcnn-coco"):
        search = load_search(CONFIG_DIR.parent / SEARCHES, name, "mini", None, 0)
        theta = torch.linspace(0.1, 0.9, search.space.size, dtype=torch.float64)
        save(search, Found("best", theta, "made up"), tmp_path / "mini" / name)
    return tmp_path


def test_each_search_has_its_functions_beside_the_released_ones(searches, tmp_path):
    found = content(searches)
    rows = list(csv.DictReader(io.StringIO(found.csv)))
    names = list(dict.fromkeys(row["functions"] for row in rows))
    assert names == [
        "RetinaNet, released",
        "Faster R-CNN, released",
        "Faster R-CNN, rpn, released",
        "faster-rcnn-coco (mini)",
        "faster-rcnn-coco, rpn (mini)",
        "retinanet-coco-shared (mini)",
    ]
    assert len(rows) == 6 * 5
    shared = {tuple(row[f"{axis}{point}"] for point in range(1, 5) for axis in "xy") for row in rows[25:]}
    assert len(shared) == 1
    assert [name in found.measured["retinanet"] for name in names] == [True, *[False] * 4, True]
    assert [name in found.measured["faster-rcnn"] for name in names] == [False, *[True] * 4, False]
    assert found.measured["deformable-detr"].startswith("not known")
    manifest = load_figure(CONFIG_DIR.parent / "experiments" / "pap" / "figure-1.yaml")
    assert all(path.stat().st_size > 1000 for path in save_figure(manifest, found, Edition("figure-1"), tmp_path))


def test_without_a_search(tmp_path):
    found = content(tmp_path / "none")
    assert found.csv.count("released") == 15
    assert [found.measured[name].startswith("not known") for name in DETECTORS] == [False, False, True]
    assert "Faster R-CNN, rpn, released H2 0.399" in found.measured["faster-rcnn"]


def test_area_by_hand():
    """Released h2's chords leave the diagonal by 0.2204 on the whole; the line itself by nothing."""
    line = shape_of({"control_points": [[0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8]] * 5, "gradient_scale": 1.0})
    assert distance(line) == "H2 0.000, I2 0.000, I3 0.000, I1 0.000, H1 0.000"
    x, y = zip((0, 0), (0.4182, 0.0277), (0.4948, 0.2187), (0.6882, 0.2624), (0.802, 0.6688), (1, 1), strict=True)
    area = 0.5 - sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(5))
    assert distance(shape_of(option_of("loss", "parameterized_ap"))).startswith(f"H2 {area:.3f},")
