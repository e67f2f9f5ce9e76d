"""The command lines of trainings and of tests of their weights, and all of a plan's through the queue or Slurm."""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from rankdet.config import compose
from rankdet.errors import UserError
from rankdet.results.gpus import shares, visible_gpus
from rankdet.results.queue import Failure, Job, Queue, not_started
from rankdet.results.retests import FOLDER, Retest, Tests, outstanding
from rankdet.results.runs import RECORD, Run
from rankdet.results.slurm import submit_all
from rankdet.robustness.conditions import TRAINING_STEP


@dataclass(frozen=True)
class Hardware:
    """What each training runs on. gpus: on each of its nodes; 0: one if there is one, 1 and more insist.

    nodes: machines that share a disk and were all given the same command; rendezvous: HOST:PORT of one of them.
    slurm: settings of configs/hydra/launcher/slurm.yaml, where it is Slurm that is to run them; None: this machine."""

    gpus: int = 0
    nodes: int = 1
    rendezvous: str = ""
    slurm: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """UserError for numbers that do not go together."""
        if self.gpus < 0 or self.nodes < 1:
            raise UserError(f"GPUS={self.gpus} NODES={self.nodes}: must be at least 0 and 1")
        if self.nodes > 1 and self.slurm is None and not (self.gpus and self.rendezvous):
            raise UserError(f"NODES={self.nodes}: also give GPUS= (on each) and RDZV=HOST:PORT, HOST being one of them")

    @property
    def processes(self) -> int:
        """Of one training."""
        return max(1, self.gpus) * self.nodes


ANY = Hardware()


def command(run: Run, hardware: Hardware = ANY) -> list[str]:
    """One training's command line: on several GPUs torchrun's, whose processes rank each step's images together.

    With gpus=<n> among its overrides, of which each ranks its own images, it is another run, and one of n processes
    also where hardware does not say so."""
    own = _gpus_of(run)
    if own > 1 and hardware == ANY:
        hardware = Hardware(own)
    return [sys.executable, "-m", *_launcher(run, hardware), "rankdet.train", *_settings(run, hardware)]


def _settings(run: Run, hardware: Hardware) -> list[str]:
    insist = ["runtime.device=cuda"] if hardware.gpus else []
    split = [] if hardware.processes == 1 or _gpus_of(run) > 1 else [f"runtime.split={hardware.processes}"]
    return [*run.overrides, *insist, *split, f"seed={run.seed}"]


def _launcher(run: Run, hardware: Hardware) -> list[str]:
    if hardware.processes == 1:
        return []
    meet = ["--standalone"]  # at a free port
    if hardware.nodes > 1:
        name = f"{run.directory.parent.name}-{run.directory.name}"  # so that two nodes in two runs do not meet
        meet = [f"--nnodes={hardware.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={hardware.rendezvous}"]
        meet += [f"--rdzv-id={name}"]
    return ["rankdet.torchrun", *meet, f"--nproc-per-node={hardware.gpus}", "-m"]


def _gpus_of(run: Run) -> int:
    """What the run itself asks for; 0: nothing."""
    return next((int(item.removeprefix("gpus=")) for item in run.overrides if item.startswith("gpus=")), 0)


def check_jobs(workers: int) -> None:
    """UserError for less than one at a time."""
    if workers < 1:
        raise UserError(f"JOBS={workers}: at least one training at a time")


def check_hardware(runs: Sequence[Run], hardware: Hardware, workers: int) -> None:
    """UserError where the runs cannot be trained on it as they are, before any is begun."""
    check_jobs(workers)
    if hardware.nodes > 1 and workers > 1 and hardware.slurm is None:
        raise UserError(f"NODES={hardware.nodes}: set JOBS=1, so that all nodes are in the same training")
    for overrides, run in {run.overrides: run for run in runs}.items():
        own = _gpus_of(run)
        if own > 1 and own != hardware.processes:
            raise UserError(
                f"gpus={own}: is a run of {own} processes; set GPUS={own}, or GPUS and NODES to that product"
            )
        if hardware.processes == 1:
            continue
        batch = int(compose(list(overrides)).batch_size)
        if batch % hardware.processes:
            fits = [n for n in range(1, batch + 1) if batch % n == 0]
            raise UserError(
                f"{run.label}: its {batch} images a step cannot be dealt out evenly to {hardware.processes} GPUs; "
                f"GPUS x NODES must be one of {', '.join(map(str, fits))}"
            )


def shown(run: Run, hardware: Hardware = ANY) -> str:
    """The same, to be pasted into a shell."""
    return as_typed(command(run, hardware))


def as_typed(line: Sequence[str]) -> str:
    """A command line of this Python's, to be pasted into a shell."""
    return shlex.join(["python", *line[1:]])


def run_all(runs: Sequence[Run], workers: int, hardware: Hardware, root: Path) -> list[Failure]:
    """Trains what is not finished, workers at a time, from the checkout's root; returns what failed.

    Raises queue.Interrupted when a signal stops it."""
    left = [run for run in runs if not run.finished]
    check_hardware(left, hardware, workers)
    gpus = check_machine(hardware, workers) if left else []
    if hardware.slurm is not None:
        return _submit(runs, hardware, workers, root)
    return Queue([job(run, hardware) for run in runs], workers, root, gpus=gpus).run()


def check_machine(hardware: Hardware, workers: int) -> list[str]:
    """The GPUs of each of the trainings at once, see gpus.shares. UserError where this machine lacks what is asked."""
    if hardware.slurm is None:
        return shares(visible_gpus(), hardware.gpus, workers)
    if which("sbatch") is None:
        raise UserError("LAUNCHER=slurm: there is no sbatch on this machine; start it where you submit jobs")
    return []


def job(run: Run, hardware: Hardware = ANY) -> Job:
    """A training for the queue, which waits for the one that it starts from."""
    needs = (run.after.directory / RECORD,) if run.after else ()
    return Job(f"{run.label} seed {run.seed}", tuple(command(run, hardware)), run.directory, needs=needs)


def _submit(runs: Sequence[Run], hardware: Hardware, workers: int, root: Path) -> list[Failure]:
    """One array of jobs, and then one of those that start from its weights."""
    resources = [f"nodes={hardware.nodes}"]
    if hardware.gpus:
        resources += [f"gpus_per_node={hardware.gpus}", f"tasks_per_node={hardware.gpus}"]
    failures = []
    for later in (False, True):
        group = [(run, job(run, hardware)) for run in runs if (run.after is not None) == later]
        stuck = [not_started(one) for _, one in group if not one.ready]
        lines = [(run, _settings(run, hardware)) for run, one in group if one.ready]
        failures += submit_all(lines, [*resources, *(hardware.slurm or ())], workers, root) + stuck
    return failures


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
    """Tests the weights of finished runs as far as no current record is there, on a GPU each; returns what failed.

    One at a time, whatever workers says, where training steps are timed.

    Raises queue.Interrupted when a signal stops it."""
    todo = outstanding(retests)
    for run, missing in todo.items():
        for retest in missing:
            retest.path(run.directory).unlink(missing_ok=True)  # a stale one would pass for done
    if any(retest.condition == TRAINING_STEP for missing in todo.values() for retest in missing):
        workers = 1  # others beside it would be measured, too
    own = shares(visible_gpus(), min(gpus, 1), workers) if todo else ()
    return Queue(retest_jobs(retests, todo, gpus), workers, root, work="tests to run", gpus=own).run()
