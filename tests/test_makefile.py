"""What make hands to the scripts: every target's command line is one that its script takes."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from rankdet.search.__main__ import main as search

if shutil.which("make") is None:
    pytest.skip("needs make", allow_module_level=True)


@pytest.fixture(scope="module")
def handed(repo, tmp_path_factory):
    """(target, settings) -> the script that make would start, and its arguments; nothing is started or installed."""
    environment = tmp_path_factory.mktemp("venv")
    (environment / "bin").mkdir()
    (environment / ".installed").touch()

    outside = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}  # we may be run by make

    def read(*goal):
        line = ["make", "--dry-run", f"VENV={environment}", *goal]
        said = subprocess.run(line, cwd=repo, env=outside, capture_output=True, text=True, check=True).stdout
        name, arguments = re.search(r"(?:scripts/|-m rankdet\.)(\w+)(?:\.py)? (.*?)(?:\) &&.*)?$", said).groups()
        return name, shlex.split(arguments)

    return read


@pytest.mark.parametrize(
    ("target", "script"),
    [
        ("reproduce-table-1", "reproduce"), ("reproduce-alrp-figure-3", "figure"), ("reproduce-all", "all"),
        ("reproduce-all-losses", "reproduce"), ("plan", "plan"), ("status", "status"), ("tensorboard", "board"),
    ],
)  # fmt: skip
def test_the_scripts_take_what_make_hands_them(handed, front_end, repo, capsys, target, script):
    """With every variable set; it is the protocol that then stops them, and not an argument that they do not know."""
    name, arguments = handed(target, "PROTOCOL=none", "JOBS=3", "GPUS=1", "SEED=1", "ARGS=loss.delta=0.5")
    assert name == script
    assert "loss.delta=0.5" in arguments
    assert front_end(name)(arguments, repo) == 2
    assert capsys.readouterr().err.startswith("error: PROTOCOL=none: no such protocol; there are ")


@pytest.mark.parametrize(
    ("target", "script", "told"),
    [
        ("tune", "tune", "PROTOCOL=none: the grid in "),
        ("search-pap", "search", "PROTOCOL=none: searches are described for "),
        ("compare-search-pap", "compare_search", "PROTOCOL=none: searches are compared under mini"),
    ],
)  # fmt: skip
def test_searches_and_tuning_are_told_where_to_run(handed, front_end, repo, capsys, target, script, told):
    """On Slurm or on GPUs, as tables are."""
    name, arguments = handed(target, "PROTOCOL=none", "JOBS=3", "GPUS=1", "LAUNCHER=slurm", "SLURM=partition=gpu")
    assert name == script
    main = search if script == "search" else front_end(script)
    assert main(arguments, repo) == 2
    assert capsys.readouterr().err.startswith(f"error: {told}")


def test_a_tuning_s_trainings_are_of_one_process(handed, front_end, repo, capsys):
    """As they train batch norm."""
    name, arguments = handed("tune", "GPUS=2", "JOBS=1")
    assert front_end(name)(arguments, repo) == 2
    assert "error: GPUS=2 NODES=1: these small detectors train batch norm" in capsys.readouterr().err


def test_numbers_of_a_server_are_told_from_make_s_own_variables(handed):
    """Only AP50 is a column of the table; settings with blanks come whole."""
    own = ["PROTOCOL=paper", "JOBS=1", "GPUS=2", "DATA=", "PAPER=alrp", "ARGS=gpus=2 batch_size=16", "SLURM=a=b c=d"]
    name, arguments = handed("enter-result", "TABLE=6", "ROW=r", "SEED=2", *own, "AP50=83.1")
    assert name == "enter_result"
    options = ["--seed", "2", "--paper", "alrp", "--data", "", "--overrides", "gpus=2 batch_size=16"]
    assert arguments == ["table-6", "r", *options, "AP50=83.1"]
