"""The command line of a training, and all of a plan's trainings through the queue."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rankdet.errors import UserError
from rankdet.results.plan import Run
from rankdet.results.queue import Failure, Job, Queue


def command(run: Run, gpus: int = 0) -> list[str]:
    """One training's command line. gpus: 0 takes a GPU if there is one, 1 insists on it, more are torchrun's processes.

    For more than one, run was planned with gpus=<n> among its overrides: splitting the batch makes it another run."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "-m"] if gpus > 1 else []
    insist = ["runtime.device=cuda"] if gpus else []
    return [sys.executable, "-m", *launcher, "rankdet.train", *run.overrides, *insist, f"seed={run.seed}"]


def shown(run: Run, gpus: int = 0) -> str:
    """The same, to be pasted into a shell."""
    return shlex.join(["python", *command(run, gpus)[1:]])


def run_all(runs: Sequence[Run], workers: int, gpus: int, root: Path) -> list[Failure]:
    """Trains what is not finished, workers at a time, from the checkout's root; returns what failed.

    Raises queue.Interrupted when a signal stops it."""
    if workers < 1:
        raise UserError(f"JOBS={workers}: at least one training at a time")
    jobs = [Job(f"{run.label} seed {run.seed}", tuple(command(run, gpus)), run.directory) for run in runs]
    return Queue(jobs, workers, root).run()
