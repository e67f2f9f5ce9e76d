"""Parameterized AP loss Fig. 1: the searched functions with their control points, as far as they are known."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.config import CONFIG_DIR, option_of
from rankdet.figures.content import Content
from rankdet.files import as_csv
from rankdet.search.parameters import FUNCTIONS, Shape
from rankdet.search.plots import TITLES, draw_functions

RELEASED = "parameterized_ap"  # configs/loss/<name>.yaml: the authors' program's own for RetinaNet on COCO
SEARCHED = "pap_*.yaml"  # and what was found here and moved there


def content() -> Content:
    """The figure: the released functions, and every file of configs/loss whose name begins with pap_."""
    shapes = {name: shape_of(name) for name in [RELEASED, *sorted(p.stem for p in found())]}
    header = ("functions", "function", *(f"{axis}{point}" for point in range(1, 5) for axis in "xy"), "gradient scale")
    rows = [
        (name, TITLES[function], *(f"{value:g}" for value in row), f"{shape.gradient_scale:g}")
        for name, shape in shapes.items()
        for function, row in zip(FUNCTIONS, shape.control_points, strict=True)
    ]
    own = f"{len(shapes) - 1} sets of functions found here" if len(shapes) > 1 else "none searched here"
    return Content(
        tabulate(rows, header, tablefmt="github", disable_numparse=True),
        as_csv(header, rows),
        {
            "retinanet": f"{distance(shapes[RELEASED])}; {own}",
            "faster-rcnn": "not known: the program has RetinaNet's alone",
            "deformable-detr": "not known: the program has RetinaNet's alone",
        },
        [f"From configs/loss/{RELEASED}.yaml; files pap_*.yaml beside it, such as make search-pap's, are drawn, too."],
        lambda figure: draw(figure, shapes),
        (4.6 * len(shapes), 5.0),
        "the searched functions with their control points",
    )


def found() -> list[Path]:
    """What was found here."""
    return list((CONFIG_DIR / "loss").glob(SEARCHED))


def shape_of(name: str) -> Shape:
    """A loss's functions, by its option's name."""
    option = option_of("loss", name)
    return Shape(tuple(map(tuple, option["control_points"])), float(option["gradient_scale"]))


def distance(shape: Shape) -> str:
    """How far the functions lie from the identity line, by the area between."""
    x = np.linspace(0, 1, 1001)
    areas = {}
    for function, row in zip(FUNCTIONS, shape.control_points, strict=True):
        points = np.array([0.0, 0.0, *row, 1.0, 1.0])
        areas[TITLES[function]] = float(np.abs(np.interp(x, points[0::2], points[1::2]) - x).mean())
    shown = ", ".join(f"{name} {area:.3f}" for name, area in areas.items())
    return f"area between the function and the identity line, where the search starts: {shown}"


def draw(figure: Figure, shapes: dict[str, Shape]) -> None:
    """A panel each."""
    for axes, (name, shape) in zip(np.ravel(figure.subplots(1, len(shapes))), shapes.items(), strict=True):
        draw_functions(axes, shape)
        axes.set_title(f"{name}, gradient scale {shape.gradient_scale:.3g}", fontsize=10)
