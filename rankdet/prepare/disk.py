"""Room on a disk, asked for before it is needed, and one clear line where it runs out all the same."""

import errno
import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankdet.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)


def readable(num_bytes: float) -> str:
    """1234567 -> "1.2 MB"; thousands, as disks and servers count."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} bytes" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def require_room(folder: Path, num_bytes: int, what: str) -> None:
    """UserError where the disk of folder, which is there, has less than num_bytes left for what."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise UserError(
            f"{folder}: {readable(free)} free, but {what} needs {readable(num_bytes)}: make room, run again"
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError while something is written to path into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise UserError(f"{path}: the disk is full: make room, run again to go on") from error
        raise UserError(f"{path}: cannot be written ({error.strerror or error}): correct that, run again") from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Makes folder and holds it against a second process that would write there; UserError where one does."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    with file:
        try:
            with writing(folder):
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the system when the process dies
        except UserError as error:
            if isinstance(error.__cause__, BlockingIOError | PermissionError):
                raise UserError(f"{folder}: another process is preparing data there; wait for it") from error
            raise
        yield
