"""AP-loss Fig. 3: one label an anchor for a classifier, K labels an anchor for a ranking; and what is ranked then."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tabulate import tabulate
from torch import Tensor

from rankdet.data.records import Target
from rankdet.figures.content import Content
from rankdet.files import as_csv
from rankdet.losses.ap import ap_loss
from rankdet.matching.assign import build_loss_inputs
from rankdet.matching.boxes import BoxCoder
from rankdet.matching.max_iou import IGNORED, MaxIoUMatcher
from rankdet.models.output import DetectorOutput
from rankdet.theory.pair_matrix import differences, heaviside, pair_labels, primary_terms

NUM_CLASSES = 3
OBJECTS, CLASSES = ((0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)), (1, 2)  # classes count from 0 here
ANCHORS = {
    "on the first object": (0.0, 0.0, 10.0, 10.0),
    "on background": (100.0, 100.0, 110.0, 110.0),
    "ignored, IoU 0.45": (0.0, 0.0, 10.0, 4.5),
    "on the second object": (50.0, 50.0, 60.0, 60.0),
}
SCORES = ((0.5, 2.0, 1.0), (-1.0, 0.0, 1.5), (3.0, 3.0, 3.0), (-2.0, 0.2, 0.8))  # an anchor a row, a class a column
SHADES = {1: "#e69f00", 0: "#d9e6f2", -1: "#eeeeee"}


def content() -> Content:
    """The figure."""
    anchors, objects = torch.tensor(list(ANCHORS.values())), torch.tensor(OBJECTS)
    matched = MaxIoUMatcher()(anchors, objects)
    single = [-1 if place == IGNORED else CLASSES[place] + 1 if place >= 0 else 0 for place in matched.tolist()]
    target = Target(objects, torch.tensor(CLASSES), torch.zeros(2, dtype=torch.bool), image_id=1, size=(200, 200))
    scores = torch.tensor(SCORES, dtype=torch.float64)
    output = DetectorOutput(scores[None], torch.zeros(1, len(anchors), 4), anchors, (len(anchors),))
    labels = build_loss_inputs(output, [target], MaxIoUMatcher(), BoxCoder(), NUM_CLASSES).labels[0]
    terms, names = ranked_terms(scores, labels)
    loss = ap_loss(scores, labels, step="heaviside", interpolate=False).item()
    columns = [f"t_i{k}" for k in range(1, NUM_CLASSES + 1)]
    body = [(name, one, *row) for name, one, row in zip(ANCHORS, single, labels.tolist(), strict=True)]
    first = labels[0].tolist()
    return Content(
        tabulate(body, ("anchor i", "t_i of a classifier", *columns), tablefmt="github", colalign=COLUMNS),
        as_csv(("anchor", "t_i", *columns, *(f"s_i{k}" for k in range(1, NUM_CLASSES + 1))),
               [(*row, *own) for row, own in zip(body, SCORES, strict=True)]),
        {
            "classifier": f"{next(iter(ANCHORS))}, which is of class {single[0]}: label {single[0]}",
            "ranking": f"the same anchor: labels {first}; an ignored one: {labels[2].tolist()}",
            "pairs": f"{int((labels == 1).sum())} positive and {int((labels == 0).sum())} negative scores make "
            f"{terms.numel()} pairs; a positive's terms sum to {terms.sum(1).mean():.4f} in the mean, ap_loss gives "
            f"{loss:.4f}",
        },
        [
            f"Exact: four anchors, two objects and K = {NUM_CLASSES} classes by hand; labels by the package's own "
            "matching and label building, scores made up. Hard step, without interpolation.",
        ],
        lambda figure: _draw(figure, single, labels, terms, names),
        (10.4, 3.9),
        "labels of four anchors for a classifier and for a ranking, and the terms of the pairs that are ranked",
    )  # fmt: skip


COLUMNS = ("left", *["right"] * (NUM_CLASSES + 1))


def ranked_terms(scores: Tensor, labels: Tensor) -> tuple[Tensor, tuple[list[str], list[str]]]:
    """L_ij of the pairs (i positive, j negative), float64 [P, N], and what to call rows and columns: b_anchor,class."""
    flat, kinds = scores.flatten(), labels.flatten()
    terms = primary_terms(differences(flat), kinds, heaviside) * pair_labels(kinds)
    rows, columns = ((kinds == kind).nonzero().squeeze(1) for kind in (1, 0))
    names = tuple(
        [f"$b_{{{i // NUM_CLASSES + 1}{i % NUM_CLASSES + 1}}}$" for i in part.tolist()] for part in (rows, columns)
    )
    return terms[rows][:, columns], names


def _draw(figure: Figure, single: list[int], labels: Tensor, terms: Tensor, names: tuple[list[str], list[str]]) -> None:
    one, many, pairs = figure.subplots(1, 3, width_ratios=(1.2, 2.2, 4.2))
    shades = [[SHADES[min(label, 1)]] for label in single]
    _cells(one, shades, [[str(label)] for label in single], list(ANCHORS), ["$t_i$"])
    one.set_title("a classifier's", fontsize=10)
    texts = [[str(label) for label in row] for row in labels.tolist()]
    heads = [f"$t_{{i{k}}}$" for k in range(1, NUM_CLASSES + 1)]
    _cells(many, [[SHADES[label] for label in row] for row in labels.tolist()], texts, [""] * len(single), heads)
    many.set_title("the ranking's, replicated K times", fontsize=10)
    greys = [["#e69f0080" if value else "white" for value in row] for row in terms.tolist()]
    _cells(pairs, greys, [[f"{value:.2f}" for value in row] for row in terms.tolist()], *names)
    pairs.set_title("terms $L_{ij}$ of positive i and negative j", fontsize=10)


def _cells(axes: Axes, shades: list[list[str]], texts: list[list[str]], rows: list[str], columns: list[str]) -> None:
    """A table of coloured cells."""
    axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
    for i, j in np.ndindex(len(rows), len(columns)):
        axes.add_patch(Rectangle((j + 0.03, i + 0.03), 0.94, 0.94, facecolor=shades[i][j], edgecolor="#999999", lw=0.6))
        axes.text(j + 0.5, i + 0.5, texts[i][j], ha="center", va="center", fontsize=9)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
