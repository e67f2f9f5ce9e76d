"""How far a queue has come: a bar in a terminal, lines elsewhere."""

import time
from typing import TextIO

from tqdm import tqdm


class Progress:
    """A bar in a terminal, a line per event elsewhere; both with the time left, from the pace so far."""

    def __init__(self, total: int, left: int, workers: int, stream: TextIO, work: str) -> None:
        """total, left: records; work: what they are called, such as "runs to train"."""
        self.total, self.done, self.workers, self.stream = left, 0, workers, stream
        self.start = time.monotonic()
        if left:
            self._line(f"{left} of {total} {work}, {workers} at a time")
        show_bar = left > 0 and stream.isatty()
        self.bar = (
            tqdm(total=left, unit=work.partition("s ")[0], file=stream, dynamic_ncols=True, smoothing=0)
            if show_bar
            else None
        )

    def tick(self, running: list[str]) -> None:
        """Shows the names of what runs at the moment; lines do without."""
        if self.bar is not None:
            self.bar.set_postfix_str(", ".join(running), refresh=False)
            self.bar.refresh()

    def note(self, text: str) -> None:
        """A line, above the bar."""
        self._line(text)

    def ended(self, text: str, num_records: int = 1) -> None:
        """So many more records are there, or will not come; text says which."""
        self.done += num_records
        pace = (time.monotonic() - self.start) / self.done
        left = self.total - self.done
        self._line(f"[{self.done}/{self.total}] {text}" + (f", about {duration(pace * left)} left" if left else ""))
        if self.bar is not None:
            self.bar.update(num_records)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self.bar is not None:
            self.bar.close()

    def _line(self, text: str) -> None:
        if getattr(self, "bar", None) is not None:
            tqdm.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)


def duration(seconds: float) -> str:
    """45 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
