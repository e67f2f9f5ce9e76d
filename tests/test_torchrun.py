"""torchrun that hands exit codes on, with small programs for trainings."""

import os
import subprocess
import sys

import pytest
from tiny import ENVIRONMENT

from rankdet.training.codes import NOT_FINITE


def start(folder, program):
    """Two processes of a program."""
    path = folder / "program.py"
    path.write_text("import os, signal, sys, time\nrank = int(os.environ['RANK'])\n" + program)
    torchrun = [sys.executable, "-m", "rankdet.torchrun", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen([*torchrun, path], stderr=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT)


@pytest.mark.full
@pytest.mark.parametrize(
    ("program", "rank", "told", "code"),
    [
        (f"sys.exit({NOT_FINITE} if rank == 1 else 1)", 1, NOT_FINITE, NOT_FINITE),
        ("os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else time.sleep(60)", 1, -9, 137),
    ],
    ids=["the other one's end is a consequence", "killed"],
)
def test_the_code_of_who_was_the_cause(tmp_path, program, rank, told, code):
    process = start(tmp_path, program)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"process {rank} ended with exit code {told}\n" in err
    assert "Traceback" not in err
