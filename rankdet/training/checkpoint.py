"""Checkpoints: written whole or not at all, the newest two kept, a broken one passed over."""

import errno
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from rankdet.files import replacing, sweep

KEPT = 2
FULL = 2**20  # bytes free while a file that did not fit is still there


def save_atomically(content: Any, path: Path) -> None:  # noqa: ANN401
    """torch.save that leaves either the old file or the whole new one; OSError(ENOSPC) where the disk is full."""
    with replacing(path) as partial, partial.open("wb") as file:  # given a path, torch.save would store its name
        try:
            torch.save(content, file)
        except RuntimeError as error:  # which has no errno
            if shutil.disk_usage(path.parent).free < FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise


def save_checkpoint(folder: Path, step: int, content: dict[str, Any]) -> None:
    """Adds step-<step>.pt to folder; removes all but the newest KEPT, and what a killed process left half-written."""
    save_atomically({"step": step, **content}, folder / f"step-{step:08d}.pt")
    for old in list_checkpoints(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    sweep(folder)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of folder, newest first."""
    return sorted((p for p in folder.glob("step-*.pt") if re.fullmatch(r"step-\d{8}\.pt", p.name)), reverse=True)


def load_newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest readable checkpoint (None if there is none) and a warning for each one that could not be read."""
    warnings = []
    paths = list_checkpoints(folder)
    for path in paths:
        try:
            # Our own file: it holds the states of Python's and NumPy's generators, which weights_only refuses.
            return torch.load(path, map_location="cpu", weights_only=False), warnings
        except Exception as error:
            next_best = "starting anew" if path == paths[-1] else "falling back to the one before it"
            warnings.append(f"{path}: unreadable ({type(error).__name__}), {next_best}")
    return None, warnings


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """load_state_dict, and what is remembered of a weight in that weight's own memory layout.

    A checkpoint written under another runtime.channels_last has the other one. Fused optimisers walk through memory
    without a look at strides: they would pair each weight with another one's averages, or refuse.
    """
    optimizer.load_state_dict(state)
    for weight, remembered in optimizer.state.items():
        for name, value in remembered.items():
            if isinstance(value, Tensor) and value.dim() == 4:
                remembered[name] = torch.empty_like(weight).copy_(value)


def random_state() -> dict[str, Any]:
    """This process's random generators, which drop-out and samplers draw from; what is read depends on none."""
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}  # noqa: NPY002
    if torch.cuda.is_initialized():  # by this run: one on the CPU leaves a GPU alone
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """The inverse of random_state."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
