"""The measurements of loading as a table with the verdict, and as CSV."""

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from rankdet.files import as_csv
from rankdet.profiling.loading import Pass, advantage, speeds

GOAL = 3.0  # times the speed of torchvision's fastest form


def loading_markdown(where: str, what: str, passes: Sequence[Pass]) -> str:
    """where: machine and versions; what: the images. Speeds by pipeline, then the ratio to the fastest other one."""
    faster = advantage(passes)
    body = [
        [
            speed.pipeline,
            f"{speed.decode_ms:.2f}",
            f"{speed.augment_ms:.2f}",
            f"{speed.images_per_second:.1f}",
            f"{faster[speed.pipeline]:.2f}" if speed.pipeline in faster else "1",
        ]
        for speed in speeds(passes)
    ]
    headers = ["pipeline", "decode, ms", "augment, ms", "images/s per core", "times slower"]
    table = tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=["left", *["right"] * 4])
    number = len({each.number for each in passes})
    text = f"Processor time: medians of {number} passes over {what}, in turns image by image, one thread, files cached."
    return f"# How fast images load\n\n{where}\n{text}\n\n{table}\n\n{verdict(passes)}\n"


def verdict(passes: Sequence[Pass]) -> str:
    """The ratio to torchvision's fastest form, beside the goal, in one line."""
    name, ratio = min(advantage(passes).items(), key=lambda item: item[1])
    met = "met" if ratio >= GOAL else "not met"
    return f"{ratio:.2f} times as fast as {name}; goal: {GOAL:g} times as fast: {met}"


def loading_csv(passes: Sequence[Pass]) -> str:
    """A line for each pipeline and pass; seconds are of all images, unrounded."""
    return as_csv([*Pass._fields, "images_per_second"], ([*each, each.images_per_second] for each in passes))


def loading_json(about: dict[str, Any], passes: Sequence[Pass]) -> dict[str, Any]:
    """Everything, for write_json."""
    return {
        "about": about,
        "speeds": [speed._asdict() for speed in speeds(passes)],
        "times_slower": advantage(passes),
        "goal": GOAL,
    }
