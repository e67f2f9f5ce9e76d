"""Plots and pictures as data URIs, a plot once in colours for a light page and once for a dark one."""

import base64
import io
from collections.abc import Callable
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

SIZE = (4.8, 3.5)  # inches; at a phone's width a plot's text is still read
MARGINS = {"left": 0.14, "right": 0.97, "bottom": 0.14, "top": 0.96}
# Okabe and Ito's colours, which stay apart in the common forms of colour blindness, and last the text's: C0 to C7.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#8b5a2b", "#1c2430")
DARK = ("#56b4e9", "#ff8a3d", "#2ecc9a", "#e79ac6", "#f0d050", "#9ad0f5", "#d0a070", "#e4e8ee")
INK = LIGHT[-1]
LOOK = {
    "svg.hashsalt": "rankdet", "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": INK, "grid.alpha": 0.15,
    "axes.prop_cycle": mpl.cycler(color=LIGHT), "legend.framealpha": 0, "font.size": 10, "axes.axisbelow": True,
}  # fmt: skip


class Plot(NamedTuple):
    """A plot as two data URIs of SVG, and what it shows in words."""

    light: str
    dark: str
    alt: str


def plot(draw: Callable[[Axes], None], alt: str) -> Plot:
    """What `draw` draws on one axes; its colours should be C0 to C7 or such as read on any page.

    The same drawing gives the same bytes.
    """
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=SIZE)  # without a layout engine, which would lay out every text three times
        figure.subplots_adjust(**MARGINS)
        draw(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(out, format="svg", dpi=110, metadata={"Date": None, "Creator": None})
    light = dark = out.getvalue()
    for one, other in zip(LIGHT, DARK, strict=True):
        dark = dark.replace(one, other.upper())  # upper case: not replaced again by a later pair
    return Plot(*(data_uri("image/svg+xml", svg.encode()) for svg in (light, dark)), alt)


def picture(image: np.ndarray) -> str:
    """uint8 [H, W, 3] RGB as the data URI of a JPEG."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=82, optimize=True)
    return data_uri("image/jpeg", out.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """content as an address that a page can carry in itself. kind: image/png, ..."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
