"""The command lines of trainings and of tests of their weights, and all of a plan's through the queue."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rankdet.errors import UserError
from rankdet.results.queue import Failure, Job, Queue
from rankdet.results.retests import FOLDER, Retest, Tests, outstanding
from rankdet.results.runs import RECORD, Run


def command(run: Run, gpus: int = 0) -> list[str]:
    """One training's command line. gpus: 0 takes a GPU if there is one, 1 insists on it, more are torchrun's processes.

    For more than one, run was planned with gpus=<n> among its overrides: splitting the batch makes it another run."""
    launcher = ["rankdet.torchrun", "--standalone", f"--nproc-per-node={gpus}", "-m"] if gpus > 1 else []
    insist = ["runtime.device=cuda"] if gpus else []
    return [sys.executable, "-m", *launcher, "rankdet.train", *run.overrides, *insist, f"seed={run.seed}"]


def shown(run: Run, gpus: int = 0) -> str:
    """The same, to be pasted into a shell."""
    return as_typed(command(run, gpus))


def as_typed(line: Sequence[str]) -> str:
    """A command line of this Python's, to be pasted into a shell."""
    return shlex.join(["python", *line[1:]])


def run_all(runs: Sequence[Run], workers: int, gpus: int, root: Path) -> list[Failure]:
    """Trains what is not finished, workers at a time, from the checkout's root; returns what failed.

    Raises queue.Interrupted when a signal stops it."""
    if workers < 1:
        raise UserError(f"JOBS={workers}: at least one training at a time")
    return Queue([job(run, gpus) for run in runs], workers, root).run()


def job(run: Run, gpus: int = 0) -> Job:
    """A training for the queue, which waits for the one that it starts from."""
    needs = (run.after.directory / RECORD,) if run.after else ()
    return Job(f"{run.label} seed {run.seed}", tuple(command(run, gpus)), run.directory, needs=needs)


def retest_command(run: Run, retests: Sequence[Retest], gpus: int = 0) -> list[str]:
    """The command line that tests a finished run's weights again. retests: one or more, of equal overrides."""
    root = [f"data.root={json.dumps(run.data_root)}"] if run.data_root else []  # read as YAML: any path survives
    device = ["device=cuda"] if gpus else []
    conditions = f"conditions={','.join(retest.condition for retest in retests)}"
    return [
        sys.executable,
        "-m",
        "rankdet.retest",
        f"run={run.directory}",
        conditions,
        *device,
        *root,
        *retests[0].overrides,
    ]


def retest_jobs(retests: Tests, todo: Tests, gpus: int) -> list[Job]:
    """One job for each run and settings of its tests that has some to do, which its command names."""
    jobs = []
    for run, missing in todo.items():
        for overrides in dict.fromkeys(retest.overrides for retest in missing):
            group = [retest for retest in retests[run] if retest.overrides == overrides]
            line = retest_command(run, [retest for retest in group if retest in missing], gpus)
            records = tuple(retest.path(run.directory) for retest in group)
            jobs.append(Job(f"{run.label} seed {run.seed}", tuple(line), run.directory / FOLDER, records))
    return jobs


def retest_all(retests: Tests, workers: int, gpus: int, root: Path) -> list[Failure]:
    """Tests the weights of finished runs as far as no current record is there; returns what failed.

    Raises queue.Interrupted when a signal stops it."""
    todo = outstanding(retests)
    for run, missing in todo.items():
        for retest in missing:
            retest.path(run.directory).unlink(missing_ok=True)  # a stale one would pass for done
    return Queue(retest_jobs(retests, todo, gpus), workers, root, work="tests to run").run()
