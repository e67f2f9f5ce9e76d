"""Whether a detector's mini config learns: a short training on the drawn set, on one thread."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from rankdet import train
from rankdet.config import compose, run_directory

STEPS = 300  # of 8 images
ONE_CPU_THREAD = ("runtime.device=cpu", "runtime.threads=1", "runtime.progress=lines", "runtime.log_every=20")


def assert_learns(folder: Path, overrides: Sequence[str], floor: float, steps: int = STEPS) -> None:
    """Trains the mini protocol with overrides for so many steps, and its first steps twice more.

    The logged loss must fall by a seventh, AP50 on the test split (0..1) must exceed floor, and the first steps must
    leave the same bits each time.
    """
    run = trained(folder / "whole", overrides, steps)
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [entry["train/loss"] for entry in entries if "train/loss" in entry]
    assert len(losses) == steps // 20
    assert losses[-1] < 6 / 7 * losses[0], losses
    found = json.loads((run / "record.json").read_text())["metrics"]["AP50"]
    assert found > floor, f"AP50 {found}"
    first, again = (
        torch.load(trained(folder / name, overrides, 5) / "weights.pt")["model"] for name in ("first", "again")
    )
    assert len(first) > 10
    assert [name for name in first if not torch.equal(first[name], again[name])] == []


def trained(folder: Path, overrides: Sequence[str], steps: int) -> Path:
    """The directory of a finished run."""
    length = [f"schedule.length={8 * steps}", f"schedule.milestones=[{6 * steps}]", "schedule.warmup_steps=20"]
    quiet = ["splits.monitor=null", f"runtime.runs={folder}/runs", f"data.root={folder.parent}/shapes"]
    cfg = compose(["protocol=mini", *ONE_CPU_THREAD, *length, *quiet, *overrides])
    train.run(cfg)
    return run_directory(cfg)
