"""Numbers that an evaluation server returned: stored beside the detections they are of, and taken into tables."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from rankdet.errors import UserError
from rankdet.files import write_json
from rankdet.results.reading import check_keys, read_json

Content = dict[str, Any]
KEYS = ("server", "date", "detections_hash", "metrics")


def returned_path(detections: Path) -> Path:
    """Where the numbers for a file of detections lie."""
    return detections.with_suffix(".server.json")


def detections_hash(detections: Path) -> str:
    """16 hex digits, by which numbers of an older submission are noticed; UserError where the file is not there."""
    if not detections.is_file():
        raise UserError(f"{detections}: not there, so nothing can have been submitted; test the run first")
    return sha256(detections.read_bytes()).hexdigest()[:16]


def store(detections: Path, server: str, metrics: Mapping[str, float], date: str) -> Content:
    """Writes the numbers, fractions by metric, beside those returned before for the same detections; returns all."""
    digest, path = detections_hash(detections), returned_path(detections)
    before = read_returned(path) if path.is_file() else None
    kept = before["metrics"] if before and before["detections_hash"] == digest else {}
    content = {"server": server, "date": date, "detections_hash": digest, "metrics": {**kept, **metrics}}
    write_json(path, content)
    return content


def read_returned(path: Path) -> Content:
    """UserError naming the file where it is no JSON or lacks a field."""
    return dict(check_keys(read_json(path), str(path), KEYS))


def with_returned(content: Content, detections: Path) -> Content:
    """The record of a test with the server's numbers among its metrics, if there are any.

    content["returned"] then says when they came; numbers for older detections are not taken, and it says so.
    """
    path = returned_path(detections)
    if not path.is_file():
        return content
    found = read_returned(path)
    current = found["detections_hash"] == detections_hash(detections)
    note = {"server": found["server"], "date": found["date"], "current": current}
    return content | {"metrics": content["metrics"] | (found["metrics"] if current else {}), "returned": note}
