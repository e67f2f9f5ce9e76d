"""The data as they are now: read before anything starts, so that a mistake in them is one line and not one per run."""

from collections.abc import Iterable

from rankdet.build import open_source
from rankdet.config import compose
from rankdet.data import records
from rankdet.errors import UserError
from rankdet.results.records import read_finished
from rankdet.results.runs import Reads, Run


def data_hashes(runs: Iterable[Run]) -> dict[Reads, str]:
    """What the runs' records would give as data_hash, by Run.reads; see data_hash."""
    readers = {run.reads: run for run in runs}
    return {reads: data_hash(run) for reads, run in readers.items()}


def require_today(runs: Iterable[Run]) -> None:
    """UserError where a run was finished on other data than are there today: the same command would take it over."""
    finished = [run for run in runs if run.finished]
    hashes = data_hashes(finished)
    for run in finished:
        require_data(run, hashes[run.reads])


def require_data(run: Run, wanted: str) -> None:
    """UserError where a finished run's data_hash is another one."""
    if run.finished and read_finished(run.directory)["data_hash"] != wanted:
        raise UserError(f"{run.directory}: was trained or tested on other data; remove it to repeat it")


def data_hash(run: Run) -> str:
    """What run's record would give as data_hash. Reads (or draws) its splits; UserError for what is wrong in them."""
    cfg = compose([*run.overrides, f"seed={run.seed}"])
    source = open_source(cfg)
    return records.data_hash(source.read(cfg.splits.train), source.read(cfg.splits.test))
