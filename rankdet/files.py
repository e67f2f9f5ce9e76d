"""Files written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Replaces path by text in one step; the old file stays until the new one is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401
    """content as indented JSON with a final newline. ValueError for NaN, which JSON does not have."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
