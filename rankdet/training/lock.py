"""One process trains a run: an advisory lock that the system lets go when its holder dies, however it dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUSY = 75  # exit code (EX_TEMPFAIL): another process is training this run


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Holds directory/.lock; SystemExit(BUSY) with one line where another process holds it."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{directory}: another process is training this run", flush=True)
            raise SystemExit(BUSY) from None
        yield
