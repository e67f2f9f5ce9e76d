"""Parameterized AP loss Fig. 1: the searched functions with their control points, as far as they are known."""

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.config import CONFIG_DIR, compose
from rankdet.figures.content import Content
from rankdet.files import as_csv
from rankdet.results.reading import read_yaml
from rankdet.search.lookup import FOLDER
from rankdet.search.parameters import FUNCTIONS, Shape
from rankdet.search.plots import TITLES, draw_functions

TABLE = CONFIG_DIR.parent / "experiments" / "pap" / "table-1.yaml"  # whose rows are trained by what is released
COLUMNS = 3
DETECTORS = {"retinanet": "RetinaNet", "faster-rcnn": "Faster R-CNN", "deformable-detr": "Deformable DETR"}  # by series


def content(searches: Path = CONFIG_DIR.parent / FOLDER) -> Content:
    """The figure: the released functions, and the best sample of every published search."""
    shapes = released() | found(searches)
    header = ("functions", "function", *(f"{axis}{point}" for point in range(1, 5) for axis in "xy"), "gradient scale")
    rows = [
        (name, TITLES[function], *(f"{value:.4g}" for value in row), f"{shape.gradient_scale:g}")
        for name, shape in shapes.items()
        for function, row in zip(FUNCTIONS, shape.control_points, strict=True)
    ]
    lines = ceil(len(shapes) / COLUMNS)
    return Content(
        tabulate(rows, header, tablefmt="github", disable_numparse=True),
        as_csv(header, rows),
        {detector: measured(detector, shapes) for detector in DETECTORS},
        [
            "released: of the authors' program, searched on COCO; Table 1's rows are trained by them. The others: what "
            f"searches found here, with the protocol; see {FOLDER}."
        ],
        lambda figure: draw(figure, shapes),
        (4.6 * min(len(shapes), COLUMNS), 5.0 * lines),
        "the searched functions with their control points",
    )


def released() -> dict[str, Shape]:
    """Name -> functions: those of the authors' program, for region proposals, too."""
    rows = read_yaml(TABLE)["rows"]
    both = (rows["retinanet-blocked"], rows["faster-rcnn-blocked"])
    retinanet, faster = (compose([*row["overrides"], *row.get("mini_overrides", ())]) for row in both)
    return {
        "RetinaNet, released": shape_of(retinanet.loss),
        "Faster R-CNN, released": shape_of(faster.loss),
        "Faster R-CNN, rpn, released": shape_of(faster.rpn.loss),
    }


def found(searches: Path) -> dict[str, Shape]:
    """Name -> functions: of each published search's best sample, for region proposals, too, where it has some."""
    shapes = {}
    for path in sorted(searches.glob("*/*/best/*.yaml")):
        protocol, search = path.parts[-4:-2]
        stage = "" if path.stem == "loss" else f", {path.stem}"
        raw = read_yaml(path)
        shapes[f"{search}{stage} ({protocol})"] = shape_of(raw if path.stem == "loss" else raw["loss"])
    return shapes


def measured(detector: str, shapes: Mapping[str, Shape]) -> str:
    """What is known of a detector's functions, in words."""
    own = [name for name in shapes if name.startswith((f"{DETECTORS[detector]}, ", f"{detector}-"))]
    if not own:
        return "not known: none were released, and none were searched here"
    distances = "; ".join(f"{name} {distance(shapes[name])}" for name in own)
    return f"area between each function and the identity line, where the search starts: {distances}"


def shape_of(option: Mapping[str, Any]) -> Shape:
    """The functions that an option of the config group loss has."""
    return Shape(tuple(map(tuple, option["control_points"])), float(option["gradient_scale"]))


def distance(shape: Shape) -> str:
    """Function by function, the area between it and the identity line."""
    x = np.linspace(0, 1, 1001)
    areas = {}
    for function, row in zip(FUNCTIONS, shape.control_points, strict=True):
        points = np.array([0.0, 0.0, *row, 1.0, 1.0])
        areas[TITLES[function]] = float(np.abs(np.interp(x, points[0::2], points[1::2]) - x).mean())
    return ", ".join(f"{name} {area:.3f}" for name, area in areas.items())


def draw(figure: Figure, shapes: dict[str, Shape]) -> None:
    """A panel each."""
    panels = np.ravel(figure.subplots(ceil(len(shapes) / COLUMNS), min(len(shapes), COLUMNS)))
    for axes in panels[len(shapes) :]:
        axes.set_visible(False)
    for axes, (name, shape) in zip(panels, shapes.items(), strict=False):
        draw_functions(axes, shape)
        axes.set_title(f"{name}\ngradient scale {shape.gradient_scale:.3g}", fontsize=10)
