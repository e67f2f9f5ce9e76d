"""GPUs dealt out to trainings, on a machine that has none."""

import pytest
import torch
from test_results_queue import DONE, job, run

from rankdet.errors import UserError
from rankdet.results.gpus import shares, visible_gpus


@pytest.mark.parametrize(("named", "found"), [(None, ["0", "1", "2"]), ("4,6,7", ["4", "6", "7"]), ("", [])])
def test_those_that_can_be_used(monkeypatch, named, found):
    """By the names that CUDA_VISIBLE_DEVICES gives them, which count from 0 only where it is not set."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == found


@pytest.mark.parametrize(
    ("visible", "gpus", "jobs", "expected"),
    [
        ("", 0, 2, []),
        ("5", 0, 2, ["5", "5"]),
        ("5,6", 0, 3, ["5", "6", "5"]),
        ("5,6", 1, 2, ["5", "6"]),
        ("0,1,2,3,4", 2, 2, ["0,1", "2,3"]),
    ],
)
def test_shares(visible, gpus, jobs, expected):
    """Two trainings share a GPU only where GPUS=0 leaves it open."""
    assert shares(visible.split(",") if visible else [], gpus, jobs) == expected


@pytest.mark.parametrize(
    ("visible", "gpus", "jobs", "message"),
    [
        ("0", 1, 2, "need 2 GPUs, 1 can be used: set JOBS=1, or GPUS=0 to let trainings share a GPU$"),
        ("0,1,2", 2, 2, "need 4 GPUs, 3 can be used: set JOBS=1$"),
        ("0,1", 8, 1, "need 8 GPUs, 2 can be used: set GPUS=2$"),
        ("", 1, 1, "need 1 GPUs, 0 can be used: leave GPUS out$"),
    ],
)
def test_too_few(visible, gpus, jobs, message):
    with pytest.raises(UserError, match=message):
        shares(visible.split(",") if visible else [], gpus, jobs)


def test_each_training_has_its_own_and_gives_it_back(tmp_path):
    """Six jobs, two at a time: each notes its GPUs while it has them, and finds nobody else's note."""
    program = f"""
import os, time, pathlib
mark = pathlib.Path('..', 'has-' + os.environ['CUDA_VISIBLE_DEVICES']); mark.touch(exist_ok=False)
time.sleep(0.1)
print(os.environ['CUDA_VISIBLE_DEVICES'])
mark.unlink()
{DONE}"""
    jobs = [job(tmp_path, program if i != 1 else "raise SystemExit(1)", f"job{i}") for i in range(6)]
    failures, _ = run(jobs, 2, tmp_path, gpus=["0,1", "2,3"])
    assert [failure.job.name for failure in failures] == ["job1"]
    seen = [(item.directory / "log.txt").read_text().strip() for item in jobs if item.name != "job1"]
    assert set(seen) == {"0,1", "2,3"}
