"""Negatives that a loss gets to see: how many, which ones, and that nothing else changes."""

import pytest
import torch
from reference import loss_inputs

from rankdet.losses.ap import APLoss
from rankdet.losses.sampling import OHEMSampler, RandomSampler


def inputs_of(labels, logits=None):
    labels = torch.tensor(labels, dtype=torch.int8)
    return loss_inputs(torch.zeros(labels.shape) if logits is None else torch.tensor(logits), labels)


def test_ohem_keeps_the_highest_scores():
    """Image 0: one positive, 2 negatives for it: of scores 1, 4, 3 the last two; image 1: no positive, one negative."""
    labels = [[[1, 0], [0, 0], [0, 0], [0, 0], [-1, -1]], [[0, 0]] * 4 + [[-1, -1]]]
    logits = [[[9.0, 9], [1, 0], [-2, 4], [3, 3], [99, 99]], [[0.0, 0], [1, 1], [5, -9], [2, 2], [99, 99]]]
    inputs = inputs_of(labels, logits)
    kept = OHEMSampler(negatives_per_positive=2.0, min_negatives=1)(inputs)
    out = [-1, -1]
    assert kept.labels.tolist() == [[[1, 0], out, [0, 0], [0, 0], out], [out, out, [0, 0], out, out]]
    assert kept.logits is inputs.logits
    assert torch.equal(kept.positives, inputs.positives)


@pytest.mark.parametrize("sampler", [OHEMSampler, RandomSampler])
@pytest.mark.parametrize(("per_positive", "least", "kept"), [(3, 0, [6, 0]), (1.5, 4, [4, 4]), (100, 0, [38, 0])])
def test_numbers(sampler, per_positive, least, kept):
    """40 anchors, 2 of them positive in image 0 and none in image 1: as many as wanted, as far as there are any."""
    labels = torch.zeros(2, 40, 3, dtype=torch.int8)
    labels[0, 5, 1] = labels[0, 30, 2] = 1
    labels = sampler(per_positive, least)(loss_inputs(torch.randn(2, 40, 3), labels)).labels
    negative = (labels == 0).any(2) & ~(labels == 1).any(2)
    assert negative.sum(1).tolist() == kept
    assert (labels == 1).sum() == 2
    assert ((labels == -1).all(2) == (labels == -1).any(2)).all()  # whole anchors


def test_random_is_uniform_and_follows_the_generator():
    """3 of 30 negatives, 2000 times: each is kept in 10 % of them (+- 4 standard deviations of 0.7 %)."""
    labels = torch.zeros(1, 31, 1, dtype=torch.int8)
    labels[0, 0, 0] = 1
    inputs, sampler = loss_inputs(torch.randn(1, 31, 1), labels), RandomSampler()
    torch.manual_seed(3)
    first = [sampler(inputs).labels for _ in range(2000)]
    torch.manual_seed(3)
    assert all(torch.equal(sampler(inputs).labels, labels) for labels in first[:5])
    share = (torch.stack(first)[:, 0, 1:, 0] == 0).double().mean(0)
    assert (share - 0.1).abs().max() < 4 * (0.09 / 2000) ** 0.5


def test_ap_loss_of_the_kept_negatives():
    """Negatives at 5, 4 and -5, positive at 0: of all, rank 3; of the one hardest, rank 2, loss 1/2."""
    inputs = inputs_of([[[1], [0], [0], [0]]], [[[0.0], [5], [4], [-5]]])
    inputs.logits.requires_grad_()
    assert APLoss()(inputs).total.item() == pytest.approx(2 / 3)
    assert APLoss()(OHEMSampler(1.0, 0)(inputs)).total.item() == pytest.approx(1 / 2)


@pytest.mark.parametrize("sampler", [OHEMSampler, RandomSampler])
def test_bad_numbers_and_no_anchors(sampler):
    for arguments in ((-1.0, 3), (3.0, -1)):
        with pytest.raises(ValueError, match="must not be negative"):
            sampler(*arguments)
    empty = sampler()(loss_inputs(torch.zeros(0, 4, 2), torch.zeros(0, 4, 2, dtype=torch.int8)))
    assert empty.labels.shape == (0, 4, 2)
