"""A run of seconds: its settings, and the three ways of running a command (in place, as a process, in a child)."""

import io
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from rankdet.build import make
from rankdet.config import compose

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
STEPS = 16


class Done(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def overrides(folder: Path, *more: str) -> list[str]:
    """16 steps of 4 images from 10 drawn ones, a checkpoint and a log entry every 2, val after 8; 9 test images."""
    return [
        f"runtime.runs={folder}/runs",
        f"data.root={folder}/shapes",
        "data.source.num_train=10",
        "data.source.num_val=4",
        "data.source.num_test=9",
        *settings(*more),
    ]


def voc(folder: Path, root: Path, *more: str) -> list[str]:
    """The same on a folder in VOC layout."""
    return [f"runtime.runs={folder}/runs", "data=voc", f"data.root={root}", *settings(*more)]


def settings(*more: str) -> list[str]:
    """A tiny run's settings, whatever its data."""
    return [
        "data.image_size=[96,128]",
        "batch_size=4",
        f"schedule.length={4 * STEPS}",
        "schedule.milestones=[48]",
        "schedule.warmup_steps=3",
        "schedule.monitor_every=32",
        "runtime.device=cpu",
        "runtime.checkpoint_every=2",
        "runtime.log_every=2",
        "runtime.progress=lines",
        *more,
    ]


def shapes(arguments: Sequence[str]) -> Path:
    """The folder that overrides' set is drawn into: its name ends in a hash of the settings."""
    return make(compose(list(arguments)).data.source).folder


def call(main: Callable[[], None], arguments: Sequence[str]) -> Done:
    """A command's main in this process, which has imported everything already."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with mock.patch.object(sys, "argv", ["command", *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def command(module: str, arguments: Sequence[str], ranks: int = 1) -> Done:
    """python -m rankdet.<module>, under torchrun for more than one rank, to its end."""
    process = start(module, arguments, ranks)
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    return Done(process.returncode, out, err)


def start(module: str, arguments: Sequence[str], ranks: int = 1) -> "subprocess.Popen[str]":
    """The same, begun only."""
    torchrun = ["rankdet.torchrun", "--standalone", f"--nproc-per-node={ranks}", "-m"] if ranks > 1 else []
    return subprocess.Popen(
        [sys.executable, "-m", *torchrun, f"rankdet.{module}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )


def child(function: Callable[..., None], *arguments: object) -> BaseProcess:
    """Starts an importable function in a process forked from a clean one that has imported the training.

    It costs none of a command's seconds of imports, and may be killed like one.
    """
    with mock.patch.dict(os.environ, ENVIRONMENT):  # of the process that is forked from, started at the first call
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["rankdet.train", "rankdet.data.transforms"])
        process = context.Process(target=function, args=arguments)
        process.start()
    return process


def in_child(function: Callable[..., None], *arguments: object) -> int:
    """Runs a child to its end; its exit code, negative for a signal."""
    process = child(function, *arguments)
    process.join(timeout=300)
    alive = process.is_alive()
    process.kill()
    assert not alive, "the child hangs"
    return process.exitcode


def by_two(
    function: Callable[[int, int, Sequence[str]], None], arguments: Sequence[str], codes: Sequence[int] = (0, 0)
) -> None:
    """function(rank, port, arguments) in two processes that meet at a free port, to their end by these exit codes."""
    port = free_port()
    processes = [child(function, rank, port, arguments) for rank in range(2)]
    for process in processes:
        process.join(timeout=300)
    assert [process.exitcode for process in processes] == list(codes)


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])
