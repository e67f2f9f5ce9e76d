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


def make_checkout(repo: Path, root: Path) -> Path:
    """root with manifests and what they refer to; no run."""
    folder = root / "experiments" / "ap-loss"
    folder.mkdir(parents=True)
    for path in (repo / "experiments").glob("*.yaml"):
        shutil.copy(path, root / "experiments")
    for name, text in {"table-1": TABLE_1, "table-8": TABLE_8, "figure-8a": FIGURE_8A}.items():
        (folder / f"{name}.yaml").write_text(text)
    (root / "experiments" / "published.yaml").write_text(PUBLISHED)
    return root
