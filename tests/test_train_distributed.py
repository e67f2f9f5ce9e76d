"""Two gloo processes under torchrun: one training, each image evaluated once, and ranks that see no object."""

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tiny
import torch

from rankdet import evaluate, train
from rankdet.build import build_dataset, make, open_source
from rankdet.config import compose, run_directory
from rankdet.data.loader import TrainBatches, train_loader
from rankdet.errors import UserError
from rankdet.training import distributed
from rankdet.training.distributed import World, choose_device, world


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """A VOC folder of 8 training images, all objects in 3 of them, and 17 to test on; drawn, then emptied.

    17: evaluated in batches of 8, 8 and 1 by one process, of 8 and 1 beside 8 by two. So image 16 is alone in both, and
    each image goes through the same kernels, which for other batch sizes may differ in the last bit.
    """
    folder = tmp_path_factory.mktemp("sparse")
    source = make(compose(tiny.overrides(folder, "data.source.num_train=8", "data.source.num_test=17")).data.source)
    source.read("train")
    root = folder / "Sparse"
    source.folder.rename(root)
    for path in sorted((root / "Annotations").glob("train_*.xml"))[3:]:
        tree = ElementTree.parse(path)
        for item in tree.findall("object"):
            tree.getroot().remove(item)
        tree.write(path)
    return root


class Run:
    """A tiny training on the sparse folder by so many processes."""

    def __init__(self, folder: Path, root: Path, ranks: int, *more: str) -> None:
        self.arguments = tiny.voc(folder, root, f"gpus={0 if ranks == 1 else ranks}", *more)
        self.directory = run_directory(compose(self.arguments))

    def files(self):
        """Names of what it left; event files without their time and process."""
        paths = [path.relative_to(self.directory) for path in self.directory.rglob("*.*")]
        return sorted(str(path.with_name(path.name.split(".out.tf")[0])) for path in paths)

    def record(self):
        return json.loads((self.directory / "record.json").read_text())

    def detections(self):
        return (self.directory / "evaluation" / "test" / "detections.json").read_bytes()


@pytest.fixture(scope="module")
def two(sparse, tmp_path_factory):
    """A run by two processes, the real command."""
    run = Run(tmp_path_factory.mktemp("two"), sparse, 2)
    run.done = tiny.command("train", run.arguments, ranks=2)
    assert run.done.code == 0, run.done.err
    return run


def ranks_without_objects(run):
    """(step, rank) whose images hold no object."""
    cfg = compose(run.arguments)
    records = open_source(cfg).read("train").records
    found = []
    for rank in range(2):
        batches = TrainBatches(len(records), cfg.batch_size, cfg.seed, tiny.STEPS, 0, rank, 2)
        found += [(s, rank) for s, keys in enumerate(batches) if not any(len(records[i].boxes) for _, i in keys)]
    return found


class TestTwoProcesses:
    """The same as one process, shared out."""

    def test_leave_the_same_files_as_one(self, two, sparse, tmp_path):
        one = Run(tmp_path, sparse, 1)
        assert tiny.call(train.main, one.arguments).code == 0
        assert two.files() == one.files()
        ours, theirs = two.record(), one.record()
        assert (ours.pop("world_size"), theirs.pop("world_size")) == (2, 1)
        assert ours.keys() == theirs.keys()
        assert ours["metrics"].keys() == theirs["metrics"].keys()
        assert (ours["steps"], ours["image_passes"]) == (theirs["steps"], theirs["image_passes"]) == (16, 64)
        assert two.directory.name == one.directory.name
        assert two.directory.parent.name != one.directory.parent.name  # which scores are ranked together differs

    def test_say_everything_once(self, two):
        lines = two.done.err.splitlines()
        assert sum("images/s" in line for line in lines) == 8
        assert sum(line.startswith("run ") for line in lines) == 1
        assert "Traceback" not in two.done.err

    def test_a_rank_without_objects_does_no_harm(self, two):
        """Some steps have one rank with nothing but empty images, some have two."""
        empty = ranks_without_objects(two)
        steps = [step for step, _ in empty]
        assert {steps.count(step) for step in steps} == {1, 2}
        entries = [json.loads(line) for line in (two.directory / "log.jsonl").read_text().splitlines()]
        assert [e["step"] for e in entries if "train/loss" in e] == list(range(2, 17, 2))
        weights = torch.load(two.directory / "weights.pt")["model"]
        assert all(bool(value.isfinite().all()) for value in weights.values())

    def test_evaluate_as_one_does(self, two, tmp_path):
        """9 and 8 images: the same detections from the same weights, byte for byte, and so the same metrics."""
        output = tmp_path / "by one"
        done = tiny.call(evaluate.main, [f"run={two.directory}", "device=cpu", f"output={output}"])
        assert done.code == 0
        assert (output / "detections.json").read_bytes() == two.detections()
        assert json.loads((output / "metrics.json").read_text()) == two.record()["metrics"]
        images = {d["image_id"] for d in json.loads(two.detections())}
        assert images == set(range(17))

    def test_a_finished_run_is_left_alone(self, two, monkeypatch):
        """Rank 0 says so; here, where there is no other rank, to a config of two."""
        before = two.record()
        monkeypatch.setattr(train, "world", lambda *_: world("cpu", 1))
        assert tiny.call(train.main, two.arguments).out == f"{two.directory}: finished already\n"
        assert two.record() == before


def one_of_two(rank, port, arguments):
    """A training as torchrun would start it, on one of two ranks."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in place.items()})
    sys.argv = ["train", *arguments]
    train.main()


def test_a_step_of_two_takes_the_mean_of_their_gradients(sparse, tmp_path):
    """One step against the two shares' gradients, each with its own batch statistics, added up and halved here."""
    short = ["schedule.length=4", "schedule.milestones=[]", "splits.monitor=null", "optimizer=sgd", "batch_size=4"]
    run = Run(tmp_path, sparse, 2, *short, "loss=ce_ohem", "schedule.lr=0.5", "schedule.warmup_steps=0")
    tiny.by_two(one_of_two, run.arguments)

    cfg = compose(run.arguments)
    alone = train.Run(cfg, tmp_path / "alone", World(0, 1, torch.device("cpu")))
    model = alone.detector.model
    before = flat(model)
    dataset = build_dataset(cfg, alone.train_set, training=True)
    objects = []
    for rank in range(2):
        (batch,) = train_loader(dataset, 4, 1, 0, rank, 2)
        objects.append(sum(len(target.boxes) for target in batch.targets))
        loss = alone.detector.last.loss(alone.detector.assign(model.train()(batch.images), batch.targets))
        (loss.total / 2).backward()
    alone.training.optimizer.step()
    expected = flat(model)
    model.load_state_dict(torch.load(run.directory / "weights.pt")["model"])
    found = flat(model)
    assert sorted(map(bool, objects)) == [False, True]  # what one of them had to wait for
    assert float((expected - before).norm()) > 0.01
    torch.testing.assert_close(found - before, expected - before, rtol=1e-3, atol=1e-6)


def flat(model):
    """All parameters in one vector."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


TWO_FOR_ONE = (
    "error: 2 processes were started but the config asks for 1: set runtime.split=2, or gpus=2 for a run in which each "
    "ranks its own images\n"
)


def test_gpus_wait_longer_for_each_other_than_by_default(monkeypatch):
    """The first process measures a whole split while the others wait in a barrier: nccl's 10 minutes are no limit."""
    met = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "choose_device", lambda *_: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    store = torch.distributed.HashStore()
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda _: iter([(store, 0, 2)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *given, **named: met.update(named))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with world("cuda", 2) as here:
        assert (here.rank, here.size) == (0, 2)
    assert met["timeout"] >= timedelta(hours=1)


class TestMismatch:
    """Another number of processes than the config asks for would rank other scores together."""

    def test_one_process_for_a_config_of_two(self, sparse, tmp_path):
        done = tiny.call(train.main, tiny.voc(tmp_path, sparse, "gpus=2"))
        assert done == (
            2,
            "",
            "error: 1 processes were started but the config asks for 2: launch with torchrun --nproc-per-node=2 "
            "-m rankdet.train\n",
        )
        assert not (tmp_path / "runs").exists()

    def test_two_processes_for_a_config_of_one(self, sparse, tmp_path, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        done = tiny.call(train.main, tiny.voc(tmp_path, sparse))
        assert done == (2, "", TWO_FOR_ONE)
        assert not (tmp_path / "runs").exists()

    def test_a_batch_that_cannot_be_shared(self, sparse, tmp_path, monkeypatch):
        with pytest.raises(UserError, match=r"batch_size=3 cannot be split evenly over 2 processes"):
            TrainBatches(8, 3, 0, world_size=2)

    @pytest.mark.full
    def test_under_torchrun(self, sparse, tmp_path):
        done = tiny.command("train", tiny.voc(tmp_path, sparse), ranks=2)
        assert done.code != 0
        assert TWO_FOR_ONE in done.err
        assert "rankdet/train.py" not in done.err
        assert not (tmp_path / "runs").exists()


class TestDevice:
    """Which device a process takes."""

    def test_the_cpu_where_asked_for(self):
        assert choose_device("cpu", 3) == torch.device("cpu")

    def test_a_gpu_that_is_not_there(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(UserError, match=r"runtime\.device=cuda: this machine has no usable GPU"):
            choose_device("cuda")

    def test_its_own_gpu_of_several_and_none_beyond(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert choose_device("auto", 1) == torch.device("cuda", 1)
        with pytest.raises(UserError, match=r"3 processes on a machine with 2 GPUs: lower --nproc-per-node"):
            choose_device("cuda", 2)

    def test_another_word(self):
        with pytest.raises(UserError, match=r"runtime\.device=tpu: must be auto, cpu or cuda"):
            choose_device("tpu")


@pytest.mark.full
def test_two_processes_evaluate_a_run_of_one(two, sparse, tmp_path):
    """By the real command."""
    run = Run(tmp_path, sparse, 1)
    assert tiny.call(train.main, run.arguments).code == 0
    output = tmp_path / "by two"
    done = tiny.command("evaluate", [f"run={run.directory}", "device=cpu", f"output={output}"], ranks=2)
    assert done.code == 0, done.err
    assert (output / "detections.json").read_bytes() == run.detections()
    assert json.loads((output / "metrics.json").read_text()) == run.record()["metrics"]
    assert done.out.count("written to") == 1


@pytest.mark.full
def test_a_rank_killed_and_the_job_started_again(two, sparse, tmp_path):
    """kill -9 of the second process ends the job; the same command ends with the unbroken job's bits."""
    run = Run(tmp_path, sparse, 2)
    process = tiny.start("train", run.arguments, ranks=2)
    try:
        deadline = time.monotonic() + 120
        while not (run.directory / "checkpoints" / "step-00000004.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(workers(process.pid)[-1], signal.SIGKILL)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert not (run.directory / "record.json").exists()
    done = tiny.command("train", run.arguments, ranks=2)
    assert done.code == 0, done.err
    assert "continuing at step" in done.err
    ours, theirs = (torch.load(r.directory / "weights.pt")["model"] for r in (run, two))
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert run.detections() == two.detections()
    assert run.record()["metrics"] == two.record()["metrics"]


def workers(pid):
    """The processes that torchrun started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [int(child) for child in children if b"rankdet.train" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(found) == 2
    return found
