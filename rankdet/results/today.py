"""The data as they are now: read before anything starts, so that a mistake in them is one line and not one per run."""

from collections.abc import Iterable

from rankdet.build import open_source
from rankdet.config import compose
from rankdet.data import records
from rankdet.results.runs import Reads, Run


def data_hashes(runs: Iterable[Run]) -> dict[Reads, str]:
    """What the runs' records would give as data_hash, by Run.reads; see data_hash."""
    readers = {run.reads: run for run in runs}
    return {reads: data_hash(run) for reads, run in readers.items()}


def data_hash(run: Run) -> str:
    """What run's record would give as data_hash. Reads (or draws) its splits; UserError for what is wrong in them."""
    cfg = compose([*run.overrides, f"seed={run.seed}"])
    source = open_source(cfg)
    return records.data_hash(source.read(cfg.splits.train), source.read(cfg.splits.test))
