"""The exact AP-loss that is logged beside any loss."""

import pytest
import torch

from rankdet.config import CONFIG_DIR, compose, config_hash
from rankdet.losses.alrp import ALRPLoss
from rankdet.losses.ap import ap_loss
from rankdet.losses.criterion import Criterion
from rankdet.losses.focal import FocalLoss
from rankdet.losses.inputs import LossInputs
from rankdet.losses.measure import APValue, GradientBalance, ap_value


def inputs(logits, labels):
    none = torch.zeros(0, 4)
    positives = (labels.reshape(-1) == 1).nonzero().squeeze(1)
    return LossInputs(logits, labels, positives, none, none, none, none)


def test_by_hand():
    """Positives at 2, 0, negatives at 1, 0 and -1, one ignored at 5: rank 1 of 1, then 2 of 4 (a tie counts against
    it): AP = (1 + 1/2) / 2, so 1/4."""
    logits = torch.tensor([2.0, 0.0, 1.0, 0.0, -1.0, 5.0])
    labels = torch.tensor([1, 1, 0, 0, 0, -1])
    assert ap_value(logits, labels) == pytest.approx(0.25)
    assert ap_value(logits, labels, positives=torch.tensor([0, 1])) == pytest.approx(0.25)


def test_it_is_the_loss_without_smoothing_and_interpolation():
    torch.manual_seed(0)
    for _ in range(20):
        logits = torch.randn(300).mul(2).round(decimals=1)  # with ties
        labels = (torch.rand(300) < 0.1).to(torch.int8)
        expected = ap_loss(logits, labels, interpolate=False, step="heaviside")
        assert ap_value(logits, labels) == pytest.approx(float(expected), abs=1e-7)


@pytest.mark.parametrize("labels", [[0, 0], [-1, -1]])
def test_nothing_to_rank_is_0(labels):
    assert ap_value(torch.tensor([1.0, 2.0]), torch.tensor(labels)) == 0
    assert ap_value(torch.zeros(0), torch.zeros(0, dtype=torch.int8)) == 0


def test_a_criterion_that_measures_learns_the_same():
    """Total and gradient are the loss's own; the part is there beside the loss's."""
    torch.manual_seed(1)
    logits = torch.randn(2, 30, 3)
    labels = (torch.rand(2, 30, 3) < 0.1).to(torch.int8)
    found = []
    for terms in ([FocalLoss()], [FocalLoss(), APValue()]):
        leaf = logits.clone().requires_grad_()
        output = Criterion(terms)(inputs(leaf, labels))
        output.total.backward()
        found.append((output, leaf.grad))
    (plain, gradient), (measured, same_gradient) = found
    assert torch.equal(measured.total, plain.total) and torch.equal(same_gradient, gradient)
    assert set(measured.parts) == set(plain.parts) | {"ap_value"}
    assert measured.parts["ap_value"] == ap_value(logits, labels)
    assert not measured.parts["ap_value"].requires_grad


def test_gradients_of_either_kind_by_hand():
    """Cross entropy over one positive: its scores of 0 are pushed by 1/2 each, three negatives' together by 3/2."""
    logits = torch.zeros(1, 5, 1, requires_grad=True)
    labels = torch.tensor([1, 0, 0, 0, -1], dtype=torch.int8).reshape(1, 5, 1)
    plain = Criterion([FocalLoss(alpha=-1, gamma=0)])(inputs(logits, labels))
    (expected,) = torch.autograd.grad(plain.total, logits)
    output = Criterion([FocalLoss(alpha=-1, gamma=0), GradientBalance()])(inputs(logits, labels))
    sides = [output.parts[name] for name in ("gradient_negatives", "gradient_positives")]
    assert sides == [0, 0]
    output.total.backward()
    assert sides == [1.5, 0.5]
    assert torch.equal(logits.grad, expected) and torch.equal(output.total, plain.total)


def test_alrp_pushes_both_kinds_alike():
    """Theorem 2, in float32 as in a training."""
    torch.manual_seed(2)
    logits = torch.randn(2, 400, 3, requires_grad=True)
    labels = (torch.rand(2, 400, 3) < 0.02).to(torch.int8)
    num_positives = int((labels == 1).sum())
    boxes = torch.tensor([0.0, 0.0, 10.0, 10.0]).expand(num_positives, 4)
    seen = inputs(logits, labels)._replace(pred_boxes=boxes + torch.rand(num_positives, 4), target_boxes=boxes)
    output = Criterion([ALRPLoss(localisation_weight=1.0), GradientBalance()])(seen)
    output.total.backward()
    negatives, positives = (output.parts[f"gradient_{kind}"].item() for kind in ("negatives", "positives"))
    assert negatives == pytest.approx(positives, rel=1e-5) and positives > 0.1


def test_a_balance_without_gradients_or_of_other_scores():
    """Nothing is differentiated in a test; a softmax has a score more than there are classes."""
    labels = torch.zeros(1, 5, 2, dtype=torch.int8)
    output = GradientBalance()(inputs(torch.zeros(1, 5, 2), labels))
    assert (output.total, *output.parts.values()) == (0, 0, 0)
    with pytest.raises(ValueError, match="logits must be one score a class"):
        GradientBalance()(inputs(torch.zeros(1, 5, 3), labels))


def test_only_a_measured_run_has_another_identity():
    """Runs of before there was the group keep their directories; a measured one is told from a plain one."""
    assert {path.stem for path in (CONFIG_DIR / "measure").glob("*.yaml")} == {"none", "ap_value", "gradient_balance"}
    assert compose(["measure=none"]).measure == {}
    assert config_hash(compose(["measure=ap_value"])) != config_hash(compose([]))
