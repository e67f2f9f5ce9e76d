"""Runs as one array of Slurm jobs, through Hydra's launcher for submitit (configs/hydra/launcher/slurm.yaml)."""

from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from hydra import compose
from hydra._internal.callbacks import Callbacks  # which a launcher must be given
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from hydra.utils import get_method
from omegaconf.errors import OmegaConfBaseException

from rankdet.cli import hydra_task
from rankdet.config import config_loader, one_line
from rankdet.errors import UserError
from rankdet.results.queue import Failure, Job
from rankdet.results.runs import Run
from rankdet.training.codes import BUSY, DEAD, NOT_FINITE, STOPPED
from rankdet.training.dead import DeadRun

TASK = "rankdet.train.run"
FOLDER = Path("runs", "slurm")  # what the jobs print, a folder each


def submit_all(
    runs: Sequence[tuple[Run, list[str]]], settings: Sequence[str], workers: int, root: Path
) -> list[Failure]:
    """Trains what is not finished, from the checkout's root, and waits for it; returns what failed.

    runs: each with all its command line's overrides. settings: key=value of hydra.launcher. workers: jobs at once.
    Where the waiting is cut short, the jobs go on. UserError for what Slurm does not take.
    """
    left = [(run, overrides) for run, overrides in runs if not run.finished]
    if not left:
        return []
    with chdir(root):
        launcher = slurm_launcher([*settings, f"array_parallelism={workers}"])
        print(f"{len(left)} of {len(runs)} runs go to Slurm, {workers} at a time; they print into {FOLDER}", flush=True)
        try:
            ended = launcher.launch([overrides for _, overrides in left], initial_job_idx=0)
        except (RuntimeError, OSError) as error:  # submitit's: refused by sbatch, or a job left without a word
            return _unfinished(left, error)
    return [failure for (run, _), job in zip(left, ended, strict=True) if (failure := _failure(run, job))]


def slurm_launcher(settings: Sequence[str]) -> Launcher:
    """Hydra's launcher of configs/hydra/launcher/slurm.yaml with settings on top; UserError for one that it lacks."""
    overrides = ["hydra/launcher=slurm", *(f"hydra.launcher.{item}" for item in settings)]
    try:
        with config_loader():
            cfg = compose("train", overrides=overrides, return_hydra_config=True)
            loader = GlobalHydra.instance().config_loader()
            context = HydraContext(config_loader=loader, callbacks=Callbacks())
            return Plugins.instance().instantiate_launcher(context, hydra_task(get_method(TASK)), cfg)
    except (HydraException, OmegaConfBaseException) as error:
        hint = "" if "hydra.launcher" in str(error) else "; pip install -e '.[slurm]' brings submitit"
        raise UserError(f"SLURM: {one_line(error)}{hint}") from error


def _failure(run: Run, ended: JobReturn) -> Failure | None:
    if run.finished:
        return None
    name = ended.hydra_cfg.hydra.job.id
    log = FOLDER / name / f"{name}_0_log.err"
    if ended.status == JobStatus.FAILED:
        error = ended._return_value
        code = DEAD if isinstance(error, DeadRun) else NOT_FINITE if isinstance(error, FloatingPointError) else 1
        line = f"{type(error).__name__}: {error}"
        run.directory.mkdir(parents=True, exist_ok=True)
        with (run.directory / "log.txt").open("a", encoding="utf-8") as file:  # where its state is read from
            file.write(f"{line}\nall of it: {log}\n")
        return Failure(_job(run), code, (line,), log)
    return Failure(_job(run), BUSY, ("another process is training it",), log)


def _unfinished(left: Sequence[tuple[Run, list[str]]], error: Exception) -> list[Failure]:
    print(f"no longer waiting for the jobs, which go on if they were begun: {one_line(error)}", flush=True)
    return [Failure(_job(run), STOPPED, ()) for run, _ in left if not run.finished]


def _job(run: Run) -> Job:
    return Job(f"{run.label} seed {run.seed}", (), run.directory)
