"""runtime.compile and runtime.channels_last: the same training, resumed, with images of many sizes, by two processes.

The compiler's back end is Python here (backend="eager"): its graphs are the real ones, and their bits the plain run's.
"""

from functools import partial
from unittest import mock

import pytest
import tiny
import torch
from test_train_distributed import one_of_two
from torch import nn

from rankdet import train
from rankdet.config import compose, config_hash, run_directory
from rankdet.errors import UserError
from rankdet.training.compiled import compiled

SHORT = ("schedule.length=16", "schedule.milestones=[]", "splits.monitor=null", "data.source.num_test=2")
IN_PYTHON = partial(torch.compile, backend="eager")


class Counted(nn.Module):
    """A stand-in for what the compiler makes: the model itself, its calls counted."""

    def __init__(self, model, calls):
        super().__init__()
        self.model, self.calls = model, calls

    def forward(self, images):
        self.calls.append(torch.is_grad_enabled())
        return self.model(images)


def weights(directory):
    return torch.load(directory / "weights.pt")["model"]


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []


def test_training_goes_through_it_and_evaluation_does_not(tmp_path, monkeypatch):
    """Four steps are four calls of the compiled model, of which a run's files know nothing; broken off, it goes on."""
    calls = []
    counted = lambda model: Counted(model, calls) if isinstance(model, nn.Module) else model  # noqa: E731
    monkeypatch.setattr(torch, "compile", counted)
    arguments = tiny.overrides(tmp_path, *SHORT)
    run = run_directory(compose(arguments))
    assert tiny.call(train.main, [*arguments, "runtime.compile=true"]).code == 0
    assert calls == [True] * 4
    first = weights(run)
    assert not any("Counted" in name or name.startswith("model.") for name in first)
    for path in (run / "record.json", run / "checkpoints" / "step-00000004.pt"):
        path.unlink()
    done = tiny.call(train.main, arguments)
    assert len(calls) == 4
    assert "begun with runtime.compile=True, continued with False: other bits" in done.err
    assert_same(first, weights(run))  # the stand-in's bits are the plain ones


def test_how_is_no_part_of_what(tmp_path):
    same = compose(["runtime.compile=true", "runtime.channels_last=false"])
    assert config_hash(same) == config_hash(compose([]))


@pytest.mark.parametrize(
    "override", ["runtime.compile=1", "runtime.compile=reduce-overhead", "runtime.channels_last=null"]
)
def test_neither_true_nor_false(override):
    key, _, value = override.partition("=")
    value = "None" if value == "null" else value
    with pytest.raises(UserError, match=rf"{key}={value}: must be true or false"):
        compose([override])


def test_a_machine_that_cannot_compile_is_told_so(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler\nlong story")

    monkeypatch.setattr(torch, "compile", broken)
    done = tiny.call(train.main, tiny.overrides(tmp_path, *SHORT, "runtime.compile=true"))
    assert done.code == 2
    assert done.err == (
        "error: runtime.compile=true: torch.compile does not work on this machine (no compiler); "
        "set runtime.compile=false\n"
    )


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_layout(tmp_path, channels_last, monkeypatch):
    """Weights of convolutions lie as the setting says, and a run ends well either way."""
    seen = []
    monkeypatch.setattr(train.Run, "to_the_end", lambda run, stop: seen.append(run.detector.model))
    done = tiny.call(train.main, tiny.overrides(tmp_path, f"runtime.channels_last={str(channels_last).lower()}"))
    assert done.code == 0, done.err
    weight = next(p for p in seen[0].parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert weight.is_contiguous() != channels_last


@pytest.mark.full
def test_a_real_back_end():
    """A model of one layer, by the compiler that a run uses: outputs and gradients but for rounding."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    fast = compiled(model, torch.device("cpu"))
    for size in (8, 12):
        images = torch.randn(2, 3, size, size)
        gradients = []
        for each in (model, fast):
            model.zero_grad()
            each(images).square().sum().backward()
            gradients.append(model[0].weight.grad.clone())
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
    assert fast is not model
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]


@pytest.mark.full
def test_graphs_of_many_sizes_and_in_micro_batches_give_a_plain_run_s_bits(tmp_path):
    """Sizes drawn for every image; two passes, of which one has no graph; broken off and continued."""
    jitter = ["augment=short_side_jitter_mini", "augment.shorter=[48,64,80]", "micro_batch=2"]
    plain, ours = (tiny.overrides(tmp_path / name, *SHORT, *jitter) for name in ("plain", "ours"))
    assert tiny.call(train.main, plain).code == 0
    run = run_directory(compose(ours))
    torch._dynamo.reset()
    with mock.patch.object(torch, "compile", IN_PYTHON):
        ours.append("runtime.compile=true")
        assert tiny.call(train.main, ours).code == 0
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
        assert not torch._dynamo.utils.counters["graph_break"]
        for path in (run / "record.json", run / "checkpoints" / "step-00000004.pt"):
            path.unlink()
        done = tiny.call(train.main, ours)
    assert "continuing at step 2" in done.err
    assert_same(weights(run), weights(run_directory(compose(plain))))


def one_of_two_in_python(rank, port, arguments):
    """A process of two whose compiler's back end is Python."""
    with mock.patch.object(torch, "compile", IN_PYTHON):
        one_of_two(rank, port, arguments)


@pytest.mark.full
def test_by_two_processes(tmp_path):
    """The bits of two without."""
    found = []
    for function, setting in ((one_of_two, "false"), (one_of_two_in_python, "true")):
        short = ["schedule.length=8", *SHORT[1:], "gpus=2", "data.image_size=[48,64]", f"runtime.compile={setting}"]
        arguments = tiny.overrides(tmp_path / setting, *short)
        tiny.by_two(function, arguments)
        found.append(weights(run_directory(compose(arguments))))
    assert_same(*found)
