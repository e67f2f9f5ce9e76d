"""Where a step's time goes, without making the GPU wait."""

import time
from collections import defaultdict

import torch

MOST = 1000  # laps held as marks: some 200 steps


class Stopwatch:
    """Splits each step into named laps and adds them up until they are read.

    On a GPU the marks are events on its stream, read in totals(), so that no lap waits for the device; where nobody
    asks for them, as in all processes but the first, those of steps long done are read meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.laps: list[tuple[str, float | torch.cuda.Event, float | torch.cuda.Event]] = []
        self.seconds: dict[str, float] = defaultdict(float)  # of laps that are no longer held
        self.start()

    def mark(self) -> float | torch.cuda.Event:
        """Now, on the device's clock."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def start(self) -> None:
        """Begins the next lap here; what lies between the last lap and now is counted nowhere."""
        self.last = self.mark()

    def lap(self, name: str) -> None:
        """Ends a lap."""
        now = self.mark()
        self.laps.append((name, self.last, now))
        self.last = now
        if len(self.laps) > MOST:
            self._add_up(MOST // 2)

    def totals(self) -> dict[str, float]:
        """Seconds per lap name since the last call."""
        if self.cuda:
            torch.cuda.synchronize()
        self._add_up(len(self.laps))
        seconds, self.seconds = self.seconds, defaultdict(float)
        return dict(seconds)

    def _add_up(self, count: int) -> None:
        """The oldest laps; waits for the end of the last of them."""
        if self.cuda and count:
            self.laps[count - 1][2].synchronize()
        for name, begin, end in self.laps[:count]:
            self.seconds[name] += begin.elapsed_time(end) / 1000 if self.cuda else end - begin
        del self.laps[:count]
