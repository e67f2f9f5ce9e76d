"""The data as they are now: read before anything starts, so that a mistake in them is one line and not one per run."""

from rankdet.config import compose
from rankdet.results.plan import Run


def data_hash(run: Run) -> str:
    """What run's record would give as data_hash. Reads (or draws) its splits; UserError for what is wrong in them."""
    from rankdet.build import read_split  # torch: a table of finished runs on drawn data does without

    cfg = compose([*run.overrides, f"seed={run.seed}"])
    return "-".join(read_split(cfg, split).fingerprint() for split in (cfg.splits.train, cfg.splits.test))
