"""kill -9 at random moments, over and over: a run ends as if nobody had touched it."""

import random
import signal
import subprocess

import pytest
import tiny
from test_train_command import Run, assert_same

from rankdet import train

KILLS = 20
LONGEST = (
    14.0  # seconds until a kill: beyond what a tiny run takes, so that imports, training and evaluation are all hit
)


@pytest.mark.stress
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again(tmp_path_factory, seed):
    unbroken = Run(tmp_path_factory.mktemp("unbroken"))
    assert tiny.call(train.main, unbroken.arguments).code == 0
    draw = random.Random(seed)
    kills = 0
    while kills < KILLS:
        run = Run(tmp_path_factory.mktemp("killed"))
        while kills < KILLS:
            process = tiny.start("train", run.arguments)
            try:
                process.communicate(timeout=draw.uniform(0.5, LONGEST))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
            else:
                assert process.returncode == 0
                break
        assert tiny.command("train", run.arguments).code == 0
        assert_same(run, unbroken)
    assert kills == KILLS
