"""Softmax cross entropy with hard negatives: closed form, selection image by image, and what its scores mean."""

import math

import numpy as np
import pytest
import torch
from reference import ce_ohem_twin, loss_inputs, value_and_gradient

from rankdet.losses.ce_ohem import CEOHEMLoss, ce_ohem_loss


def test_arithmetic():
    """One image, one class, channels (object, background); anchors: 1 positive, 3 negatives, 1 ignored.

    Object logits log 3, log 1, log 3, log 7 and 9, background 0: the positive's p(object) is 3/4, the negatives'
    p(background) 1/2, 1/4 and 1/8. With 2 negatives per positive the hardest two are 1/8 and 1/4:
    loss -log(3/4 x 1/4 x 1/8) over one positive.
    """
    logits = torch.tensor([[[math.log(3), 0], [0, 0], [math.log(3), 0], [math.log(7), 0], [9, 0]]])
    labels = torch.tensor([[[1], [0], [0], [0], [-1]]])
    value, gradient = value_and_gradient(ce_ohem_loss, logits, labels, 2.0, 0, dtype=torch.float32)
    assert value == pytest.approx(-math.log(3 / 4 * 1 / 4 * 1 / 8), rel=1e-6)
    expected = [[-1 / 4, 1 / 4], [0, 0], [3 / 4, -3 / 4], [7 / 8, -7 / 8], [0, 0]]
    np.testing.assert_allclose(gradient.reshape(5, 2), expected, atol=1e-6)


def random_problem(seed, images=4, anchors=30, classes=3):
    random = np.random.default_rng(seed)
    labels = np.zeros((images, anchors, classes), dtype=np.int8)
    for b in range(1, images):  # image 0 has no positives
        for a in random.choice(anchors, 3 * b, replace=False):
            labels[b, a, random.integers(classes)] = 1
    ignored = (random.random((images, anchors)) < 0.2) & ~(labels == 1).any(2)
    labels[ignored] = -1
    return random.normal(size=(images, anchors, classes + 1)), torch.from_numpy(labels)


@pytest.mark.parametrize("ratio", [3.0, 1.5, 0.0, 100.0])
@pytest.mark.parametrize("min_negatives", [0, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_its_twin(ratio, min_negatives, seed):
    """Ratio 100 wants more negatives than there are; image 0 has no positives."""
    logits, labels = random_problem(seed)
    loss, gradient = ce_ohem_twin(logits, labels, ratio, min_negatives)
    value, computed = value_and_gradient(ce_ohem_loss, logits, labels, ratio, min_negatives)
    assert value == pytest.approx(loss, abs=1e-10)
    np.testing.assert_allclose(computed, gradient.reshape(-1), atol=1e-12)


@pytest.mark.parametrize(("min_negatives", "touched"), [(0, 0), (3, 6)])
def test_images_without_objects(min_negatives, touched):
    """Two images without positives: SSD's rule takes nothing, min_negatives 3 takes three anchors of each."""
    logits = np.random.default_rng(0).normal(size=(2, 10, 4))
    labels = torch.zeros(2, 10, 3, dtype=torch.int8)
    value, gradient = value_and_gradient(ce_ohem_loss, logits, labels, 3.0, min_negatives)
    assert (np.abs(gradient.reshape(20, 4)).sum(1) > 0).sum() == touched
    assert (value > 0) == (touched > 0)


@pytest.mark.parametrize("shape", [(2, 5, 3), (0, 5, 3), (2, 0, 3)])
def test_nothing_to_choose_is_zero_with_a_gradient_path(shape):
    labels = torch.full(shape, -1, dtype=torch.int8)
    value, gradient = value_and_gradient(ce_ohem_loss, np.zeros((*shape[:2], 4)), labels)
    assert value == 0
    assert (gradient == 0).all()


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[[1e4, -1e4], [-1e4, 1e4], [1e4, -1e4]]])
    value, gradient = value_and_gradient(ce_ohem_loss, logits, torch.tensor([[[1], [0], [0]]]), dtype=torch.float32)
    assert value == 2e4
    assert np.isfinite(gradient).all()


def test_scores_are_a_softmax_without_background():
    """Prior 0.01 for 20 classes: each class starts at 0.01, so background at 0.8."""
    loss = CEOHEMLoss()
    assert loss.num_channels(20) == 21
    bias = loss.prior_bias(20, 0.01)
    torch.testing.assert_close(loss.probabilities(bias[None]), torch.full((1, 20), 0.01))
    with pytest.raises(ValueError, match=r"^prior must lie between 0 and 1/20"):
        loss.prior_bias(20, 0.05)


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r"^logits must be \[B, A, K \+ 1\]"):
        ce_ohem_loss(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3, dtype=torch.int8))


def test_module_passes_its_arguments_on():
    logits, labels = random_problem(0)
    logits = torch.tensor(logits, requires_grad=True)
    total, parts = CEOHEMLoss(negatives_per_positive=2.0, min_negatives=1, weight=3.0)(loss_inputs(logits, labels))
    torch.testing.assert_close(parts, {"ce": ce_ohem_loss(logits, labels, 2.0, 1).detach()})
    torch.testing.assert_close(total.detach(), 3 * parts["ce"])
    assert total.requires_grad
    with pytest.raises(ValueError, match=r"^min_negatives must not be negative"):
        CEOHEMLoss(min_negatives=-1)
