"""The RPN's head: order of its outputs, its start, and that it scores an anchor by one number."""

import pytest
import torch

from rankdet.errors import UserError
from rankdet.models.rpn import RPNHead


def test_outputs_are_in_the_anchors_order():
    """Weights 0 but for biases, which number the channels: every cell repeats its anchors' numbers, level by level."""
    head = RPNHead(4, anchors_per_cell=3, num_channels=1, prior_bias=torch.tensor([-4.6]))
    torch.nn.init.zeros_(head.score_output.weight)
    torch.nn.init.zeros_(head.box_output.weight)
    with torch.no_grad():
        head.score_output.bias.copy_(torch.arange(3.0))
        head.box_output.bias.copy_(torch.arange(12.0))
    logits, deltas = head([torch.randn(2, 4, 2, 5), torch.randn(2, 4, 1, 3)])
    assert logits.shape == (2, 39, 1)
    assert torch.equal(logits[:, :, 0], torch.arange(3.0).repeat(13).expand(2, -1))
    assert torch.equal(deltas, torch.arange(12.0).view(3, 4).repeat(13, 1).expand(2, -1, -1))


def test_cells_row_by_row():
    """One anchor whose score is its cell's only channel: convs that pass it on."""
    head = RPNHead(1, anchors_per_cell=1, num_channels=1, prior_bias=torch.zeros(1))
    torch.nn.init.dirac_(head.conv.weight)
    torch.nn.init.ones_(head.score_output.weight)
    maps = [torch.arange(1.0, 7.0).view(1, 1, 2, 3), torch.tensor([[[[9.0]]]])]
    assert head(maps)[0].flatten().tolist() == [1, 2, 3, 4, 5, 6, 9]


def test_its_start():
    head = RPNHead(256, anchors_per_cell=3, num_channels=1, prior_bias=torch.tensor([-4.6]))
    assert head.score_output.bias.tolist() == pytest.approx([-4.6] * 3)
    assert not head.box_output.bias.any()
    for module in (head.conv, head.score_output, head.box_output):
        assert module.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_two_channels_are_refused():
    with pytest.raises(UserError, match=r"^rpn\.loss wants 2 score channels an anchor.*rpn=ce or rpn=alrp$"):
        RPNHead(4, anchors_per_cell=3, num_channels=2, prior_bias=torch.zeros(2))
