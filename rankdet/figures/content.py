"""What any figure says: its table, its points, how it is drawn, and our words beside the paper's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from matplotlib.figure import Figure

from rankdet.results.records import Record
from rankdet.results.runs import Run


@dataclass(frozen=True)
class Content:
    """One figure, ready to be written down.

    measured: series key -> our counterpart of what the paper says of it; rule: sentences that say how the numbers came
    about; csv: the points; draw: fills a figure of `size` inches."""

    table: str
    csv: str
    measured: dict[str, str]
    rules: Sequence[str]
    draw: Callable[[Figure], None]
    size: tuple[float, float]
    alt: str
    runs: Sequence[Run]  # one or more of those behind the points
    records: Sequence[Record]


COLORS = {0: "#0072b2", 1: "#d55e00", 2: "#009e73", 3: "#cc79a7"}  # Okabe and Ito's, by place of the series
PAPER = "#777777"


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """0.50 ± 0.02, the sample standard deviation; without it for a single value."""
    text = f"{fmean(values):.{digits}f}"
    return f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 else text


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation, 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0
