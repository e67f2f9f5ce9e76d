"""The RPN's draw: how many, which ones, and that the boxes of positives left out go with them."""

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from reference import loss_inputs

from rankdet.losses.balanced_sampling import BalancedSampler


def problem(num_positives, num_negatives, num_ignored):
    """LossInputs of one image a number of each kind; every positive's box is marked by its place."""
    images = zip(num_positives, num_negatives, num_ignored, strict=True)
    rows = [[1] * positive + [0] * negative + [-1] * ignored for positive, negative, ignored in images]
    labels = torch.tensor(rows, dtype=torch.int8)[:, :, None]
    inputs = loss_inputs(torch.randn(labels.shape), labels)
    marks = inputs.positives.float()[:, None].expand(-1, 4)
    return inputs._replace(
        pred_deltas=marks, target_deltas=marks + 0.1, pred_boxes=marks + 0.2, target_boxes=marks + 0.3
    )


@pytest.mark.parametrize(
    ("num_samples", "fraction", "kept"),
    [
        (16, 0.5, [(8, 8), (4, 12), (0, 16)]),  # negatives fill up
        (16, 0.25, [(4, 12), (4, 12), (0, 16)]),
        (30, 1.0, [(20, 10), (4, 26), (0, 30)]),  # up to all of them positive
        (50, 0.5, [(20, 20), (4, 36), (0, 40)]),  # fewer than wanted where there are no more
        (3, 0.5, [(1, 2), (1, 2), (0, 3)]),  # half of three, rounded down
    ],
)
def test_numbers(num_samples, fraction, kept):
    """Images of 20, 4 and no positives and 20, 36 and 40 negatives; 5 anchors of each take no part and stay out."""
    inputs = problem((20, 4, 0), (20, 36, 40), (5, 5, 5))
    chosen = BalancedSampler(num_samples, fraction)(inputs)
    found = [(int((row == 1).sum()), int((row == 0).sum())) for row in chosen.labels]
    assert found == kept
    assert (chosen.labels[:, 40:] == -1).all()
    assert (chosen.labels[inputs.labels == 0] != 1).all()
    assert chosen.positives.tolist() == (chosen.labels.reshape(-1) == 1).nonzero().squeeze(1).tolist()
    marks = chosen.positives.float()[:, None].expand(-1, 4)
    for name, offset in (("pred_deltas", 0.0), ("target_deltas", 0.1), ("pred_boxes", 0.2), ("target_boxes", 0.3)):
        torch.testing.assert_close(getattr(chosen, name), marks + offset)


def test_classes_of_a_positive_stay_together():
    """An anchor of class 1 of 2 is left out in both classes, or in none."""
    labels = torch.tensor([[[0, 1]] * 6 + [[0, 0]] * 6], dtype=torch.int8)
    chosen = BalancedSampler(4, 0.5)(loss_inputs(torch.zeros(1, 12, 2), labels)).labels[0]
    assert sorted(map(tuple, chosen.tolist())) == [(-1, -1)] * 8 + [(0, 0)] * 2 + [(0, 1)] * 2


def test_uniform_and_by_the_generator():
    """2 of 10 positives and 2 of 20 negatives, 400 times: shares of 0.2 and 0.1, within 4 standard deviations."""
    inputs, sampler = problem((10,), (20,), (0,)), BalancedSampler(4, 0.5)
    torch.manual_seed(3)
    drawn = [sampler(inputs).labels for _ in range(400)]
    torch.manual_seed(3)
    assert all(torch.equal(sampler(inputs).labels, labels) for labels in drawn[:5])
    share = (torch.stack(drawn)[:, 0, :, 0] >= 0).double().mean(0)
    assert (share[:10] - 0.2).abs().max() < 4 * (0.16 / 400) ** 0.5
    assert (share[10:] - 0.1).abs().max() < 4 * (0.09 / 400) ** 0.5


def test_nothing_to_draw_from():
    chosen = BalancedSampler()(problem((0,), (0,), (5,)))
    assert (chosen.labels == -1).all()
    assert chosen.pred_deltas.shape == (0, 4)


def test_config_and_bad_numbers(repo):
    sampler = instantiate(OmegaConf.load(repo / "configs" / "sampler" / "balanced.yaml"))
    assert (sampler.num_samples, sampler.max_positives) == (256, 128)
    for bad in ({"num_samples": 0}, {"positive_fraction": 0.0}, {"positive_fraction": 1.5}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))} must"):
            BalancedSampler(**bad)
