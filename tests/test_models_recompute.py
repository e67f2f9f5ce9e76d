"""Recomputed activations: the same bits as kept ones, statistics that advance once, and less memory."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from rankdet.models.backbones import ResNetBackbone
from rankdet.models.recompute import recomputed

IMAGE = (2, 3, 61, 95)
CASES = [
    {"name": "resnet18", "width": 0.25, "norm": "bn"},
    {"name": "resnet18", "width": 0.25, "norm": "gn", "outputs": ["c2", "c3", "c4", "c5"]},
    {"name": "resnet18", "width": 0.25, "norm": "frozen_bn", "frozen_stages": 1},
    {"name": "resnet18", "width": 0.25, "norm": "bn", "frozen_stages": 2},
    pytest.param({"name": "resnext101_32x8d", "width": 0.125, "norm": "bn"}, marks=pytest.mark.full),
    {"name": "resnet50", "width": 0.125, "norm": "bn", "deformable": [3, 4, 5]},
]


def pair(**options) -> tuple[ResNetBackbone, ResNetBackbone]:
    """The same backbone twice, in train mode; the second computes again."""
    torch.manual_seed(0)
    plain = ResNetBackbone(**options).train()
    other = copy.deepcopy(plain)
    other.checkpoint = True
    return plain, other


def step(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Maps and gradients of two backward passes over two batches."""
    results = {}
    for scale in (1.0, 2.0):
        out = model(images * scale)
        sum(x.square().mean() for x in out.values()).backward()
        results |= {f"{key} at {scale}": x.detach() for key, x in out.items()}
    return results | {key: p.grad for key, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("options", CASES)
def test_same_bits(options):
    """Maps, gradients, statistics and batch counters."""
    plain, other = pair(**options)
    images = torch.randn(IMAGE)
    expected, found = step(plain, images), step(other, images)
    assert expected.keys() == found.keys()
    assert len(found) > 10
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    state = other.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())
    counters = {int(value) for key, value in state.items() if key.endswith("num_batches_tracked")}
    assert counters == {"bn": {0, 2} if options.get("frozen_stages") else {2}}.get(options["norm"], set())


def test_same_bits_under_autocast():
    plain, other = pair(name="resnet18", width=0.25, norm="bn")
    images = torch.randn(IMAGE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found = step(plain, images), step(other, images)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


def kept_bytes(model: Callable[[Tensor], object], images: Tensor) -> int:
    """What the graph of a forward pass holds on to, maps alone, each storage counted once."""
    storages = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.dim() == 4 and tensor.shape[0] == len(images):
            storages[storage.data_ptr()] = storage  # held, so that no other one gets its address
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(images)
    assert out is not None
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize(("norm", "share"), [("bn", 0.3), ("gn", 0.3), ("frozen_bn", 0.5)])
def test_less_is_kept(norm, share):
    """Of ResNet-50, whose blocks keep ten and more maps, or with a constant norm the three inputs of their convs."""
    plain, other = pair(name="resnet50", width=0.25, norm=norm)
    images = torch.randn(IMAGE)
    assert 0 < kept_bytes(other, images) < share * kept_bytes(plain, images)


def test_what_is_kept_of_seven_blocks():
    """The inputs of the first, fourth and seventh: a step of ceil(sqrt(7)) = 3."""
    blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid()) for _ in range(7)))
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    assert kept_bytes(blocks, x) == (1 + 7) * 4 * 64 * 4
    assert kept_bytes(partial(recomputed, blocks), x) == 3 * 4 * 64 * 4


def test_nothing_is_stored_without_gradients(monkeypatch):
    monkeypatch.setattr("rankdet.models.recompute.checkpoint", None)
    plain, other = pair(name="resnet18", width=0.25, norm="bn")
    images = torch.randn(IMAGE)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert torch.equal(other.eval()(images)["c5"], plain.eval()(images)["c5"])


def test_an_error_in_the_second_pass_leaves_the_statistics_in_place():
    block = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU())
    mean = block[0].running_mean
    out = recomputed([block], torch.randn(3, 2, 4, 4, requires_grad=True))
    handle = block[0].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        out.sum().backward()
    handle.remove()
    assert block[0].running_mean is mean


@pytest.mark.parametrize("norm", ["gn", "bn"])
def test_blocks_under_the_compiler(norm):
    """One graph, but where batch statistics are tracked: there it breaks, and the bits are the same still."""
    torch._dynamo.reset()
    layer2 = pair(name="resnet18", width=0.25, norm=norm)[0].layer2
    other = copy.deepcopy(layer2)
    compiled = torch.compile(partial(recomputed, other), backend="eager", fullgraph=norm != "bn")
    x = torch.randn(2, 16, 12, 12)
    results = []
    for run, blocks in ((layer2, layer2), (compiled, other)):
        out = run(x)
        out.square().sum().backward()
        results.append([out, *(p.grad for p in blocks.parameters()), *blocks.buffers()])
    assert len(results[0]) == len(results[1])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))


@pytest.mark.full
@pytest.mark.parametrize(("norm", "whole"), [("gn", True), ("frozen_bn", True), ("bn", False)])
def test_a_backbone_under_the_compiler(norm, whole):
    torch._dynamo.reset()
    plain, other = pair(name="resnet18", width=0.25, norm=norm)
    images = torch.randn(IMAGE)
    expected = step(plain, images)
    found = step(torch.compile(other, backend="eager", fullgraph=whole), images)
    found = {key.removeprefix("_orig_mod."): value for key, value in found.items()}
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    state = other.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())
