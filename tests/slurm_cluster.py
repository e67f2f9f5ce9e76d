"""A Slurm of one node that a test starts in a folder of its own, and stops."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest
import tiny

CONF = """
ClusterName=rankdet
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=4
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """What is missing here for a Slurm of one's own; None: nothing."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name, path=_path()) is None]
    if missing:
        return f"needs {', '.join(missing)}: apt-get install slurm-wlm munge"
    if os.getuid():
        return "needs root, to start Slurm's daemons"
    try:
        import hydra_plugins.hydra_submitit_launcher  # noqa: F401
    except ImportError:
        return "needs submitit: pip install -e '.[slurm]'"
    return None


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Within it SLURM_CONF is that of a running Slurm, whose files are in folder: absolute, and short for a socket."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    names = {"host": host, "folder": folder, "cpus": os.cpu_count()}
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(controller=tiny.free_port(), node=tiny.free_port(), **names))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    munge = [f"--key-file={key}", f"--socket={folder}/munge.socket", f"--log-file={folder}/munge.log"]
    munge += [f"--pid-file={folder}/munge.pid", f"--seed-file={folder}/munge.seed", "--force", "--foreground"]
    with mock.patch.dict(os.environ, {"SLURM_CONF": str(conf), "PATH": _path()}), ExitStack() as running:
        for line in (["munged", *munge], ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            running.enter_context(_daemon(line, folder / f"{line[0]}.out"))
        _wait_for(lambda: "idle" in _said(["sinfo", "--noheader", "--format=%T"]), folder)
        try:
            yield
        finally:
            _said(["scancel", "--full", "--signal=KILL", "--user=root"])
            _said(["scancel", "--user=root"])


def jobs() -> dict[str, str]:
    """Id -> state of the jobs that are not over."""
    lines = _said(["squeue", "--noheader", "--array", "--format=%i %T"]).splitlines()
    return dict(line.split() for line in lines)


@contextmanager
def _daemon(line: list[str], log: Path) -> Iterator[None]:
    with log.open("w") as file:
        process = subprocess.Popen(line, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _said(line: list[str]) -> str:
    return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False).stdout


def _wait_for(condition: "callable", folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in folder.glob("*.out"))
            pytest.fail(f"Slurm did not start:\n{logs}")
        time.sleep(0.2)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"
