"""The check of a data set as text and as one JSON object."""

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from rankdet.checking.findings import ERROR, WARNING, Finding

SHOWN = 5  # findings of a kind that a terminal gets to see


def as_text(report: dict[str, Any], shown: int | None = None) -> str:
    """What check() returned, for reading; shown: at most so many findings of each kind (None: all)."""
    splits = report["splits"]
    parts = [f"{report['name']}: {report['root']}"]
    if report["absent"]:
        parts.append(f"There is no split {', '.join(report['absent'])}.")
    parts += [f"{word} is train and val together." for word in report["unions"]]
    if splits:
        parts += [_sizes(splits), _classes(splits)]
        parts += _missing_classes(splits)
    return "\n\n".join([*parts, *_findings(report, shown), verdict(report)]) + "\n"


def verdict(report: dict[str, Any]) -> str:
    """One line: how many errors and warnings."""
    numbers = {severity: sum(each["severity"] == severity for each in report["findings"]) for severity in _SEVERITIES}
    words = [f"{number} {severity}{'s' if number != 1 else ''}" for severity, number in numbers.items()]
    return f"{report['images']} image files decoded in {report['seconds']:.1f} s: {' and '.join(words)}"


_SEVERITIES = (ERROR, WARNING)


def _sizes(splits: dict[str, dict[str, Any]]) -> str:
    rows = []
    for word, split in splits.items():
        counts = [split[key] for key in ("empty", "boxes", "difficult", "crowd")]
        sizes = [_spread(split["boxes_per_image"]), *split["box_sizes"].values()]
        sides = [_spread(split[key]) for key in ("image_width", "image_height")]
        if split["labelled"]:
            rows.append([word, split["images"], *sides, *counts, *sizes])
        else:
            rows.append([f"{word} (no annotations)", split["images"], *sides, *["-"] * len(counts + sizes)])
    headers = ["split", "images", "width", "height", "empty", "boxes", "difficult", "crowd", "boxes an image"]
    headers += ["small", "medium", "large"]
    note = "width, height in pixels and boxes an image: least / median / largest; small < 32 x 32 <= medium < 96 x 96"
    return f"{tabulate(rows, headers, disable_numparse=True, colalign=['left', *['right'] * 11])}\n{note}"


def _classes(splits: dict[str, dict[str, Any]]) -> str:
    splits = {word: split for word, split in splits.items() if split["labelled"]}
    names = dict.fromkeys(name for split in splits.values() for name in split["boxes_of_class"])
    rows = [[name, *(split["boxes_of_class"].get(name, 0) for split in splits.values())] for name in names]
    headers = ["class", *(f"boxes in {word}" for word in splits)]
    return tabulate(rows, headers, disable_numparse=True, colalign=["left", *["right"] * len(splits)])


def _missing_classes(splits: dict[str, dict[str, Any]]) -> list[str]:
    """Classes that a labelled split lacks although another has them."""
    lines = []
    for word, split in splits.items():
        if split["labelled"]:
            others = [other["boxes_of_class"] for other in splits.values()]
            missing = [name for name, number in split["boxes_of_class"].items() if not number]
            missing = [name for name in missing if any(other.get(name) for other in others)]
            lines += [f"{word} has no box of: {', '.join(missing)}"] if missing else []
    return lines


def _findings(report: dict[str, Any], shown: int | None) -> list[str]:
    """A paragraph for each kind."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for finding in report["findings"]:
        groups.setdefault((finding["severity"], finding["kind"]), []).append(finding)
    paragraphs = []
    for (severity, kind), group in groups.items():
        lines = [f"{severity}: {kind} ({len(group)})", *(f"  {finding['text']}" for finding in group[:shown])]
        if shown is not None and len(group) > shown:
            lines.append(f"  ... and {len(group) - shown} more, in report.txt")
        paragraphs.append("\n".join(lines))
    return paragraphs


def _spread(values: Sequence[float] | None) -> str:
    return " / ".join(f"{value:.6g}" for value in values) if values else "-"


def as_json(finding: Finding) -> dict[str, Any]:
    """A finding as report.json has it."""
    return {"severity": finding.severity, **finding._asdict()}
