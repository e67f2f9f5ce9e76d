"""Trainings as jobs of a real Slurm, which the tests start and stop."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import slurm_cluster
import tiny
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from test_train_command import Run, assert_same

from rankdet import train
from rankdet.config import compose, run_directory
from rankdet.errors import UserError
from rankdet.overview.state import standing
from rankdet.results import launch, slurm
from rankdet.results.launch import Hardware, run_all
from rankdet.results.queue import Failure, failure_report
from rankdet.results.runs import make_runs
from rankdet.results.slurm import slurm_launcher
from rankdet.training.codes import BUSY, NOT_FINITE

SLURM = ("timeout_min=30", "cpus_per_task=1", "signal_delay_s=20")


class TestWithout:
    """What is said where Slurm, or the extra, is not there."""

    def test_no_slurm(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        runs = make_runs("row", tuple(tiny.overrides(tmp_path)), (0,), tmp_path)
        with pytest.raises(UserError, match="LAUNCHER=slurm: there is no sbatch on this machine"):
            run_all(runs, 1, Hardware(slurm=()), tmp_path)

    def test_no_extra(self):
        try:
            import hydra_plugins.hydra_submitit_launcher  # noqa: F401
        except ImportError:
            with pytest.raises(UserError, match=r"SLURM: .*submitit_slurm.*pip install -e '\.\[slurm\]'"):
                slurm_launcher([])
        else:
            with pytest.raises(UserError, match=r"SLURM: .*partitoin"):
                slurm_launcher(["partitoin=gpu"])


class TestOutcomes:
    """What becomes of jobs, with a stand-in for Hydra's launcher."""

    @pytest.fixture
    def submit(self, tmp_path, monkeypatch):
        """launch -> submit_all of four seeds, of which seed 0 is finished before, by a launcher with that method."""
        runs = make_runs("row", tuple(tiny.overrides(tmp_path)), (0, 1, 2, 3), tmp_path)
        finish(runs[0])
        monkeypatch.setattr(launch, "which", lambda name: name)

        def submit_by(launch):
            asked = []

            def launcher(settings):
                asked.extend(settings)
                return SimpleNamespace(launch=lambda jobs, initial_job_idx: launch(runs[1:], jobs))

            monkeypatch.setattr(slurm, "slurm_launcher", launcher)
            failures = run_all(runs, 2, Hardware(gpus=2, nodes=2, slurm=("partition=gpu",)), tmp_path)
            assert asked == ["nodes=2", "gpus_per_node=2", "tasks_per_node=2", "partition=gpu", "array_parallelism=2"]
            return failures

        return submit_by

    def test_each_is_told_apart(self, submit, tmp_path):
        """Seed 1 is trained, seed 2 diverges, seed 3 another process has in hand."""

        def launch(runs, jobs):
            assert [job[-3:] for job in jobs] == [
                ["runtime.device=cuda", "runtime.split=4", f"seed={seed}"] for seed in (1, 2, 3)
            ]
            finish(runs[0])
            diverged = FloatingPointError("step 3: the loss is not finite")
            return [ended(1, None), ended(2, diverged), ended(3, None)]

        failures = submit(launch)
        assert [(failure.job.name, failure.code) for failure in failures] == [
            ("row seed 2", NOT_FINITE),
            ("row seed 3", BUSY),
        ]
        report = failure_report(failures)
        assert "exit code 3; runs/slurm/7_2/7_2_0_log.err ends in" in report
        assert "| FloatingPointError: step 3: the loss is not finite" in report
        assert "| another process is training it" in report
        (run,) = make_runs("row", tuple(tiny.overrides(tmp_path)), (2,), tmp_path)
        seen = standing(run, tmp_path)
        assert (seen.state, seen.says) == ("failed", "FloatingPointError: step 3: the loss is not finite")

    def test_the_waiting_is_cut_short(self, submit, capsys):
        def launch(runs, jobs):
            finish(runs[1])
            raise RuntimeError("Job 7_1 (task: 0) has not produced any output")

        failures = submit(launch)
        assert [(failure.job.name, failure.stopped) for failure in failures] == [
            ("row seed 1", True),
            ("row seed 3", True),
        ]
        out = capsys.readouterr().out
        assert "3 of 4 runs go to Slurm, 2 at a time" in out
        assert "no longer waiting for the jobs, which go on if they were begun: Job 7_1" in out


def test_what_starts_from_a_failed_run_is_not_submitted(tmp_path, monkeypatch):
    """Two arrays; of the second, seed 1, which seed 0 should have come before."""
    first, second = make_runs("row", tuple(tiny.overrides(tmp_path)), (0, 1), tmp_path)
    second = replace(second, after=first)
    monkeypatch.setattr(launch, "which", lambda name: name)
    asked = []

    def submit_all(lines, settings, workers, root):
        asked.append([run.seed for run, _ in lines])
        return [Failure(launch.job(run), 1, ("...",)) for run, _ in lines]

    monkeypatch.setattr(launch, "submit_all", submit_all)
    failures = run_all([first, second], 2, Hardware(slurm=()), tmp_path)
    assert asked == [[0], []]
    assert [(failure.job.name, failure.code) for failure in failures] == [("row seed 0", 1), ("row seed 1", None)]
    assert failures[1].tail[0].startswith("not started: it needs ")


def finish(run):
    run.directory.mkdir(parents=True)
    (run.directory / "record.json").write_text("{}")


def ended(index, error):
    """What a job returns."""
    job = JobReturn(hydra_cfg=OmegaConf.create({"hydra": {"job": {"id": f"7_{index}"}}}))
    job.status = JobStatus.FAILED if error else JobStatus.COMPLETED
    job.return_value = error
    return job


@pytest.fixture(scope="module")
def real_slurm():
    """A running one. In a folder of a short name, since a socket's path must be short."""
    reason = slurm_cluster.why_not()
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, slurm_cluster.cluster(Path(folder)):
        yield


@pytest.mark.stress
class TestJobs:
    """The real path: sbatch, srun, submitit, training."""

    def test_an_array_of_runs(self, real_slurm, tmp_path, monkeypatch):
        """Two seeds of one row and one that fails: it is told with its error, and the others are as trained here."""
        monkeypatch.chdir(tmp_path)
        alone = Run(tmp_path / "alone")
        assert tiny.call(train.main, alone.arguments).code == 0
        there = tmp_path / "there"
        runs = make_runs("row", tuple(tiny.overrides(there)), (0, 1), Path("/"))
        bad = make_runs("bad", tuple(tiny.overrides(there, "runtime.device=cuda")), (2,), Path("/"))
        failures = run_all([*runs, *bad], 2, Hardware(slurm=SLURM), tmp_path)
        assert [(failure.job.name, failure.code) for failure in failures] == [("bad seed 2", 1)]
        assert "this machine has no usable GPU" in failures[0].tail[0]
        assert (tmp_path / failures[0].log).is_file()
        assert_same(Run(there), alone)
        assert all(run.finished for run in runs)
        assert run_all(runs, 2, Hardware(slurm=SLURM), tmp_path) == []

    def test_hydras_own_sweep(self, real_slurm, tmp_path, monkeypatch):
        """python -m rankdet.train --multirun hydra/launcher=slurm, also of a training of two processes."""
        monkeypatch.chdir(tmp_path)
        settings = [f"hydra.launcher.{item}" for item in (*SLURM, "tasks_per_node=2")]
        arguments = tiny.overrides(tmp_path, "runtime.split=2", "model.backbone.norm=gn", "splits.monitor=null")
        line = [sys.executable, "-m", "rankdet.train", "--multirun", "hydra/launcher=slurm", *settings, *arguments]
        done = subprocess.run([*line, "seed=0,1"], capture_output=True, text=True, timeout=900, env=tiny_environment())
        assert done.returncode == 0, done.stderr
        for seed in (0, 1):
            run = run_directory(compose([*arguments, f"seed={seed}"]))
            record = json.loads((run / "record.json").read_text())
            assert (record["world_size"], record["seed"]) == (2, seed)

    def test_told_to_stop_it_is_put_back_and_goes_on(self, real_slurm, tmp_path, monkeypatch):
        """What Slurm sends ahead of a time limit, here by scancel: a checkpoint, the queue again, the unbroken bits."""
        monkeypatch.chdir(tmp_path)
        long = ["schedule.length=200", "runtime.checkpoint_every=1000", "splits.monitor=null"]
        alone = Run(tmp_path / "alone", *long)
        assert tiny.call(train.main, alone.arguments).code == 0
        there = Run(tmp_path / "there", *long)
        program = (
            "import sys; from pathlib import Path; from rankdet.results.launch import Hardware, run_all;"
            "from rankdet.results.runs import make_runs;"
            f"runs = make_runs('row', {tuple(there.arguments)!r}, (0,), Path('/'));"
            f"sys.exit(len(run_all(runs, 1, Hardware(slurm={SLURM!r}), Path.cwd())))"
        )
        waiting = subprocess.Popen([sys.executable, "-c", program], env=tiny_environment())
        try:
            deadline = time.monotonic() + 900
            while not (there.file("log.jsonl").exists() and there.log()) and time.monotonic() < deadline:
                time.sleep(0.05)
            (job,) = slurm_cluster.jobs()
            subprocess.run(["scancel", "--signal=USR2", job], check=True)
            assert waiting.wait(timeout=900) == 0
        finally:
            waiting.kill()
        said = "".join(path.read_text() for path in (tmp_path / "runs" / "slurm").rglob("*_log.err"))
        assert "stopped by SIGUSR2; the same command continues" in said
        assert "continuing at step " in said
        assert there.record() == alone.record()
        assert there.detections() == alone.detections()


def tiny_environment():
    return os.environ | tiny.ENVIRONMENT
