"""Every image file of a data set decoded once, on all cores."""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from rankdet.data.image import read_image
from rankdet.errors import UserError

ORIENTATION = 0x0112  # EXIF's tag; 1: stored as shown
CHUNK = 8  # images that a worker takes at a time


class Decoded(NamedTuple):
    """What reading one image file to its last byte has shown."""

    path: Path
    problem: str | None  # why it cannot be decoded, or has another size than annotated
    file_hash: str  # of its bytes; empty where they could not be read
    pixel_hash: str  # of its RGB pixels; empty where it could not be decoded
    orientation: int  # EXIF's, 1 ... 8; 1 where there is none


def decode_all(
    images: Iterable[tuple[Path, tuple[int, int]]], jobs: int, show: Callable[[], object] = lambda: None
) -> list[Decoded]:
    """images: files with (height, width) as annotated. show is called after each. jobs: processes, at least 1.

    Same order as images. UserError where a process was killed.
    """
    items, found = list(images), []
    if jobs == 1 or len(items) <= CHUNK:
        for item in items:
            found.append(decode(item))
            show()
        return found
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"))  # importing everything anew takes seconds
    try:
        for result in pool.map(decode, items, chunksize=CHUNK):
            found.append(result)
            show()
    except BrokenProcessPool as error:
        near = items[len(found)][0]
        raise UserError(f"a process was killed while decoding, at {near} or soon after: try fewer, --jobs 1") from error
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def decode(item: tuple[Path, tuple[int, int]]) -> Decoded:
    """One image file, by the reader that training uses."""
    path, size = item
    try:
        file_hash = _digest(path.read_bytes())
    except OSError as error:
        return Decoded(path, f"{path}: cannot be read ({error.strerror}); mend its rights or its disk", "", "", 1)
    try:
        pixels = read_image(path, size)
        with Image.open(path) as file:
            orientation = file.getexif().get(ORIENTATION, 1)
    except UserError as error:
        return Decoded(path, str(error), file_hash, "", 1)
    return Decoded(path, None, file_hash, f"{pixels.shape} {_digest(pixels.tobytes())}", orientation)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
