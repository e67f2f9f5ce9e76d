"""Checkpoints on the disk, whole or not at all."""

import copy
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from rankdet.training.checkpoint import (
    list_checkpoints,
    load_newest,
    random_state,
    restore_optimizer,
    restore_random_state,
    save_atomically,
    save_checkpoint,
)

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept(tmp_path):
    for step in (2, 4, 6, 10):
        save_checkpoint(tmp_path / "checkpoints", step, {"model": torch.full((3,), float(step))})
    assert names(tmp_path / "checkpoints") == ["step-00000006.pt", "step-00000010.pt"]
    content, warnings = load_newest(tmp_path / "checkpoints")
    assert (content["step"], content["model"].tolist(), warnings) == (10, [10.0] * 3, [])


def test_newest_is_by_step_not_by_time_and_other_files_are_nothing(tmp_path):
    for step in (100, 99):
        save_checkpoint(tmp_path, step, {})
    for name in (".step-00000200.pt.partial", "step-200.pt", "step-00000200.pt.bak"):
        (tmp_path / name).write_bytes(b"half")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000100.pt", "step-00000099.pt"]
    assert load_newest(tmp_path)[0]["step"] == 100


def test_there_may_be_none(tmp_path):
    assert load_newest(tmp_path / "not there") == (None, [])


def test_a_failing_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "weights.pt"
    save_atomically({"x": 1}, path)

    def full_disk(content, file):
        file.write(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(RuntimeError, match="failed writing"):
        save_atomically({"x": 2}, path)
    monkeypatch.undo()
    assert names(tmp_path) == ["weights.pt"]
    assert torch.load(path) == {"x": 1}


def test_the_new_file_takes_the_old_ones_place_at_once(tmp_path):
    """It is not written over: whoever holds the old file, here by a second name, still has it whole."""
    path, held = tmp_path / "weights.pt", tmp_path / "held.pt"
    save_atomically({"x": 1}, path)
    held.hardlink_to(path)
    save_atomically({"x": 2}, path)
    assert (torch.load(held), torch.load(path)) == ({"x": 1}, {"x": 2})


def test_a_failing_checkpoint_removes_no_older_one(tmp_path, monkeypatch):
    for step in (2, 4):
        save_checkpoint(tmp_path, step, {})
    monkeypatch.setattr(torch, "save", lambda content, file: (_ for _ in ()).throw(RuntimeError("disk full")))
    with pytest.raises(RuntimeError, match="disk full"):
        save_checkpoint(tmp_path, 6, {})
    assert names(tmp_path) == ["step-00000002.pt", "step-00000004.pt"]


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage"])
def test_a_broken_newest_is_passed_over_with_a_warning(tmp_path, damage):
    for step in (2, 4):
        save_checkpoint(tmp_path, step, {"model": torch.arange(1000)})
    newest = tmp_path / "step-00000004.pt"
    whole = newest.read_bytes()
    newest.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "garbage": b"x" * len(whole)}[damage])
    content, warnings = load_newest(tmp_path)
    assert content["step"] == 2
    assert len(warnings) == 1
    assert str(newest) in warnings[0]
    assert "unreadable" in warnings[0]
    assert warnings[0].endswith("falling back to the one before it")


def test_all_broken_is_a_start_from_nothing_with_two_warnings(tmp_path):
    for step in (2, 4):
        (tmp_path / f"step-{step:08d}.pt").write_bytes(b"no checkpoint")
    content, warnings = load_newest(tmp_path)
    assert content is None
    assert [warning.rpartition(", ")[2] for warning in warnings] == [
        "falling back to the one before it",
        "starting anew",
    ]


def test_random_generators_go_on_where_they_were(tmp_path):
    """All three, through a file."""
    save_checkpoint(tmp_path, 1, {"random": random_state()})

    def draws():
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    first = draws()
    assert draws() != first
    restore_random_state(load_newest(tmp_path)[0]["random"])
    assert draws() == first


@pytest.mark.parametrize("formats", [LAYOUTS, LAYOUTS[::-1]])
@pytest.mark.parametrize(
    "optimizer", [partial(AdamW, lr=0.01, fused=True), partial(AdamW, lr=0.01), partial(SGD, lr=0.01, momentum=0.9)]
)
def test_an_optimizer_goes_on_in_another_memory_layout(optimizer, formats):
    """Like one that stays in its own: fused steps pair weights and averages by their place in memory."""
    whole = nn.Conv2d(4, 6, 3).to(memory_format=formats[0])
    of_whole = optimizer(whole.parameters())
    images = torch.randn(2, 4, 8, 8)
    take_step(whole, of_whole, images)
    resumed = nn.Conv2d(4, 6, 3).to(memory_format=formats[1])
    resumed.load_state_dict(whole.state_dict())
    of_resumed = optimizer(resumed.parameters())
    restore_optimizer(of_resumed, copy.deepcopy(of_whole.state_dict()))
    for net, of_net in ((whole, of_whole), (resumed, of_resumed)):
        take_step(net, of_net, images)
    assert resumed.weight.stride() != whole.weight.stride()
    torch.testing.assert_close(resumed.weight, whole.weight, rtol=1e-5, atol=1e-6)


def take_step(net, optimizer, images):
    optimizer.zero_grad()
    net(images).square().mean().backward()
    optimizer.step()
