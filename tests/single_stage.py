"""What holds of every single-stage detector's network."""

import copy

import torch
from torch import nn


def assert_bytes_or_floats(model: nn.Module) -> None:
    """Images may be given as bytes or as floats."""
    images = torch.randint(0, 256, (1, 3, 61, 95), dtype=torch.uint8)
    torch.testing.assert_close(model.eval()(images).logits, model(images.float()).logits)


def assert_any_memory_format(model: nn.Module) -> None:
    """Channels last gives what channels first does."""
    images = torch.randint(0, 256, (2, 3, 61, 95), dtype=torch.uint8)
    plain = model.eval()(images)
    fast = copy.deepcopy(model).to(memory_format=torch.channels_last)(images)
    torch.testing.assert_close(fast.logits, plain.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fast.deltas, plain.deltas, atol=1e-5, rtol=1e-4)


def assert_images_do_not_mix(model: nn.Module) -> None:
    """In training too an image's outputs are those that it has alone; model has no batch norm."""
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(model.train()(images).logits[1], model(images[1:2]).logits[0], atol=1e-5, rtol=1e-4)


def assert_trains_after_inference(model: nn.Module) -> None:
    """The anchors made while evaluating must serve a training step, whose backward saves them."""
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        model.eval()(images)
    output = model.train()(images)
    (model.coder.decode(output.anchors, output.deltas).sum() + output.logits.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


def assert_one_graph(model: nn.Module) -> None:
    """The compiler finds one graph, which gives what the model gives."""
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    compiled = torch.compile(model.eval(), backend="eager", fullgraph=True)(images)
    for ours, theirs in zip(compiled, model(images), strict=True):
        torch.testing.assert_close(ours, theirs)
