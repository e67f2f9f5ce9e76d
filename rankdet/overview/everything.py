"""Table after table and figure after figure, each by its own command, and between them how far all of it is."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rankdet.overview.state import FAILED, Standing, standing
from rankdet.overview.status import counts, left, told
from rankdet.overview.targets import Target, distinct
from rankdet.results.queue import Interrupted, ending_signals


def reproduce_all(targets: Sequence[Target], command: Callable[[Target], list[str]], jobs: int, root: Path) -> int:
    """Runs every target's command in turn; a failed one does not stop the others. What is said goes to stderr.

    Returns 0, or 1 if a command failed; what did is listed at the end. The command under way is handed the
    signals that end us; Interrupted is raised when it has ended."""
    codes = []
    for place, target in enumerate(targets, 1):
        standings = look(targets, root)
        say(f"[{place}/{len(targets)}] {target.title}. In all: {counts(standings)}{left(standings, root, jobs)}")
        codes.append(run(command(target), root))
    standings = look(targets, root)
    say(f"In all: {counts(standings)}")
    failed = [(target, code) for target, code in zip(targets, codes, strict=True) if code]
    for target, code in failed:
        say(f"  {target.name}: exit code {code}; the lines above say why, the same command tries again")
    for each in standings:
        if each.state == FAILED:
            say("\n".join(told(each, root)))
    return 1 if failed else 0


def look(targets: Sequence[Target], root: Path) -> list[Standing]:
    """Every run's state, once."""
    return [standing(run, root) for run in distinct(targets)]


def run(line: Sequence[str], root: Path) -> int:
    """A command's exit code, 128 + n where signal n ended it."""
    # In a session of its own, so that Ctrl-C reaches it once, through us: twice would leave its trainings no time.
    child = subprocess.Popen(line, cwd=root, start_new_session=True)
    with _handed_on(child) as signals:
        code = child.wait()
    if signals:
        raise Interrupted(signals[0])
    return code if code >= 0 else 128 - code


def say(text: str) -> None:
    """Between the commands' own lines."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _handed_on(child: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    signals: list[int] = []

    def hand_on(signum: int, _frame: FrameType | None) -> None:
        signals.append(signum)
        child.send_signal(signum)

    before = {signum: signal.signal(signum, hand_on) for signum in ending_signals()}
    try:
        yield signals
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
