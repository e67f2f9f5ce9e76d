"""Figures of a training step's memory or time against the batch size, by loss: what the benchmark measured."""

import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from subprocess import run
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.benchmark.contestants import NONE
from rankdet.benchmark.sweeps import BY_LOSS
from rankdet.errors import UserError
from rankdet.figures.content import COLORS, PAPER, Content, Edition
from rankdet.figures.manifest import FigureManifest
from rankdet.figures.specs import Benchmark
from rankdet.figures.work import Work
from rankdet.files import as_csv
from rankdet.profiling.report import MIB
from rankdet.results.launch import as_typed

CSV = "benchmark.csv"
Peaks = dict[int, float | None]  # batch size -> MiB without a loss
LOOKS = {NONE: PAPER, "ce_ohem": COLORS[0], "focal": COLORS[1], "auc": COLORS[2], "ap": COLORS[3]}


class Step(NamedTuple):
    """A training step under one loss at one batch size. peak: MiB, None where memory was not measured."""

    loss: str
    images: int
    size: int
    seconds: float
    loss_seconds: float
    peak: float | None


@dataclass(frozen=True)
class BenchmarkFigure:
    """A figure of the kind benchmark, from runs/benchmark/ or what is committed in experiments/benchmark/."""

    manifest: FigureManifest
    root: Path

    @property
    def edition(self) -> Edition:
        """There is one."""
        return Edition(self.manifest.name)

    def make(self, work: Work) -> None:
        """Runs the benchmark, unless this checkout has."""
        if (self.root / "runs" / "benchmark" / CSV).is_file():
            return
        device = ["--device", "cuda"] if work.hardware.gpus else []
        line = [sys.executable, str(Path("scripts") / "benchmark.py"), *device]
        work.do(as_typed(line), lambda: self._measure(line))

    def _measure(self, line: Sequence[str]) -> None:
        code = run(line, cwd=self.root, check=False).returncode
        if code:
            raise UserError(f"{as_typed(line)}: ended with exit code {code}; what it says is above")

    def publish(self) -> bool:
        """Nothing is copied: a benchmark is committed by whoever had the machine to themselves."""
        return (self._folder(published=True) / CSV).is_file()

    def content(self, published: bool) -> Content:
        """From the benchmark's CSV."""
        folder = self._folder(published)
        return batch_content(self.manifest, read_steps(folder / CSV), str(folder.relative_to(self.root)))

    def _folder(self, published: bool) -> Path:
        return self.root / ("experiments" if published else "runs") / "benchmark"


def read_steps(path: Path) -> list[Step]:
    """The benchmark's measurements by loss. UserError naming the file where a column is missing or not a number."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("sweep") == BY_LOSS]
    try:
        return [
            Step(
                row["loss"], int(row["images"]), int(row["size"]), float(row["seconds"]), float(row["loss_seconds"]),
                float(row["peak_bytes"]) / MIB if row["peak_bytes"] else None,
            )
            for row in rows
        ]  # fmt: skip
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: is not what make benchmark writes ({error!r}); measure again") from error


def batch_content(manifest: FigureManifest, steps: Sequence[Step], folder: str) -> Content:
    """The figure of what is there of its series, which are losses of the benchmark."""
    assert isinstance(manifest.spec, Benchmark)
    for key in manifest.series:
        if key not in LOOKS:
            raise UserError(f"{manifest.path}: series.{key}: is no loss of the benchmark, which has {', '.join(LOOKS)}")
    curves = {key: sorted(step for step in steps if step.loss == key) for key in manifest.series}
    memory = manifest.spec.quantity == "memory"
    sizes = ", ".join(sorted({f"{step.size} x {step.size}" for step in steps})) or "none"
    panels = MEMORY if memory else TIME
    none = {step.images: step.peak for step in steps if step.loss == NONE}
    return Content(
        _table(manifest, curves, none, memory),
        _csv(curves),
        {key: (_memory_words if memory else _time_words)(own, none) for key, own in curves.items()},
        [
            f"Measured by make benchmark; {folder}/benchmark.md says how and on what machine. Images of {sizes} "
            "pixels; weights and scores are those of a training's start, where ranking losses cost most.",
            *(_memory_error(curves, none) if memory else _time_error(curves)),
        ],
        lambda figure: _draw(figure, manifest, curves, none, panels),
        (9.6, 4.4),
        f"{manifest.spec.quantity} of a training step against the batch size, a curve a loss",
    )


def _more(step: Step, none: Peaks) -> float | None:
    """MiB beyond those of a step without a loss."""
    base = none.get(step.images)
    return None if step.peak is None or base is None else step.peak - base


def _memory_words(steps: Sequence[Step], none: Peaks) -> str:
    """How memory grows from the smallest batch to the largest, and what of it is the loss's."""
    if not steps or steps[-1].peak is None or steps[0].peak is None:
        return "not measured"
    first, last = steps[0], steps[-1]
    text = f"{first.peak:,.0f} MiB with {first.images} to {last.peak:,.0f} with {last.images} images"
    slopes = [(b.peak - a.peak) / (b.images - a.images) for a, b in pairwise(steps)]
    if slopes:
        text += f", {min(slopes):,.0f} to {max(slopes):,.0f} more for each further image"
    base, more = none.get(last.images), _more(last, none)
    if base and more is not None and last.loss != NONE:
        text += f"; {more:+,.1f} MiB, {100 * more / base:+.1f} %, on no loss with {last.images}"
    return text


def _time_words(steps: Sequence[Step], none: Peaks) -> str:
    """How the loss's time grows from the smallest batch to the largest, and its share of the step."""
    if not steps:
        return "not measured"
    first, last = steps[0], steps[-1]
    return (
        f"{1000 * first.loss_seconds:.1f} ms with {first.images} to {1000 * last.loss_seconds:.1f} ms with "
        f"{last.images} images, {last.loss_seconds / first.loss_seconds:.1f} times; "
        f"{100 * last.loss_seconds / last.seconds:.1f} % of the step with {last.images}"
    )


def _memory_error(curves: dict[str, list[Step]], none: Peaks) -> list[str]:
    """What the figure itself tells of the measurement's error: a loss takes no less than none."""
    more = [value for steps in curves.values() for step in steps if (value := _more(step, none)) is not None]
    error = -min(more, default=0.0)
    if error <= 0:
        return []
    return [
        f"No loss takes less than none, and {error:.1f} MiB less were measured: differences of that size, in the right "
        "panel too, are the measurement's error."
    ]


def _time_error(curves: dict[str, list[Step]]) -> list[str]:
    """What the figure itself tells of the measurement's error: the rest of a step is the same whatever the loss."""
    rest: dict[int, list[float]] = {}
    for step in chain.from_iterable(curves.values()):
        rest.setdefault(step.images, []).append(step.seconds - step.loss_seconds)
    wide = max((max(each) / min(each) for each in rest.values()), default=1.0)
    if wide <= 1:
        return []
    return [
        "The rest of a step is the same whatever the loss, and its slowest measurement took up to "
        f"{100 * (wide - 1):.0f} % longer than its fastest: differences of that size in the right panel are the "
        "machine's."
    ]


def _table(manifest: FigureManifest, curves: dict[str, list[Step]], none: Peaks, memory: bool) -> str:
    body = []
    for key, steps in curves.items():
        for step in steps:
            if memory:
                more = _more(step, none)
                cells = ["-" if step.peak is None else f"{step.peak:,.0f}", "-" if more is None else f"{more:+,.1f}"]
            else:
                cells = [f"{1000 * step.loss_seconds:.1f}", f"{step.seconds:.3g}"]
            body.append([manifest.series[key].label, step.images, *cells])
        if not steps:
            body.append([manifest.series[key].label, "not measured"])
    headers = ["series", "images", *(("MiB", "more than without a loss") if memory else ("ms of the loss", "s a step"))]
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 3))


def _csv(curves: dict[str, list[Step]]) -> str:
    return as_csv(Step._fields, [step for steps in curves.values() for step in steps])


Value = Callable[[Step, Peaks], float | None]
MEMORY: dict[str, Value] = {
    "peak memory of training (MiB)": lambda step, none: step.peak,
    "MiB more than without a loss": _more,
}
TIME: dict[str, Value] = {
    "seconds of the loss": lambda step, none: step.loss_seconds,
    "seconds of a step": lambda step, none: step.seconds,
}


def _draw(
    figure: Figure,
    manifest: FigureManifest,
    curves: dict[str, list[Step]],
    none: Peaks,
    panels: dict[str, Value],
) -> None:
    drawn: list[Axes] = list(figure.subplots(1, len(panels)))
    for axes, (label, value) in zip(drawn, panels.items(), strict=True):
        for place, (key, steps) in enumerate(curves.items()):
            points = [(step.images, y) for step in steps if (y := value(step, none)) is not None]
            x, y = zip(*points, strict=True) if points else ((), ())
            size = 3 + 2 * (len(curves) - place)  # the last on top, and none hidden where they coincide
            axes.plot(x, y, color=LOOKS[key], marker="o", ms=size, lw=1.8, label=manifest.series[key].label)
        axes.set(xlabel="images in the batch", ylabel=label)
        axes.set_xticks(sorted({step.images for steps in curves.values() for step in steps}))
        axes.set_xlim(left=0)
        if value is not _more:
            heights = [y for line in axes.lines for y in line.get_ydata()]
            axes.set_ylim(0, 1.08 * max(heights, default=1))
    figure.legend(*drawn[0].get_legend_handles_labels(), loc="outside lower center", ncol=5, frameon=False)
