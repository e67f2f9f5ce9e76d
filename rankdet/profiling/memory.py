"""The most memory that a call uses at a time, beyond what is in use before it."""

import ctypes
import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from rankdet.profiling.timing import Call

OWN_MAPPING = 1 << 16  # bytes from which a block is mapped on its own
M_MMAP_THRESHOLD = -3  # of mallopt, in glibc's malloc.h
RESIDENT, HIGHEST = "VmRSS", "VmHWM"  # in /proc/self/status


def peak_bytes(call: Call, device: torch.device) -> int | None:
    """GPU: of torch's allocations. CPU: of resident memory, all that is touched, torch's blocks and its kernels' own.

    On the CPU it is right to some hundred KB (Linux counts pages by processor), and only in a gauge_process(); None
    where it cannot be told.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # HIGHEST starts again from RESIDENT
    except OSError:  # not Linux, or not allowed
        return None
    before = _status(RESIDENT)
    call()
    return max(0, _status(HIGHEST) - before)


def gauge_process() -> ProcessPoolExecutor:
    """A new process whose malloc maps every larger block on its own and gives it back when it is freed.

    Otherwise blocks that earlier calls have freed would be used again unseen, or leave gaps that count. It makes
    allocating slower, so times are taken elsewhere. It has as many threads as torch has here.
    """
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, spawn, initializer=_prepare, initargs=(torch.get_num_threads(),))


def _prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; others map large blocks on their own anyway
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, OWN_MAPPING)


def _status(key: str) -> int:
    """Bytes that /proc/self/status has under the key."""
    found = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, f"/proc/self/status has no {key}"
    return int(found[1]) * 1024
