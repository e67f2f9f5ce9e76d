"""Two processes that rank together: the gradient, and so the weights, of one process that has all images."""

import os
import subprocess
import sys

import pytest
import tiny
import torch
from test_train_distributed import flat, one_of_two

from rankdet import train
from rankdet.build import build_detector
from rankdet.config import compose, run_directory
from rankdet.data.augment import Padding
from rankdet.data.loader import collate
from rankdet.data.records import Target
from rankdet.training.checkpoint import list_checkpoints
from rankdet.training.distributed import World
from rankdet.training.split import drawn_alike, padded_alike

SHORT = ["schedule.length=12", "schedule.milestones=[]", "splits.monitor=null", "optimizer=sgd", "schedule.lr=0.5"]
SETTINGS = [*SHORT, "schedule.warmup_steps=0", "model.backbone.norm=gn"]
PADDED = ("augment=short_side_jitter_mini", "test_input=keep_aspect")  # each process's images have a size of their own


def weights(arguments):
    return torch.load(run_directory(compose(arguments)) / "weights.pt")["model"]


@pytest.mark.full
@pytest.mark.parametrize(
    ("loss", "input_settings"), [("ap", ()), ("focal", PADDED), pytest.param("focal", (), marks=pytest.mark.stress)]
)
def test_the_same_run(tmp_path, loss, input_settings):
    """Three steps of 4 images by gloo against one process: one ranks, and one is a sum over the positives' number.

    Each process on its own, gpus=2, ends elsewhere: 100 times as far from it.
    """
    arguments = tiny.overrides(tmp_path, *SETTINGS, f"loss={loss}", *input_settings)
    ended = []
    for more in ([], ["runtime.split=2"], ["gpus=2"]):
        own = [*arguments, *more, f"runtime.runs={tmp_path}/runs-{len(ended)}"]
        own.remove(f"runtime.runs={tmp_path}/runs")
        if more:
            tiny.by_two(one_of_two, own)
        else:
            assert tiny.call(train.main, own).code == 0
        ended.append((run_directory(compose(own)), weights(own)))
    (one, alone), (other, split), (third, apart) = ended
    assert one.parts[-2:] == other.parts[-2:] != third.parts[-2:]
    cfg = compose(arguments)
    torch.manual_seed(cfg.seed)
    model = build_detector(cfg, 6).model
    start = flat(model)

    def moved(state):
        model.load_state_dict(state)
        return (flat(model) - start).double()

    way = moved(alone)
    off = float((moved(split) - way).norm() / way.norm())
    assert off < 1e-3
    assert float((moved(apart) - way).norm() / way.norm()) > 100 * off


class OneOfTwo(World):
    """A process beside one whose inputs have the size that it is told."""

    def gather(self, value):
        return [value, self.store]


def test_inputs_are_padded_to_the_largest_of_all_processes():
    """Two processes, one with a wide and one with a high image, see what one with both would, 64 x 96; where the other
    one's are as large, a batch stays as it is."""
    padding = Padding(32, (10, 20, 30))
    none = torch.zeros(0)
    samples = [
        (torch.randint(0, 256, (3, *size), dtype=torch.uint8), Target(none, none, none, i, size))
        for i, size in enumerate([(32, 96), (64, 40)])
    ]
    together = collate(samples, padding)
    own = [collate([sample], padding) for sample in samples]
    sizes = [tuple(batch.images.shape[2:]) for batch in own]
    assert sizes == [(32, 96), (64, 64)]
    for i, batch in enumerate(own):
        here = OneOfTwo(i, 2, torch.device("cpu"), sizes[1 - i])
        (found,) = padded_alike([batch], padding.fill, here)
        assert torch.equal(found.images, together.images[i : i + 1])
        assert found.targets == together.targets[i : i + 1]
        (alone,) = padded_alike([batch], padding.fill, OneOfTwo(i, 2, torch.device("cpu"), sizes[i]))
        assert alone.images is batch.images and alone.targets is batch.targets


def test_batch_norm_that_is_trained_is_refused(tmp_path, monkeypatch):
    """Before anything is begun: it would be another run."""
    monkeypatch.setattr(train, "world", lambda *_: train.nullcontext(train.World(0, 1, torch.device("cpu"))))
    done = tiny.call(train.main, tiny.overrides(tmp_path, "runtime.split=2"))
    assert done.code == 2
    assert done.err.startswith("error: runtime.split: batch norm that is trained")
    assert "GPUS=1 JOBS=<n>" in done.err


@pytest.mark.parametrize("settings", [["gpus=2"], ["runtime.split=2"], ["runtime.split=2", "sampler=random"]])
def test_what_each_process_draws(tmp_path, monkeypatch, settings):
    """Weights start alike, drop-out does not."""
    monkeypatch.setattr(train, "DistributedDataParallel", lambda model, **_: model)
    cfg = compose(tiny.overrides(tmp_path, "model.backbone.norm=gn", *settings))
    weights, drawn = [], []
    for rank in range(2):
        run = train.Run(cfg, tmp_path / "run", World(rank, 2, torch.device("cpu")))
        weights.append(flat(run.detector.model))
        drawn.append(torch.rand(3))
    assert torch.equal(*weights)
    assert not torch.equal(*drawn)


def test_a_sampler_draws_alike_in_all_processes(monkeypatch):
    """However many numbers each drew for its own images, as Faster R-CNN's second stage does; after it each goes on
    with its own."""
    within, after, alone = [], [], []
    told = []  # what the first process tells all
    monkeypatch.setattr(World, "broadcast", lambda _, seed: told.append(seed) or told[0])
    for rank in range(2):
        here = World(rank, 2, torch.device("cpu"))
        torch.manual_seed(5 + rank)
        torch.randperm(10 + rank)
        state = torch.get_rng_state()
        with drawn_alike(here):
            within.append(torch.rand(3))
        after.append(torch.rand(3))
        torch.set_rng_state(state)
        torch.randint(2**62, ())
        alone.append(torch.rand(3))
    assert told[0] != told[1]
    assert torch.equal(*within)
    assert not torch.equal(*after)
    assert all(torch.equal(*pair) for pair in zip(after, alone, strict=True))


def test_of_two_ways_one(tmp_path):
    done = tiny.call(train.main, tiny.overrides(tmp_path, "runtime.split=2", "gpus=2"))
    assert done == (2, "", "error: gpus=2 and runtime.split=2: one of them must be 1\n")


@pytest.mark.parametrize("where", ["loss", "rpn.loss"])
def test_ranking_over_all_processes_is_what_it_does_anyway(tmp_path, where):
    """With both, each score would be ranked once for every process, and tie with itself."""
    detector = ["model=faster_rcnn_quarter", "matching=roi", "rpn=alrp"] if where == "rpn.loss" else ["loss=ap"]
    settings = ["runtime.split=2", *detector, f"{where}.ranking_scope=global"]
    done = tiny.call(train.main, tiny.overrides(tmp_path, *settings))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: loss.ranking_scope=global and runtime.split=2: would rank every score as often")


@pytest.mark.full
def test_two_nodes_go_on_with_the_run_of_one_process(tmp_path):
    """Two torchruns of one process each, that meet on loopback, in a run that one process began."""
    arguments = tiny.overrides(tmp_path, *SETTINGS)
    assert tiny.call(train.main, arguments).code == 0
    run = run_directory(compose(arguments))
    (run / "record.json").unlink()
    (run / "checkpoints" / "step-00000003.pt").unlink()
    assert [path.stem for path in list_checkpoints(run / "checkpoints")] == ["step-00000002"]
    port = tiny.free_port()
    meet = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}"]
    line = [sys.executable, "-m", "rankdet.torchrun", *meet, "--rdzv-id=here", "-m", "rankdet.train", *arguments]
    environment = os.environ | tiny.ENVIRONMENT
    agents = [
        subprocess.Popen([*line, "runtime.split=2"], stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    said = [agent.communicate(timeout=120)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert "begun with runtime.split=1, continued with 2: other bits" in "".join(said)
    assert "continuing at step 2" in "".join(said)
    assert (run / "record.json").stat().st_size > 0
