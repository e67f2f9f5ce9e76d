"""A checkout with a small paper of its own for the tests of overviews: two tables that share a training, one figure."""

import shutil
from pathlib import Path

TABLE_1 = """
tables: [ap-loss/table-1c]
experiment: ap_table_1
seeds: [0, 1]
rows:
  interpolated-no: {overrides: [loss=ap, loss.interpolate=false], mini: true, paper: true}
  interpolated-yes: {overrides: [loss=ap], mini: true, paper: true}
"""
TABLE_OF_BATCH_SIZES = """
tables: [ap-loss/table-1a]
experiment: ap_table_1
seeds: [0, 1]
rows:
  batch-1: {overrides: [loss=ap, batch_size=1], mini: true}
  batch-2: {overrides: [loss=ap, batch_size=2], mini: true}
  batch-4: {overrides: [loss=ap, batch_size=4], mini: true}
  batch-8: {overrides: [loss=ap, batch_size=8], mini: true}
"""
TABLE_8 = """
tables: [ap-loss/table-8]
experiment: ap_table_1
seeds: [0, 1]
rows:
  ohem-ap-loss: {overrides: [loss=ap, sampler=ohem], mini: true, paper: true}
  random-ap-loss: {overrides: [loss=ap, sampler=random], mini: false, reason: far too random}
  original-ap-loss: {overrides: [loss=ap], mini: true, paper: true}
"""
FIGURE_8A = """
title: A quantity
kind: curves
experiment: ap_figure_8
seeds: [0]
quantity: ap_value
y_label: AP-loss
series:
  error-driven: {label: error-driven update, fact: ends low, overrides: [loss=ap]}
"""
PUBLISHED = """
- {paper: ap-loss, table: table-1, protocol: mini, data: shapes}
- {paper: ap-loss, table: table-8, protocol: mini, data: shapes}
- {paper: ap-loss, figure: figure-8a, protocol: mini, data: shapes}
"""


def make_experiments(repo: Path, root: Path, manifests: dict[str, str]) -> Path:
    """experiments/ in root with these manifests of the paper ap-loss, and what they refer to."""
    folder = root / "experiments" / "ap-loss"
    folder.mkdir(parents=True)
    (root / "experiments" / "tuning").mkdir()
    for path in (repo / "experiments").glob("*.yaml"):
        if path.name != "published.yaml":
            shutil.copy(path, root / "experiments")
    for name, text in manifests.items():
        (folder / f"{name}.yaml").write_text(text)
    return root


def make_checkout(repo: Path, root: Path) -> Path:
    """root with the small paper, whose tables and figure are all published; no run."""
    make_experiments(repo, root, {"table-1": TABLE_1, "table-8": TABLE_8, "figure-8a": FIGURE_8A})
    (root / "experiments" / "published.yaml").write_text(PUBLISHED)
    return root
