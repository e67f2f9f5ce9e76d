"""The lock of a run directory, between processes."""

import os
import signal
import time

import pytest
import tiny

from rankdet.errors import UserError
from rankdet.training.codes import BUSY
from rankdet.training.lock import is_taken, run_lock


def hold(directory, ready, with_child):
    """Takes the lock and sleeps, in a process of its own; with_child: having forked another, as a data loader does."""
    with run_lock(directory):
        if with_child and os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        ready.touch()
        time.sleep(60)


def ask_until(directory, enough):
    """Asks whether the lock is held, without a pause."""
    while not enough.exists():
        is_taken(directory)


def take(directory):
    """Takes the lock and lets it go again."""
    with run_lock(directory):
        pass


def holder(directory, ready, with_child):
    """A process that holds the lock by now."""
    process = tiny.child(hold, directory, ready, with_child)
    deadline = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ready.exists()
    return process


@pytest.mark.parametrize("with_child", [False, True])
def test_held_by_a_living_process_and_free_as_soon_as_it_is_killed(tmp_path, with_child):
    """Also where a forked worker outlives its killed parent for a while."""
    directory, ready = tmp_path / "run", tmp_path / "ready"
    process = holder(directory, ready, with_child)
    try:
        assert tiny.in_child(take, directory) == BUSY
        assert is_taken(directory)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert tiny.in_child(take, directory) == 0
    assert not is_taken(directory) and not is_taken(tmp_path / "never a run")


def test_asking_turns_nobody_away(tmp_path):
    """While two processes ask all the time, the lock is taken 2000 times."""
    (tmp_path / ".lock").touch()
    asking = [tiny.child(ask_until, tmp_path, tmp_path / "enough") for _ in range(2)]
    try:
        for _ in range(2000):
            take(tmp_path)
    finally:
        (tmp_path / "enough").touch()
        for process in asking:
            process.join()


def test_the_second_process_is_told_in_one_line(tmp_path, capsys, monkeypatch):
    def busy(*_):
        raise BlockingIOError

    monkeypatch.setattr("fcntl.lockf", busy)
    with pytest.raises(SystemExit) as stop, run_lock(tmp_path / "run"):
        pytest.fail("entered")
    assert stop.value.code == BUSY == 75
    assert capsys.readouterr().out == f"{tmp_path / 'run'}: another process is training it\n"


def test_let_go_after_an_error(tmp_path):
    with pytest.raises(KeyError), run_lock(tmp_path):
        raise KeyError
    assert tiny.in_child(take, tmp_path) == 0


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/run.*runtime\.runs"), run_lock(tmp_path / "file" / "run"):
        pytest.fail("entered")
