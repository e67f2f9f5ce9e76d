"""What any figure says: its table, its points, how it is drawn, and our words beside the paper's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Protocol

from matplotlib.figure import Figure

from rankdet.figures.work import Work
from rankdet.results.records import Record
from rankdet.results.runs import Run


@dataclass(frozen=True)
class Edition:
    """Which edition of a figure: under one protocol on one data set, or None and None where neither has a part in it.

    stem: of its files' names."""

    stem: str
    protocol: str | None = None
    data: str | None = None


@dataclass(frozen=True)
class Content:
    """One figure, ready to be written down.

    measured: series key -> our counterpart of what the paper says of it; rules: sentences that say how the numbers came
    about; csv: the points; draw: fills a figure of `size` inches; settings: sentences on the tuning; tested: whether
    the points come from the split that the records report on; images: whether the plot consists of them, so that a PNG
    of fewer colours is all that is written."""

    table: str
    csv: str
    measured: dict[str, str]
    rules: Sequence[str]
    draw: Callable[[Figure], None]
    size: tuple[float, float]
    alt: str
    runs: Sequence[Run] = ()  # one or more of those behind the points
    records: Sequence[Record] = ()
    settings: Sequence[str] = ()
    tested: bool = False
    images: bool = False


class Reproduction(Protocol):
    """A figure of any kind, under one protocol on one data set."""

    @property
    def edition(self) -> Edition:
        """Which one it is."""

    def make(self, work: Work) -> None:
        """Trains or measures what is missing; under a dry run it says what that would be."""

    def publish(self) -> bool:
        """Copies what is finished to experiments/; whether the figure can then be drawn from there."""

    def content(self, published: bool) -> Content:
        """The figure as far as it is finished, here or as published."""


COLORS = {0: "#0072b2", 1: "#d55e00", 2: "#009e73", 3: "#cc79a7"}  # Okabe and Ito's, by place of the series
PAPER = "#777777"


def over_seeds(data: str) -> str:
    """The sentence on what stands behind mean_sd."""
    return f"Ours: mean ± sample standard deviation over n seeds, on {data}."


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """0.50 ± 0.02, the sample standard deviation; without it for a single value."""
    text = f"{fmean(values):.{digits}f}"
    return f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 else text


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation, 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0
