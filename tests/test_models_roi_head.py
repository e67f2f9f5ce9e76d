"""The second stage's head: shapes, rows that take no part, its start, gradients without regions."""

from functools import partial

import pytest
import torch

from rankdet.models.roi_align import PyramidRoIAlign
from rankdet.models.roi_head import RoIHead

BIAS = torch.tensor([-4.6, -4.5, -4.4, 2.0])


def head(**settings):
    torch.manual_seed(0)
    align = partial(PyramidRoIAlign, output_size=3)
    arguments = {"num_classes": 3, "num_channels": 4, "prior_bias": BIAS, "align": align, "channels": 16}
    return RoIHead(6, (8, 16), **(arguments | settings))


def problem():
    """Maps of two images, five regions each, of which three and none take part."""
    torch.manual_seed(1)
    features = [torch.randn(2, 6, 8, 10), torch.randn(2, 6, 4, 5)]
    corners = 30 * torch.rand(2, 5, 2)
    rois = torch.cat([corners, corners + 5 + 25 * torch.rand(2, 5, 2)], dim=2)
    taking_part = torch.tensor([[True, False, True, True, False], [False] * 5])
    return features, rois, taking_part


@pytest.mark.parametrize(("agnostic", "shape"), [(False, (2, 5, 3, 4)), (True, (2, 5, 4))])
def test_shapes_and_rows_left_out(agnostic, shape):
    model, (features, rois, taking_part) = head(class_agnostic=agnostic), problem()
    logits, deltas = model(features, rois, taking_part)
    assert logits.shape == (2, 5, 4)
    assert deltas.shape == shape
    assert not logits[~taking_part].any()
    assert not deltas[~taking_part].any()
    assert (logits[taking_part] != 0).all()
    every = model(features, rois, torch.ones_like(taking_part))
    torch.testing.assert_close(logits[taking_part], every[0][taking_part])
    torch.testing.assert_close(deltas[taking_part], every[1][taking_part])


def test_deltas_are_class_by_class():
    """Biases number the box layer's outputs: class k has 4 k to 4 k + 3."""
    model = head()
    torch.nn.init.zeros_(model.box_output.weight)
    with torch.no_grad():
        model.box_output.bias.copy_(torch.arange(12.0))
    deltas = model(*problem())[1]
    assert torch.equal(deltas[0, 2], torch.arange(12.0).view(3, 4))


def test_its_start():
    model = head(channels=1024)
    assert torch.equal(model.score_output.bias, BIAS)
    assert not model.box_output.bias.any()
    assert model.score_output.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert model.box_output.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert model.hidden[2].weight.abs().max().item() == pytest.approx((3 / 1024) ** 0.5, rel=0.01)
    assert [type(layer).__name__ for layer in model.hidden] == ["Linear", "ReLU"] * 2


def test_no_regions_leave_a_gradient_path():
    """To all weights and all maps, all of it 0."""
    model, (features, rois, taking_part) = head(), problem()
    features = [x.requires_grad_() for x in features]
    logits, deltas = model(features, rois, torch.zeros_like(taking_part))
    assert not logits.any()
    torch.autograd.backward([logits, deltas], [torch.ones_like(logits), torch.ones_like(deltas)])
    assert all(p.grad is not None and not p.grad.any() for p in [*model.parameters(), *features])


def test_no_hidden_layers():
    model = head(num_fcs=0)
    assert sum(p.numel() for p in model.parameters()) == (6 * 9 + 1) * (4 + 12)
    assert model(*problem())[0].shape == (2, 5, 4)


def test_a_bias_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"^prior_bias must have shape \[4\]"):
        head(prior_bias=torch.zeros(3))
