"""Told to stop by a signal: at which moment, by how many processes. That nothing is lost by it is in test_faults.py."""

import os
import signal
import sys
import time

import pytest
import tiny
import torch
from test_train_command import Run, assert_same
from test_train_distributed import one_of_two

from rankdet import train
from rankdet.training import stop as module
from rankdet.training.checkpoint import list_checkpoints
from rankdet.training.codes import STOPPED
from rankdet.training.distributed import World
from rankdet.training.stop import SIGNALS, Stop

HERE = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("unbroken"))
    assert tiny.call(train.main, run.arguments).code == 0
    return run


def told(step, signum, arguments):
    """A training that gets a signal in the middle of a step, and again at its end, in a process of its own."""
    tell_in_step(step, signum)
    sys.argv = ["train", *arguments]
    train.main()


def tell_in_step(step, signum):
    from rankdet.training import loop

    def tell(training, *rest, step_of=loop.backpropagate):
        parts = step_of(training, *rest)
        if training.step == step - 1:
            os.kill(os.getpid(), signum)
            os.kill(os.getpid(), signum)
        return parts

    loop.backpropagate = tell


def steps(run):
    return [int(path.stem.removeprefix("step-")) for path in list_checkpoints(run.directory / "checkpoints")]


@pytest.mark.full
def test_at_the_last_step_and_in_evaluation_it_ends_at_once(unbroken, tmp_path):
    """The last checkpoint is there; what is lost is an evaluation."""
    run = Run(tmp_path, "runtime.checkpoint_every=100")
    assert tiny.in_child(told, 16, signal.SIGTERM, run.arguments) == STOPPED
    assert steps(run) == [16]
    assert not (run.directory / "weights.pt").exists()
    assert tiny.in_child(told_in_evaluation, run.arguments) == STOPPED
    assert tiny.call(train.main, run.arguments).code == 0
    assert_same(run, unbroken)


def told_in_evaluation(arguments):
    def tell(*_):
        os.kill(os.getpid(), signal.SIGUSR1)
        raise AssertionError("still here")

    train.assess = tell
    sys.argv = ["train", *arguments]
    train.main()


@pytest.mark.full
def test_workers_of_the_loader_let_the_step_be_finished(tmp_path):
    """SIGTERM to the whole group, as queues send it, would kill them and with them the training."""
    arguments = Run(tmp_path, "runtime.num_workers=2", "runtime.checkpoint_every=100").arguments
    assert tiny.in_child(told_as_a_group, arguments) == STOPPED


def told_as_a_group(arguments):
    from rankdet.training import loop

    os.setpgrp()

    def tell(training, *rest, step_of=loop.backpropagate):
        if training.step == 3:
            os.killpg(0, signal.SIGTERM)
            time.sleep(0.5)  # for dying workers to be noticed
        return step_of(training, *rest)

    loop.backpropagate = tell
    sys.argv = ["train", *arguments]
    train.main()


def second_is_told(rank, port, arguments):
    """One of two processes, of which only the second gets the signal."""
    if rank == 1:
        tell_in_step(5, signal.SIGTERM)
    one_of_two(rank, port, arguments)


@pytest.mark.full
def test_all_processes_stop_at_the_same_step(tmp_path):
    """Told in step 5, at whose end the second process leaves a note, both stop after step 7, and go on from there."""
    run = Run(tmp_path, "gpus=2", "runtime.checkpoint_every=100", "splits.monitor=null")
    tiny.by_two(second_is_told, run.arguments, codes=[STOPPED, 0])
    assert steps(run) == [7]
    content = torch.load(list_checkpoints(run.directory / "checkpoints")[0], weights_only=False)
    assert content["step"] == 7
    assert len(content["processes"]) == 2


@pytest.mark.full
def test_each_process_goes_on_with_what_its_loss_remembers(tmp_path):
    """GHM-C's counts are of a process's own images: they differ, and with them the broken run has the other's bits."""
    settings = ("gpus=2", "loss=ghm_c", "runtime.checkpoint_every=100", "splits.monitor=null")
    whole, broken = (Run(tmp_path / name, *settings) for name in ("whole", "broken"))
    tiny.by_two(one_of_two, whole.arguments)
    tiny.by_two(second_is_told, broken.arguments, codes=[STOPPED, 0])
    (content,) = (torch.load(path, weights_only=False) for path in list_checkpoints(broken.directory / "checkpoints"))
    first, second = (process["criteria"][0] for process in content["processes"])
    assert any(not torch.equal(value, second[key]) for key, value in first.items())
    tiny.by_two(one_of_two, broken.arguments)
    assert_same(broken, whole)


@pytest.mark.full
def test_under_torchrun(tmp_path):
    """SIGUSR1 to torchrun alone: it hands it on, and ends with the training's own code; the same command finishes."""
    run = Run(tmp_path, "gpus=2", "schedule.length=160", "runtime.checkpoint_every=100", "splits.monitor=null")
    process = tiny.start("train", run.arguments, ranks=2)
    try:
        log = run.directory / "log.jsonl"
        deadline = time.monotonic() + 120
        while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == STOPPED, err
    assert "Traceback" not in err
    assert err.count("stopped by SIGUSR1; the same command continues") == 1
    (step,) = steps(run)
    assert 2 <= step < 40
    done = tiny.command("train", run.arguments, ranks=2)
    assert done.code == 0, done.err
    assert f"continuing at step {step}" in done.err
    assert (run.directory / "record.json").exists()


class TestStop:
    """The request itself."""

    def test_one_process_answers_after_its_step(self):
        stop = Stop(HERE)
        with pytest.raises(SystemExit) as left, stop.noted():
            assert not stop.after(1)
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop.after(2)
        assert left.value.code == STOPPED

    def test_handlers_are_as_they_were(self):
        before = [signal.getsignal(signum) for signum in SIGNALS]
        stop = Stop(HERE)
        with stop.obeyed(), stop.noted():
            assert all(signal.getsignal(signum) not in before for signum in SIGNALS)
        assert [signal.getsignal(signum) for signum in SIGNALS] == before

    def test_who_handled_it_before_has_the_last_word(self, monkeypatch, capsys):
        """submitit's handler puts a job back into the queue, and then exits its own way."""
        handled = []

        def requeue(signum, _):
            handled.append(signum)
            sys.exit(255)

        monkeypatch.setattr(module.signal, "getsignal", lambda signum: requeue)
        stop = Stop(HERE)
        with pytest.raises(SystemExit) as left, stop.obeyed():
            os.kill(os.getpid(), signal.SIGUSR2)
        assert (left.value.code, handled) == (255, [signal.SIGUSR2])
        assert capsys.readouterr().err == "stopped by SIGUSR2; the same command continues\n"
