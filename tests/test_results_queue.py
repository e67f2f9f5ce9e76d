"""The queue, with small Python programs for trainings."""

import inspect
import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

from rankdet.results import queue
from rankdet.results.queue import Failure, Interrupted, Job, Queue, ending_signals, failure_report

DONE = "import pathlib; pathlib.Path('record.json').write_text('{}')"


def job(folder, program, name=None):
    """program runs in the job's own directory."""
    directory = folder / (name or f"job{len(list(folder.iterdir()))}")
    directory.mkdir(exist_ok=True)
    code = f"import os; os.chdir({str(directory)!r})\n{program}"
    return Job(directory.name, (sys.executable, "-c", code), directory)


def run(jobs, workers, folder, **options):
    stream = io.StringIO()
    options = {"poll": 0.02, "retry": 0.1, "grace": 5.0} | options
    return Queue(jobs, workers, folder, stream, **options).run(), stream.getvalue()


def test_torchrun_has_time_to_end_its_processes(tmp_path):
    """They lead sessions of their own, so that only torchrun's signals reach them: to be killed before it has given up
    on them would leave them to themselves, with their GPUs."""
    patience = inspect.signature(LocalElasticAgent).parameters["shutdown_timeout"].default
    assert Queue([], 1, tmp_path).grace > patience > 0


def test_runs_so_many_at_once_with_one_thread_each(tmp_path):
    """Each job notes how many are at work while it is: with 2 workers some see 2, none sees more."""
    program = f"""
import os, time, pathlib
mark = pathlib.Path('..', 'at-work-' + str(os.getpid())); mark.touch()
time.sleep(0.4)
print(len(list(pathlib.Path('..').glob('at-work-*'))), os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])
mark.unlink()
{DONE}"""
    jobs = [job(tmp_path, program) for _ in range(5)]
    failures, text = run(jobs, 2, tmp_path)
    assert failures == []
    seen = [(item.directory / "log.txt").read_text().split() for item in jobs]
    assert {tuple(threads) for _, *threads in seen} == {("1", "1")}
    assert max(int(count) for count, *_ in seen) == 2
    assert "5 of 5 runs to train, 2 at a time" in text
    assert "[5/5]" in text
    assert " left" in text


def test_a_job_waits_for_what_it_needs(tmp_path):
    """Listed last, the first one is started alone though two could run; both others see its record."""
    first = job(tmp_path, f"import time; time.sleep(0.2)\n{DONE}", "first")
    needs = (first.directory / "record.json",)
    program = f"assert __import__('os').path.isfile({str(needs[0])!r})\n{DONE}"
    others = [replace(job(tmp_path, program, name), needs=needs) for name in ("second", "third")]
    failures, text = run([*others, first], 2, tmp_path)
    assert failures == []
    assert all(item.finished for item in others)
    assert text.index("first: done") < min(text.index("second: done"), text.index("third: done"))


def test_a_job_whose_need_fails_is_not_started_and_named(tmp_path):
    """Those that need nothing run all the same; a chain of two is given up as a whole."""
    first = job(tmp_path, "raise SystemExit(3)", "first")
    second = replace(job(tmp_path, DONE, "second"), needs=(first.directory / "record.json",))
    third = replace(job(tmp_path, DONE, "third"), needs=(second.directory / "record.json",))
    free = job(tmp_path, DONE, "free")
    failures, text = run([second, third, first, free], 1, tmp_path)
    assert [(failure.job.name, failure.code) for failure in failures] == [
        ("first", 3), ("second", None), ("third", None),
    ]  # fmt: skip
    assert free.finished and not (second.directory / "log.txt").exists()
    assert "[4/4] third: not started" in text
    report = failure_report(failures)
    assert "3 runs failed:" in report
    assert f"  second:\n    | not started: it needs {second.needs[0]}" in report
    done = replace(third, needs=())
    assert run([done], 1, tmp_path)[0] == []
    assert run([third], 1, tmp_path) == ([], "")  # finished: nothing is asked of what it needed


def test_finished_runs_are_skipped(tmp_path):
    done = job(tmp_path, "raise SystemExit('must not start')", "done")
    (done.directory / "record.json").write_text("{}")
    other = job(tmp_path, DONE, "other")
    failures, text = run([done, other], 1, tmp_path)
    assert failures == []
    assert not (done.directory / "log.txt").exists()
    assert "1 of 2 runs to train" in text
    assert run([done, other], 1, tmp_path) == ([], "")


def test_a_failure_is_listed_and_the_others_go_on(tmp_path):
    """The log's earlier content, of an interrupted attempt, is kept, and is not this failure's."""
    bad = job(
        tmp_path,
        "import sys\nfor i in range(20): print('line', i)\nprint('error: no GPU', file=sys.stderr); sys.exit(2)",
        "bad",
    )
    (bad.directory / "log.txt").write_text("an earlier attempt\n")
    silent = job(tmp_path, "pass", "silent")
    good = job(tmp_path, DONE, "good")
    failures, text = run([bad, silent, good], 1, tmp_path)
    assert [(failure.job.name, failure.code) for failure in failures] == [("bad", 2), ("silent", 0)]
    assert failures[0].tail == (*(f"line {i}" for i in range(13, 20)), "error: no GPU")
    assert failures[1].tail == ("(nothing was written)",)
    assert good.finished
    assert (bad.directory / "log.txt").read_text().startswith("an earlier attempt\nline 0\n")
    assert "bad: FAILED (exit code 2)" in text
    report = failure_report(failures)
    assert report.startswith("2 runs failed:")
    assert "| error: no GPU" in report
    assert str(bad.directory / "log.txt") in report


def test_a_run_in_other_hands_is_waited_for(tmp_path):
    """The first two tries find the run busy (exit code 75); then the other process has finished it."""
    program = """
import pathlib, sys
tries = pathlib.Path('tries'); count = len(tries.read_text()) if tries.exists() else 0
tries.write_text('x' * (count + 1))
if count == 1: pathlib.Path('record.json').write_text('{}')
sys.exit(75)"""
    busy = job(tmp_path, program, "busy")
    failures, text = run([busy, job(tmp_path, DONE, "free")], 1, tmp_path)
    assert failures == []
    assert (busy.directory / "tries").read_text() == "xx"
    assert "another process is training it" in text


def test_a_run_whose_other_trainer_died_is_taken_over(tmp_path):
    program = f"""
import pathlib, sys
first = not pathlib.Path('tried').exists(); pathlib.Path('tried').touch()
if first: sys.exit(75)
{DONE}"""
    item = job(tmp_path, program)
    assert run([item], 1, tmp_path)[0] == []
    assert item.finished


def test_a_run_is_not_started_while_other_hands_hold_it(tmp_path, monkeypatch):
    """It is looked at twice in vain; the third time it is free, and the second start finishes it."""
    program = f"""
import pathlib, sys
tries = pathlib.Path('tries'); count = len(tries.read_text()) if tries.exists() else 0
tries.write_text('x' * (count + 1))
if count == 0: sys.exit(75)
{DONE}"""
    held = [True, True, False]
    monkeypatch.setattr(queue, "is_taken", lambda directory: held.pop(0))
    item = job(tmp_path, program)
    failures, text = run([item], 1, tmp_path)
    assert failures == [] and held == []
    assert (item.directory / "tries").read_text() == "xx"
    assert text.count("another process is training it") == 1


def test_a_run_that_was_stopped_is_no_failure(tmp_path):
    """By a signal to it alone, heeded (exit code 99) or not yet heard of; the queue goes on with the others."""
    stopped = [job(tmp_path, "raise SystemExit(99)", "early"), job(tmp_path, TERMINATED, "late")]
    done = job(tmp_path, DONE, "done")
    failures, text = run([*stopped, done], 1, tmp_path)
    assert [(failure.job.name, failure.stopped) for failure in failures] == [("early", True), ("late", True)]
    assert done.finished
    assert "early: stopped" in text
    assert "FAILED" not in text
    assert failure_report(failures) == "stopped: early, late; the same command continues"
    bad = [Failure(done, 1, ("why",))]
    report = failure_report(failures + bad).splitlines()
    assert report[:2] == ["stopped: early, late; the same command continues", "1 run failed:"]
    assert len(report) == 4


def test_nohup_is_left_as_it_is(monkeypatch):
    """What was started by it outlives its terminal."""
    monkeypatch.setattr(signal, "getsignal", {signal.SIGHUP: signal.SIG_DFL}.get)
    assert ending_signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    monkeypatch.setattr(signal, "getsignal", {signal.SIGHUP: signal.SIG_IGN}.get)
    assert ending_signals() == [signal.SIGINT, signal.SIGTERM]


TERMINATED = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
LAUNCHER = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which these tests may have been started without
from rankdet.results.queue import Interrupted, Job, Queue
folder = Path(sys.argv[1])
given = zip(sys.argv[2::2], sys.argv[3::2])
jobs = [Job(name, (sys.executable, '-c', program), folder / name) for name, program in given]
try:
    Queue(jobs, 2, folder, poll=0.02, grace=1.0).run()
except Interrupted as stop:
    print(stop)
    sys.exit(stop.code)
"""
POLITE = """
import pathlib, signal, sys, time
def stop(*_): pathlib.Path('polite/checkpointed').touch(); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
pathlib.Path('polite/started').write_text(str(__import__('os').getpid()))
time.sleep(60)"""
STUBBORN = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path('stubborn/started').write_text(str(__import__('os').getpid()))
time.sleep(60)"""


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_children_and_then_the_queue(tmp_path, signum, code):
    """SIGTERM lets one child checkpoint; the other ignores it and is killed after the grace; a third never starts."""
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path), "polite", POLITE, "stubborn", STUBBORN, "late", DONE]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    marks = [tmp_path / name / "started" for name in ("polite", "stubborn")]
    deadline = time.monotonic() + 20
    while not all(mark.exists() and mark.read_text() for mark in marks) and time.monotonic() < deadline:
        time.sleep(0.02)
    launcher.send_signal(signum)
    out, _ = launcher.communicate(timeout=20)
    assert launcher.returncode == code
    assert "the same command continues" in out
    assert (tmp_path / "polite" / "checkpointed").exists()
    assert not (tmp_path / "late").exists()
    for mark in marks:
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.read_text()), 0)


def test_interrupted_says_how_to_go_on():
    assert str(Interrupted(signal.SIGTERM)) == "stopped by SIGTERM; the same command continues"
    assert Interrupted(signal.SIGINT).code == 130


def test_needs_a_worker(tmp_path):
    with pytest.raises(ValueError, match="workers"):
        Queue([], 0, tmp_path)
