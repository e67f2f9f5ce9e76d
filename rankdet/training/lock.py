"""One process trains a run: an advisory lock that the system lets go when its holder dies, however it dies."""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankdet.errors import UserError
from rankdet.training.codes import BUSY

FLOCK = "hhqqi"  # Linux's struct flock: type, whence, start, length, process


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Holds directory/.lock, a run's or a search's; SystemExit(BUSY) with one line where another process holds it.

    UserError where the directory cannot be written. lockf, not flock: a forked data loader would inherit the latter and
    hold it for seconds after its parent was killed.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("w")
    except OSError as error:
        hint = "set runtime.runs, of a search --output, to another folder"
        raise UserError(f"{directory}: cannot be written ({error.strerror}); {hint}") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            print(f"{directory}: another process is training it", flush=True)
            raise SystemExit(BUSY) from None
        yield


def is_taken(directory: Path) -> bool:
    """Whether another process holds directory/.lock at this moment. Asking takes nothing, so it turns nobody away."""
    asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with (directory / ".lock").open("rb") as file:
            answer = fcntl.fcntl(file, fcntl.F_GETLK, asked)
    except OSError:
        return False
    return struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK
