"""What a figure may have done for it: trainings through the queue, and work that needs none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rankdet.results.launch import Hardware, check_hardware, run_all, shown
from rankdet.results.queue import Failure
from rankdet.results.runs import Run


@dataclass
class Work:
    """jobs: trainings at once; hardware: what each runs on; dry_run: print what there is to do, do nothing; failures:
    trainings that ended without their record."""

    root: Path
    jobs: int
    hardware: Hardware
    dry_run: bool
    failures: list[Failure] = field(default_factory=list)

    def train(self, runs: Sequence[Run]) -> None:
        """Trains those that are not finished."""
        if self.dry_run:
            left = [run for run in runs if not run.finished]
            check_hardware(left, self.hardware, self.jobs)
            for run in left:
                print(shown(run, self.hardware))
        else:
            self.failures += run_all(runs, self.jobs, self.hardware, self.root)

    def do(self, what: str, action: Callable[[], None]) -> None:
        """Prints what, and does it unless this is a dry run."""
        print(what, flush=True)
        if not self.dry_run:
            action()
