"""A whole data set checked: read, decoded, judged and drawn."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from rankdet.checking.findings import ERROR, TWICE, Finding, find
from rankdet.checking.images import decode_all
from rankdet.checking.pictures import COLUMNS, ROWS, sample, save_sheet
from rankdet.checking.plots import save_classes, save_sizes
from rankdet.checking.report import as_json, as_text
from rankdet.checking.splits import Reading, read_all
from rankdet.checking.statistics import split_statistics
from rankdet.data.cleaning import DIRT
from rankdet.data.records import DetectionSet, Record, Source
from rankdet.files import write_json, write_text


class Survey(NamedTuple):
    """A data set read, decoded and judged."""

    reading: Reading
    findings: list[Finding]
    report: dict[str, Any]  # what report.json holds


def survey(source: Source, name: str, root: str, jobs: int, say: Callable[[str], None]) -> Survey:
    """Looks at every split. name, root: for the report. jobs: processes that decode. say: gets a line for each split.

    UserError if there is no split at all; whatever else is wrong is a finding.
    """
    start = time.perf_counter()
    reading = read_all(source, lambda word: say(f"reading {word}"))
    sizes = {record.path: (record.height, record.width) for split in reading.splits for record in split.records}
    with tqdm(total=len(sizes), unit="image", desc="decoding", disable=None) as bar:
        decoded = decode_all(sizes.items(), jobs, bar.update)
    findings = find(reading, decoded)
    report = {
        "name": name,
        "root": root,
        "absent": reading.absent,
        "unions": reading.unions,
        "splits": {split.split: split_statistics(split) for split in reading.splits},
        "images": len(decoded),
        "seconds": round(time.perf_counter() - start, 2),
        "findings": [as_json(finding) for finding in findings],
    }
    return Survey(reading, findings, report)


def save(found: Survey, output: Path) -> None:
    """Writes report.json, report.txt and the pictures: examples.png, doubtful.png (images with mended or duplicate
    boxes), classes.png and sizes.png. One that there is nothing for is removed, if an earlier check left it."""
    for old in ("examples.png", "doubtful.png", "classes.png", "sizes.png"):
        (output / old).unlink(missing_ok=True)
    splits = [split for split in found.reading.splits if split.records]
    save_sheet(sample(splits), output / "examples.png")
    save_sheet(_doubtful(found), output / "doubtful.png")
    labelled = [split for split in splits if split.labelled]
    if labelled:
        name, statistics = found.report["name"], found.report["splits"]
        save_classes(name, {split.split: statistics[split.split] for split in labelled}, output / "classes.png")
        save_sizes(name, labelled, output / "sizes.png")
    write_text(output / "report.txt", as_text(found.report))
    write_json(output / "report.json", found.report)


def has_errors(report: dict[str, Any]) -> bool:
    """Whether anything is worse than a warning."""
    return any(finding["severity"] == ERROR for finding in report["findings"])


def _doubtful(found: Survey) -> list[tuple[DetectionSet, Record]]:
    """Images whose boxes are worth a look, the worst first."""
    homes = {str(record.path): (split, record) for split in found.reading.splits for record in split.records}
    about_boxes = [finding for finding in found.findings if finding.kind == TWICE or finding.kind in DIRT]
    worst = sorted(about_boxes, key=lambda finding: -finding.number)
    files = dict.fromkeys(finding.file for finding in worst if finding.file in homes)
    return [homes[file] for file in list(files)[: COLUMNS * ROWS]]
