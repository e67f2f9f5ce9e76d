"""The sum of terms, its precision and gradient paths, and that the loss configs state every number."""

import importlib
import inspect

import pytest
import torch
import yaml
from reference import loss_inputs
from torch import nn

from rankdet.losses.ap import APLoss
from rankdet.losses.auc import AUCLoss
from rankdet.losses.box import GIoULoss, SmoothL1Loss
from rankdet.losses.ce_ohem import CEOHEMLoss
from rankdet.losses.criterion import Criterion
from rankdet.losses.focal import FocalLoss
from rankdet.losses.inputs import LossInputs, LossOutput

LOSSES = [APLoss, AUCLoss, FocalLoss, CEOHEMLoss]


def random_inputs(loss, seed=0, positives=True):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 2 if positives else 1, (2, 8, 3), generator=generator, dtype=torch.int8)
    labels[..., 1:] = labels[..., :1].clamp(max=0)  # one class per anchor at most
    logits = torch.randn(2, 8, loss.num_channels(3), generator=generator, requires_grad=True)
    return loss_inputs(logits, labels)


@pytest.mark.parametrize("loss_class", LOSSES)
@pytest.mark.parametrize("box_loss", [SmoothL1Loss(weight=2.0), GIoULoss(), None], ids=["smooth_l1", "giou", "none"])
def test_total_is_the_sum_of_the_weighted_terms(loss_class, box_loss):
    loss = loss_class(weight=3.0)
    terms = [loss] + ([box_loss] if box_loss else [])
    inputs = random_inputs(loss)
    total, parts = Criterion(terms)(inputs)
    torch.testing.assert_close(total, sum(term(inputs).total for term in terms))
    assert parts == {name: part for term in terms for name, part in term(inputs).parts.items()}
    assert len(parts) == len(terms)
    assert not any(part.requires_grad for part in parts.values())


@pytest.mark.parametrize("loss_class", LOSSES)
@pytest.mark.parametrize("box_loss", [SmoothL1Loss(), GIoULoss(), None], ids=["smooth_l1", "giou", "none"])
@pytest.mark.parametrize("positives", [True, False], ids=["objects", "no objects"])
def test_logits_and_deltas_always_get_a_gradient(loss_class, box_loss, positives):
    """Else a process without objects, or a run without a box loss, would keep the others of a DDP job waiting."""
    loss = loss_class()
    inputs = random_inputs(loss, positives=positives)
    assert (len(inputs.positives) > 0) == positives
    total, _ = Criterion([loss] + ([box_loss] if box_loss else []))(inputs)
    assert total.isfinite()
    total.backward()
    for tensor in (inputs.logits, inputs.pred_deltas):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("loss_class", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_outputs_are_computed_in_float32(loss_class, dtype):
    """Equal to the float32 result on the rounded outputs, inside autocast too; gradients return in the half type."""
    criterion = Criterion([loss_class(), SmoothL1Loss()])
    inputs = random_inputs(criterion.classification)
    inputs = inputs._replace(target_deltas=torch.randn(len(inputs.positives), 4))
    half = LossInputs(*(t.detach().to(dtype) if t.is_floating_point() else t for t in inputs))
    half = half._replace(logits=half.logits.requires_grad_(), pred_deltas=half.pred_deltas.requires_grad_())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = criterion(half)
    full = LossInputs(*(t.detach().float() if t.is_floating_point() else t for t in half))
    assert total.dtype == torch.float32
    assert torch.equal(total, criterion(full).total)
    total.backward()
    assert half.logits.grad.dtype == half.pred_deltas.grad.dtype == dtype


class AutocastProbe(nn.Module):
    """A term that reports the types it is given and whether autocast would round its products."""

    def forward(self, inputs):
        assert not torch.is_autocast_enabled("cpu")
        assert {t.dtype for t in inputs if t.is_floating_point()} == {torch.float32}
        return LossOutput(inputs.logits.sum(), {"probe": torch.ones(())})


def test_every_term_sees_float32_without_autocast():
    inputs = random_inputs(APLoss())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, parts = Criterion([APLoss(), AutocastProbe()])(inputs._replace(logits=inputs.logits.bfloat16()))
    assert parts["probe"] == 1


def test_the_classification_term_is_found_and_registered():
    loss = APLoss()
    criterion = Criterion([GIoULoss(), loss])
    assert criterion.classification is loss
    assert [type(module) for module in criterion.children()] == [nn.ModuleList]


@pytest.mark.parametrize("terms", [[], [GIoULoss()], [APLoss(), FocalLoss()]])
def test_exactly_one_classification_loss(terms):
    with pytest.raises(ValueError, match=r"^terms must hold exactly one classification loss"):
        Criterion(terms)


def test_part_names_must_differ():
    criterion = Criterion([APLoss(), GIoULoss(), SmoothL1Loss()])
    with pytest.raises(ValueError, match=r"\['box'\]"):
        criterion(random_inputs(criterion.classification))


def test_loss_configs_state_every_argument(repo):
    """Every yaml of loss/ and box_loss/ has exactly the constructor's arguments, and builds what its target names."""
    visited = set()
    for file in sorted((repo / "configs").glob("loss/*.yaml")) + sorted((repo / "configs").glob("box_loss/*.yaml")):
        config = yaml.safe_load(file.read_text())
        visited.add(f"{file.parent.name}/{file.stem}")
        if not config:
            assert file.stem == "none"
            continue
        module, name = config.pop("_target_").rsplit(".", 1)
        loss_class = getattr(importlib.import_module(module), name)
        assert list(config) == list(inspect.signature(loss_class).parameters), file
        assert isinstance(loss_class(**config), nn.Module)
    assert visited >= {"loss/ap", "loss/auc", "loss/focal", "loss/ce_ohem", "box_loss/smooth_l1", "box_loss/giou"}
    assert "box_loss/none" in visited
