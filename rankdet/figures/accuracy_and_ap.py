"""AP-loss Fig. 1: on one image with few positive anchors accuracy stays high while AP tells a poor detector."""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tabulate import tabulate
from torch import Tensor

from rankdet.data.draw import draw_picture
from rankdet.figures.content import COLORS, Content
from rankdet.files import as_csv
from rankdet.losses.ap import ap_loss
from rankdet.matching.anchors import AnchorGenerator
from rankdet.matching.max_iou import IGNORED, MaxIoUMatcher

HEIGHT, WIDTH, SIZES = 120, 160, (18.0, 64.0)  # of the drawn set's pictures and shapes
STRIDES, SCALE = (8, 16, 32), 2.0  # of the mini detector's anchors
WRONG = (0, 1, 2, 5, 10, 20, 50, 100)  # anchors of background that are scored above all positives
DRAWN = 10  # of them, in the picture


class Scene(NamedTuple):
    """One picture with one object. labels: int64 [A], 1 positive, 0 background, -1 ignored."""

    picture: np.ndarray
    box: tuple[int, int, int, int]
    anchors: Tensor
    labels: Tensor
    wrong: Tensor  # int64: background anchors inside the picture in a random order, the first of which are mistaken


class Quality(NamedTuple):
    """How one set of scores is judged by both."""

    accuracy: float
    ap: float


def scene() -> Scene:
    """The first picture, of those that seeds 0, 1, ... give, that holds exactly one object, not a difficult one."""
    seed, shapes = -1, []
    while len(shapes) != 1 or shapes[0].difficult:
        seed += 1
        picture, shapes = draw_picture(np.random.default_rng(seed), HEIGHT, WIDTH, SIZES)
    sizes = [(-(-HEIGHT // stride), -(-WIDTH // stride)) for stride in STRIDES]
    anchors = AnchorGenerator(STRIDES, SCALE)(sizes, torch.device("cpu"))
    matched = MaxIoUMatcher()(anchors, torch.tensor([shapes[0].box], dtype=torch.float32))
    labels = torch.where(matched >= 0, 1, torch.where(matched == IGNORED, -1, 0))
    inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= WIDTH) & (anchors[:, 3] <= HEIGHT)
    there = ((labels == 0) & inside).nonzero().squeeze(1)
    order = torch.randperm(len(there), generator=torch.Generator().manual_seed(0))
    return Scene(picture, shapes[0].box, anchors, labels, there[order])


def judge(labels: Tensor, scores: Tensor) -> Quality:
    """Accuracy of calling positive what is scored above 0, and AP of the ranking, both without the ignored."""
    counted = labels != -1
    right = (scores[counted] > 0) == (labels[counted] == 1)
    loss = ap_loss(scores, labels.to(torch.int8), step="heaviside", interpolate=False)
    return Quality(right.double().mean().item(), 1 - loss.item())


def scores_with(shown: Scene, num_wrong: int) -> Tensor:
    """Background at -1, positives at 1, and num_wrong anchors of background above them at 2."""
    scores = 2.0 * (shown.labels == 1).double() - 1
    scores[shown.wrong[:num_wrong]] = 2.0
    return scores


def content() -> Content:
    """The figure."""
    shown = scene()
    nothing = judge(shown.labels, -torch.ones(len(shown.labels), dtype=torch.float64))
    found = {number: judge(shown.labels, scores_with(shown, number)) for number in WRONG}
    rows = [("all called background, all scored alike", nothing)]
    rows += [(f"positives found, {number} of background above them", one) for number, one in found.items()]
    num_positive, num_counted = int((shown.labels == 1).sum()), int((shown.labels != -1).sum())
    body = [(name, f"{one.accuracy:.4f}", f"{one.ap:.4f}") for name, one in rows]
    worst = found[WRONG[-1]]
    return Content(
        tabulate(body, ("scores", "accuracy", "AP"), tablefmt="github", disable_numparse=True, colalign=COLUMNS),
        as_csv(("wrong", *Quality._fields), [("all", *nothing), *((number, *one) for number, one in found.items())]),
        {
            "accuracy": f"{nothing.accuracy:.4f} where everything is called background, {worst.accuracy:.4f} where "
            f"{WRONG[-1]} anchors of background are mistaken for the object and scored above it",
            "ap": f"{nothing.ap:.4f} and {worst.ap:.4f} in these two cases; {found[0].ap:.4f} where the object is "
            "found and nothing is mistaken",
        },
        [
            f"Exact: {num_positive} positive anchors of {num_counted} on one drawn picture with one object, by the "
            "mini detector's anchors and matching; scores are made up as the rows say. AP is of the anchors' ranking, "
            "1 - AP-loss with the hard step and without interpolation; equal scores count as errors.",
        ],
        lambda figure: _draw(figure, shown, found),
        (9.6, 4.2),
        "a picture with its anchors, and accuracy and AP against the number of mistakes",
    )


COLUMNS = ("left", "right", "right")


def _draw(figure: Figure, shown: Scene, found: dict[int, Quality]) -> None:
    left, right = figure.subplots(1, 2)
    left.imshow(shown.picture)
    left.set_axis_off()
    left.set_title(f"accuracy {found[DRAWN].accuracy:.3f}, AP {found[DRAWN].ap:.3f}", fontsize=10)
    for anchor in shown.anchors[shown.wrong[:DRAWN]].tolist():
        _box(left, anchor, edgecolor="white", lw=1.2)
    for anchor in shown.anchors[shown.labels == 1].tolist():
        _box(left, anchor, edgecolor="#e69f00", facecolor="#e69f0040", lw=1.2)
    _box(left, shown.box, edgecolor="red", ls="--", lw=2)
    handles = [
        Rectangle((0, 0), 1, 1, fill=False, edgecolor="red", ls="--", label="object"),
        Rectangle((0, 0), 1, 1, facecolor="#e69f0040", edgecolor="#e69f00", label="positive anchors"),
        Rectangle((0, 0), 1, 1, facecolor="#888888", edgecolor="white", label=f"{DRAWN} anchors scored above them"),
    ]
    left.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncol=3, frameon=False, fontsize=8)
    for place, (name, label) in enumerate((("accuracy", "accuracy"), ("ap", "AP"))):
        right.plot(list(found), [getattr(one, name) for one in found.values()], color=COLORS[place], marker="o",
                   label=label)  # fmt: skip
    right.set_xscale("symlog", linthresh=1)
    right.set_xticks(list(found), [str(number) for number in found])
    right.set(xlabel="anchors of background scored above all positives", ylabel="accuracy, AP", ylim=(0, 1.05))
    right.legend(frameon=False)


def _box(axes: Axes, box: tuple[float, ...] | list[float], facecolor: str = "none", **look: object) -> None:
    x1, y1, x2, y2 = (float(value) - 0.5 for value in box)  # imshow's pixels have their centres at whole numbers
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, facecolor=facecolor, **look))
