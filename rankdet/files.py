"""Files written whole or not at all."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, in the same folder; what is there at the end takes path's place in one step.

    The old file stays until the new one is on the disk, also where the writing fails or the power goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def relative(path: Path, root: Path) -> Path:
    """path as seen from root where it lies below it, else as it is."""
    return path.relative_to(root) if path.is_relative_to(root) else path


def sweep(folder: Path) -> None:
    """Removes what writers that were killed left in a folder. Nobody else may be writing there."""
    for path in folder.glob(".*.partial*"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces path by text (UTF-8) in one step."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A line for the header and for each row; None is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401
    """content as indented JSON with a final newline. ValueError for NaN, which JSON does not have."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
