"""A queue of trainings, or tests of them, on one machine: so many child processes at a time, one thread each."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, TextIO

from rankdet.results.progress import Progress
from rankdet.training.codes import BUSY, STOPPED
from rankdet.training.lock import is_taken

TAIL_LINES = 8


@dataclass(frozen=True)
class Job:
    """A command that writes records, directory/record.json where none are named. It prints to directory/log.txt.

    needs: records that have to be there before it starts."""

    name: str
    command: tuple[str, ...]
    directory: Path
    records: tuple[Path, ...] = ()
    needs: tuple[Path, ...] = ()

    def missing(self) -> list[Path]:
        """The records that are not there yet."""
        return [path for path in self.records or (self.directory / "record.json",) if not path.is_file()]

    @property
    def finished(self) -> bool:
        """Whether all records are there."""
        return not self.missing()

    @property
    def ready(self) -> bool:
        """Whether all that it needs is there; of a finished one nothing is asked."""
        return self.finished or all(path.is_file() for path in self.needs)


@dataclass(frozen=True)
class Failure:
    """A job that ended without its records. code: exit code, negative for a signal; None: it could not start.

    tail: the log's last lines, or why it could not. log: where it printed, if not to directory/log.txt."""

    job: Job
    code: int | None
    tail: tuple[str, ...]
    log: Path | None = None

    @property
    def stopped(self) -> bool:
        """Whether somebody else's signal ended it, so that the same command continues."""
        return self.code in (STOPPED, -signal.SIGTERM)

    @property
    def how(self) -> str:
        """In a word or three."""
        return "stopped" if self.stopped else f"FAILED (exit code {self.code})"


def not_started(job: Job) -> Failure:
    """Of a job that is not ready, and will not be."""
    lacking = ", ".join(str(path) for path in job.needs if not path.is_file())
    return Failure(job, None, (f"not started: it needs {lacking}",))


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came; the children are gone. code: what the process should exit with."""

    def __init__(self, signum: int) -> None:
        """signum: the signal that came."""
        super().__init__(f"stopped by {signal.Signals(signum).name}; the same command continues")
        self.code = 128 + signum


@dataclass
class _Child:
    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    log_start: int
    missing: list[Path]  # when last looked at
    gpus: str | None


class Queue:
    """Runs jobs, workers at a time, each on GPUs of its own, and waits for those that another process has in hand.

    Finished jobs are skipped. A failed one stops none but those that need its records. In seconds: poll, between looks
    at the children; retry, until a job that was busy elsewhere is looked at again; grace, from SIGTERM to SIGKILL.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        workers: int,
        cwd: Path,
        stream: TextIO | None = None,
        *,
        poll: float = 0.2,
        retry: float = 10.0,
        grace: float = 45.0,  # torchrun has 30 for its processes, sessions of their own that no signal of ours reaches
        work: str = "runs to train",
        gpus: Sequence[str] = (),
    ) -> None:
        """Starts nothing yet. workers >= 1. work: what the records that the jobs write are called.

        gpus: CUDA_VISIBLE_DEVICES of each worker's jobs; none: they see what we see."""
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.jobs = list(jobs)
        self.workers, self.cwd = workers, cwd
        self.poll, self.retry, self.grace = poll, retry, grace
        self.waiting = deque(job for job in self.jobs if not job.finished)
        total = sum(len(job.records) or 1 for job in self.jobs)
        left = sum(len(job.missing()) for job in self.waiting)
        self.progress = Progress(total, left, workers, stream or sys.stderr, work)
        self.free: deque[str | None] = deque(gpus or [None] * workers)
        self.elsewhere: deque[tuple[float, Job]] = deque()  # (not to be tried before, job)
        self.children: list[_Child] = []
        self.failures: list[Failure] = []
        self.signal: int | None = None

    def run(self) -> list[Failure]:
        """Until nothing is left; returns what failed. Raises Interrupted once a signal has ended it."""
        with self._signals():
            try:
                while self.signal is None and (self.waiting or self.children or self.elsewhere):
                    self._start()
                    self.progress.tick([child.job.name for child in self.children])
                    time.sleep(self.poll)
                    self._reap()
            finally:
                self._stop()
                self.progress.close()
        if self.signal is not None:
            raise Interrupted(self.signal)
        return self.failures

    def _start(self) -> None:
        while self.elsewhere and self.elsewhere[0][0] <= time.monotonic():
            job = self.elsewhere.popleft()[1]
            if is_taken(job.directory):
                self._wait_for(job)
            else:
                self.waiting.append(job)
        while len(self.children) < self.workers and (job := self._next()):
            if job.finished:  # by another process, while it waited
                self.progress.ended(f"{job.name}: finished elsewhere", len(job.records) or 1)
                continue
            job.directory.mkdir(parents=True, exist_ok=True)
            log = (job.directory / "log.txt").open("ab")
            environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
            gpus = self.free.popleft()
            if gpus is not None:
                environment["CUDA_VISIBLE_DEVICES"] = gpus
            process = subprocess.Popen(
                job.command,
                cwd=self.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that a signal reaches its own children, too, and Ctrl-C us alone
            )
            self.children.append(_Child(job, process, log, log.tell(), job.missing(), gpus))

    def _next(self) -> Job | None:
        """Takes the first waiting job that can start; gives up all if none can and there is nothing to wait for."""
        job = next((job for job in self.waiting if job.ready), None)
        if job is not None:
            self.waiting.remove(job)
        elif not self.children and not self.elsewhere:
            for stuck in self.waiting:
                self.failures.append(not_started(stuck))
                self.progress.ended(f"{stuck.name}: not started", len(stuck.records) or 1)
            self.waiting.clear()
        return job

    def _reap(self) -> None:
        for child in list(self.children):
            code = child.process.poll()
            self._note_records(child)
            if code is None:
                continue
            self.children.remove(child)
            self.free.append(child.gpus)
            child.log.close()
            if child.job.finished:
                continue
            if code == BUSY or is_taken(child.job.directory):  # of several processes another one's end may be told
                self._wait_for(child.job)
                self.progress.note(f"{child.job.name}: another process is training it; waiting for it")
            else:
                self.failures.append(Failure(child.job, code, _tail(child)))
                self.progress.ended(f"{child.job.name}: {self.failures[-1].how}", len(child.missing))

    def _wait_for(self, job: Job) -> None:
        self.elsewhere.append((time.monotonic() + self.retry, job))

    def _note_records(self, child: _Child) -> None:
        before, child.missing = child.missing, child.job.missing()
        for path in before:
            if path not in child.missing:
                what = f", {path.stem}" if child.job.records else ""
                self.progress.ended(f"{child.job.name}{what}: done")

    def _stop(self) -> None:
        """Ends what still runs: SIGTERM, then SIGKILL. A training goes on from its last checkpoint next time."""
        for child in self.children:
            _kill(child, signal.SIGTERM)
        deadline = time.monotonic() + self.grace
        for child in self.children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
            _kill(child, signal.SIGKILL)  # the whole group: a child's own children may be slower than it
            child.process.wait()
            child.log.close()
        self.children.clear()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def note(signum: int, _frame: FrameType | None) -> None:
            if self.signal is not None:  # asked twice: do not wait
                for child in self.children:
                    _kill(child, signal.SIGKILL)
            self.signal = signum

        before = {signum: signal.signal(signum, note) for signum in ending_signals()}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def ending_signals() -> list[signal.Signals]:
    """SIGINT, SIGTERM, and SIGHUP, which a closed terminal sends, but where nohup has it ignored."""
    found = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    return [signum for signum in found if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN]


def failure_report(failures: Sequence[Failure]) -> str:
    """What was stopped, and what failed, with the last lines of each log and where the rest of it is."""
    stopped = [failure.job.name for failure in failures if failure.stopped]
    failed = [failure for failure in failures if not failure.stopped]
    lines = [f"stopped: {', '.join(stopped)}; the same command continues"] if stopped else []
    lines += [f"{len(failed)} run{'s' if len(failed) > 1 else ''} failed:"] if failed else []
    for failure in failed:
        ended = f" exit code {failure.code}; {failure.log or failure.job.directory / 'log.txt'} ends in"
        lines.append(f"  {failure.job.name}:{'' if failure.code is None else ended}")
        lines += [f"    | {line}" for line in failure.tail]
    return "\n".join(lines)


def _tail(child: _Child) -> tuple[str, ...]:
    with (child.job.directory / "log.txt").open("rb") as file:
        file.seek(child.log_start)
        text = file.read().decode(errors="replace")
    return tuple(text.rstrip().splitlines()[-TAIL_LINES:]) or ("(nothing was written)",)


def _kill(child: _Child, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.process.pid, signum)
