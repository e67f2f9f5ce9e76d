"""Which classes and which sizes a data set has, as pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rankdet.checking.statistics import SIZES, all_boxes
from rankdet.data.records import DetectionSet
from rankdet.files import replacing

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
SIZE_BINS = 40
COLUMN = 40  # classes at most in one column of bars
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def save_classes(name: str, statistics: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Boxes of each class as bars, a colour for each split; the most frequent class of all splits first."""
    classes = list(next(iter(statistics.values()))["boxes_of_class"])
    counts = np.array([[split["boxes_of_class"][each] for each in classes] for split in statistics.values()])
    order = np.argsort(-counts.sum(axis=0), kind="stable")
    columns = -(-len(classes) // COLUMN)
    rows = -(-len(classes) // columns)
    height = 1.6 + (0.14 + 0.1 * len(statistics)) * rows
    figure, axes = plt.subplots(1, columns, figsize=(2 + 5 * columns, height), sharex=True, squeeze=False)
    for axis, part in zip(axes[0], np.array_split(order, columns), strict=True):
        _bars(axis, [classes[index] for index in part], dict(zip(statistics, counts[:, part], strict=True)))
        axis.set_ylim(rows - 0.5, -0.5)
        axis.set_xlim(0, 1.3 * max(1, counts.max()))
    totals = [f"{split}: {row.sum()} boxes" for split, row in zip(statistics, counts, strict=True)]
    figure.suptitle(f"{name}: boxes of each class", y=1 - 0.1 / height, va="top")
    figure.legend(
        axes[0][0].containers,
        totals,
        loc="upper center",
        ncols=4,
        frameon=False,
        bbox_to_anchor=(0.5, 1 - 0.35 / height),
    )
    _save(figure, path, top=1 - 0.65 / height)


def _bars(axis: plt.Axes, names: list[str], counts: Mapping[str, np.ndarray]) -> None:
    """Names from the top, and a bar for each split beside each."""
    places, height = np.arange(len(names)), 0.8 / len(counts)
    for number, own in enumerate(counts.values()):
        y = places + (number - (len(counts) - 1) / 2) * height
        axis.barh(y, own, height, color=COLOURS[number % len(COLOURS)])
    axis.set_yticks(places, names)
    axis.set_xscale("symlog", linthresh=1)
    axis.xaxis.set_major_formatter(PLAIN)
    axis.set_xlabel("boxes (logarithmic)")


def save_sizes(name: str, splits: Sequence[DetectionSet], path: Path) -> None:
    """Histograms of the boxes' size (the root of the area), their aspect ratio and their number in an image."""
    boxes = {split.split: all_boxes(split) for split in splits}
    sides = {word: each[:, 2:] - each[:, :2] for word, each in boxes.items()}
    figure, (size, aspect, count) = plt.subplots(1, 3, figsize=(15, 4.2))
    _histogram(size, {word: np.sqrt(each.prod(axis=1)) for word, each in sides.items()})
    for limit in list(SIZES.values())[1:]:
        size.axvline(limit**0.5, color="black", ls=":", lw=1)
    size.set_xlabel("root of the area, pixels; dotted: COCO's small | medium | large")
    _histogram(aspect, {word: each[:, 0] / each[:, 1] for word, each in sides.items()})
    aspect.axvline(1, color="black", ls=":", lw=1)
    aspect.set_xlabel("width / height")
    most = max((len(record.boxes) for split in splits for record in split.records), default=0)
    bins = np.arange(0, most + 2, max(1, -(-(most + 1) // SIZE_BINS))) - 0.5
    bins = np.append(bins, bins[-1] + (bins[1] - bins[0] if len(bins) > 1 else 1))
    for number, split in enumerate(splits):
        numbers = [len(record.boxes) for record in split.records]
        _outline(count, numbers, bins, number, split.split)
    count.set_xlabel("boxes in an image")
    size.set_ylabel("% of the split's boxes")
    count.set_ylabel("% of the split's images")
    size.legend()
    figure.suptitle(f"{name}: boxes")
    _save(figure, path)


def _histogram(axis: plt.Axes, values: Mapping[str, np.ndarray]) -> None:
    """On a logarithmic axis, bins shared by all splits."""
    every = np.concatenate(list(values.values())) if values else np.zeros(0)
    low, high = (every.min(), every.max()) if len(every) else (1.0, 10.0)
    bins = np.geomspace(low / 1.02, high * 1.02, SIZE_BINS)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(PLAIN)
    axis.xaxis.set_minor_formatter(NullFormatter())
    for number, (word, own) in enumerate(values.items()):
        _outline(axis, own, bins, number, word)


def _outline(axis: plt.Axes, values: "Sequence[float] | np.ndarray", bins: np.ndarray, number: int, word: str) -> None:
    weights = np.full(len(values), 100 / max(1, len(values)))
    colour = COLOURS[number % len(COLOURS)]
    axis.hist(values, bins, weights=weights, histtype="stepfilled", color=colour, alpha=0.25)
    axis.hist(values, bins, weights=weights, histtype="step", color=colour, lw=1.5, label=word)


def _save(figure: plt.Figure, path: Path, top: float = 1.0) -> None:
    figure.tight_layout(rect=(0, 0, 1, top))
    with replacing(path) as partial:
        figure.savefig(partial, dpi=100, metadata={"Software": None})
    plt.close(figure)
