"""What a record says of where a run came from: commit, versions, hardware."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torchvision

REPO = Path(__file__).resolve().parents[2]


def provenance(device: torch.device) -> dict[str, Any]:
    """Commit (None outside a checkout), whether the code differs from it, versions, hardware, the date (UTC)."""
    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--", "rankdet", "configs")  # a new, untracked loss is a change too
    return {
        "commit": commit,
        "dirty": bool(changed) if commit else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "hardware": hardware(device),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def git(*arguments: str) -> str | None:
    """A git command's output in this checkout, or None where it fails or there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(REPO), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def hardware(device: torch.device) -> str:
    """The GPU's name, or the processor's with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
