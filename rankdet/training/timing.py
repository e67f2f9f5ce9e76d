"""Where a step's time goes, without making the GPU wait."""

import time
from collections import defaultdict

import torch


class Stopwatch:
    """Splits each step into named laps and adds them up until they are read.

    On a GPU the marks are events on its stream, read only in totals(), so that no lap waits for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.laps: list[tuple[str, float | torch.cuda.Event, float | torch.cuda.Event]] = []
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

    def totals(self) -> dict[str, float]:
        """Seconds per lap name since the last call."""
        if self.cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = defaultdict(float)
        for name, begin, end in self.laps:
            seconds[name] += begin.elapsed_time(end) / 1000 if self.cuda else end - begin
        self.laps.clear()
        return dict(seconds)
