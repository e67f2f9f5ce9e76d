"""What may happen to a run from outside: a signal, a full disk, a jumping clock, a moved checkout. Nothing is lost."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
import torch
from test_train_command import Run, assert_same, copy_of, unbroken  # noqa: F401
from test_train_stop import steps, told

from rankdet import train
from rankdet.config import compose, run_directory
from rankdet.training.checkpoint import list_checkpoints
from rankdet.training.codes import STOPPED

LIBFAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
# A tiny run's checkpoints take 11 MB each, of which two are kept while a third is written.
SMALL, LARGE = "30m", "100m"


class TestClock:
    """Of wall clocks only a record's date is taken."""

    def test_it_jumps_while_a_run_goes_on(self, unbroken, tmp_path, monkeypatch):  # noqa: F811
        """Backwards and forwards by years between any two looks at it, over the run's last steps and its record."""
        run = continued(unbroken, tmp_path)
        looks = iter(range(10**9))
        monkeypatch.setattr(time, "time", lambda: 1.7e9 + (-1) ** next(looks) * 1e8)
        assert tiny.call(train.main, run.arguments).code == 0
        assert next(looks) > 10
        assert_same(run, unbroken)

    @pytest.mark.stress
    @pytest.mark.skipif(not LIBFAKETIME, reason="needs libfaketime: apt-get install faketime")
    def test_a_process_of_another_year(self, unbroken, tmp_path):  # noqa: F811
        """Killed in 2031, continued in 2003: its older checkpoint is not taken for the newer one."""
        run = Run(tmp_path)
        for when, done in (("2031-01-01 00:00:00", False), ("2003-01-01 00:00:00", True)):
            process = start_in(when, run.arguments)
            try:
                while not done and process.poll() is None and len(list_checkpoints(run.file("checkpoints"))) < 2:
                    time.sleep(0.01)
                if not done:
                    process.kill()
                _, err = process.communicate(timeout=300)
            finally:
                process.kill()
            assert run.file("record.json").exists() == done, err
        assert "continuing at step" in err
        assert run.file("record.json").read_text().count('"date": "2003-01-01') == 1
        assert_same(run, unbroken)


def start_in(when, arguments):
    fake = {"LD_PRELOAD": str(LIBFAKETIME[0]), "FAKETIME": f"@{when}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "rankdet.train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | tiny.ENVIRONMENT | fake,
    )


def continued(unbroken, folder):  # noqa: F811
    """A run that is to be continued from step 14 of the unbroken one."""
    run = copy_of(unbroken, folder)
    list_checkpoints(run.file("checkpoints"))[0].unlink()
    return run


def test_told_to_stop(unbroken, tmp_path):  # noqa: F811
    """Told in step 15 of 16, between two checkpoints and two entries of the log: the step is finished and kept."""
    run = continued(unbroken, tmp_path)
    assert tiny.in_child(told, 15, signal.SIGTERM, run.arguments) == STOPPED == 99
    assert steps(run) == [15, 14]
    assert not run.file("record.json").exists()
    done = tiny.call(train.main, run.arguments)
    assert done.code == 0
    assert "continuing at step 15" in done.err
    assert_same(run, unbroken)


def test_a_renamed_checkout(unbroken, tmp_path, monkeypatch):  # noqa: F811
    """Relative paths, as the defaults are: a half-done run goes on, a finished one stays so, under the new name."""
    old, new = tmp_path / "old", tmp_path / "new"
    half = continued(unbroken, old)
    relative = [item.replace(f"{old}/", "") for item in half.arguments]
    old.rename(new)
    monkeypatch.chdir(new)
    done = tiny.call(train.main, relative)
    assert done.code == 0
    assert "continuing at step 14" in done.err
    run = Run(new)
    assert run.file("record.json").samefile(run_directory(compose(relative)) / "record.json")
    assert_same(run, unbroken)
    new.rename(old)
    monkeypatch.chdir(old)
    assert tiny.call(train.main, relative).out == f"{run_directory(compose(relative))}: finished already\n"


class TestFullDisk:
    """A small file system of its own."""

    def test_said_in_a_line(self, unbroken, tmp_path, monkeypatch):  # noqa: F811
        """Without one: what torch.save raises then, and how much room there is, made up."""
        run = continued(unbroken, tmp_path)
        monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))

        def full(content, file):
            file.write(b"half of it")
            raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")

        monkeypatch.setattr(torch, "save", full)
        done = tiny.call(train.main, run.arguments)
        assert done.code == 2
        newest = run.file("checkpoints/step-00000016.pt")
        message = f"error: [Errno 28] No space left on device: '{newest}'; make room, the same command continues\n"
        assert done.err.endswith(message)
        assert "Traceback" not in done.err
        monkeypatch.undo()
        assert tiny.call(train.main, run.arguments).code == 0
        assert_same(run, unbroken)

    @pytest.mark.stress
    def test_really(self, unbroken, tmp_path):  # noqa: F811
        """No room for the second or third checkpoint: the one before stays whole, and with room the run goes on."""
        mounted = tmp_path / "disk"
        with small_disk(mounted):
            run = Run(mounted)
            done = tiny.command("train", run.arguments)
            assert done.code == 2
            assert "error: [Errno 28] No space left on device" in done.err
            assert done.err.endswith("make room, the same command continues\n")
            assert "Traceback" not in done.err
            assert list_checkpoints(run.file("checkpoints"))
            assert not [path for path in run.directory.rglob("*") if ".partial" in path.name]
            subprocess.run(["mount", "-o", f"remount,size={LARGE}", mounted], check=True)
            done = tiny.command("train", run.arguments)
            assert done.code == 0, done.err
            assert "continuing at step" in done.err
            assert_same(run, unbroken)


@contextmanager
def small_disk(folder):
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", folder]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root, and leave to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
