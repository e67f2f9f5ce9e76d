"""The search's policy and its update: golden numbers, slow twins, and the edges of a truncated normal."""

import math

import numpy as np
import pytest
import torch
from reference import golden_files
from scipy.stats import truncnorm

from rankdet.search.policy import Policy, logits, shrunk
from rankdet.search.ppo import PPO, updated


def golden():
    (file,) = golden_files("pap_search")
    z = np.load(file)
    return {name: torch.from_numpy(np.asarray(z[name])).double() for name in z}


def test_golden_samples():
    """theta from the same uniform numbers, and the log densities, coordinate by coordinate."""
    z = golden()
    policy = Policy(logits(z["mu"]), z["sigma_old"][0].item())
    np.testing.assert_allclose(policy.sample(z["uniform"]), z["theta"], atol=1e-12)
    np.testing.assert_allclose(policy.log_prob(z["theta"]), z["log_prob"], atol=1e-12)


def test_golden_update():
    """Round 0 of 40: a hundred steps of Adam, to within rounding."""
    z = golden()
    sigma = z["sigma_old"][0].item()
    assert shrunk(sigma, 1, 40) == pytest.approx(z["sigma_new"][0].item(), abs=1e-15)
    ppo = PPO(z["clip_eps"].item(), z["lr"].item(), int(z["steps"]), 30)
    mu = updated(Policy(logits(z["mu"]), sigma), shrunk(sigma, 1, 40), z["theta"], z["reward"], ppo)
    np.testing.assert_allclose(mu.sigmoid(), z["mu_after"], atol=1e-6)
    assert (mu.sigmoid() - z["mu"]).abs().max() > 0.05


@pytest.mark.parametrize("sigma", [0.005, 0.2, 3.0])
def test_against_scipy(sigma):
    mean = torch.tensor([0.01, 0.5, 0.97], dtype=torch.float64)
    uniform = torch.from_numpy(np.random.default_rng(1).random((50, 3)))
    policy = Policy(logits(mean), sigma)
    twin = truncnorm(-mean / sigma, (1 - mean) / sigma, mean, sigma)
    theta = policy.sample(uniform)
    np.testing.assert_allclose(theta, twin.ppf(uniform), atol=1e-9)
    np.testing.assert_allclose(policy.log_prob(theta), twin.logpdf(theta), atol=1e-8)
    assert ((theta >= 0) & (theta <= 1)).all()


def test_spread_over_the_rounds():
    assert [shrunk(0.2, done, 4) for done in range(5)] == pytest.approx([0.2, 0.15, 0.1, 0.05, 0.0])


def test_rate():
    """0 at first, full at the end of the warm-up, a half half-way down."""
    ppo = PPO(0.1, 0.01, 100, 30)
    assert [ppo.rate(step) for step in (0, 15, 30, 65)] == pytest.approx([0, 0.005, 0.01, 0.005])
    assert 0 < ppo.rate(99) < 0.001


def test_moves_towards_what_was_rewarded():
    """Two samples to either side of the mean: the better one draws it; equal rewards leave it where it is."""
    policy, theta = Policy(torch.zeros(1, dtype=torch.float64), 0.2), torch.tensor([[0.4], [0.6]], dtype=torch.float64)
    ppo = PPO(0.1, 0.01, 100, 30)
    for rewards, sign in (([0.0, 1.0], 1), ([1.0, 0.0], -1), ([0.5, 0.5], 0)):
        mu = updated(policy, 0.2, theta, torch.tensor(rewards), ppo)
        assert np.sign(mu.item()) == sign


def test_the_ratio_is_clipped():
    """Once the better sample's ratio is beyond 1 + clip and the worse one's below 1 - clip, no gradient is left: the
    update ends there, give or take Adam's momentum."""
    policy, theta = Policy(torch.zeros(1, dtype=torch.float64), 0.2), torch.tensor([[0.4], [0.6]], dtype=torch.float64)
    found = {}
    for clip in (0.1, 0.3):
        mu = updated(policy, 0.2, theta, torch.tensor([0.0, 1.0]), PPO(clip, 0.005, 300, 30))
        found[clip] = (Policy(mu, 0.2).log_prob(theta) - policy.log_prob(theta)).exp().squeeze(1).tolist()
    assert 0.82 < found[0.1][0] < 0.9 and 1.1 < found[0.1][1] < 1.2
    assert found[0.3][0] < 0.72  # the better sample's own ratio cannot pass exp(1/8): it is half a spread away


def test_gradient_of_the_density():
    """In mu, by differences."""
    mu = torch.tensor([0.3, -1.2], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([[0.2, 0.9]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda value: Policy(value, 0.2).log_prob(theta), (mu,))
    assert math.isfinite(Policy(mu, 1e-3).log_prob(theta).sum().item())
