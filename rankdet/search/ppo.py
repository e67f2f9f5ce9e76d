"""One update of the policy's mean by the rewards of a round (PPO with a clipped ratio, as released)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rankdet.search.policy import Policy


@dataclass(frozen=True)
class PPO:
    """clip: of the ratio, per coordinate; lr: Adam's at its height; steps: an update; warmup: those of rising rate."""

    clip: float
    lr: float
    steps: int
    warmup: int

    def rate(self, step: int) -> float:
        """The rate of a step counted from 0: from 0 linearly to lr at `warmup`, then linearly towards 0 at `steps`."""
        if step < self.warmup:
            return self.lr * step / self.warmup
        return self.lr * (self.steps - step) / (self.steps - self.warmup)


def updated(policy: Policy, sigma: float, theta: Tensor, rewards: Tensor, ppo: PPO) -> Tensor:
    """mu [D] after a round of samples theta [S, D] with rewards [S], which were drawn from `policy`.

    sigma: the next round's spread, which the new probabilities are measured by and the old ones are not, so that the
    first ratio is not 1. Rewards are centred, not scaled. Each coordinate's log ratio is clamped before they are added
    up. Adam begins anew in every round.
    """
    advantage = (rewards - rewards.mean())[:, None].double()
    before = policy.log_prob(theta)
    mu = policy.mu.clone().requires_grad_()
    adam = torch.optim.Adam([mu], lr=ppo.lr)
    low, high = math.log(1 - ppo.clip), math.log(1 + ppo.clip)
    for step in range(ppo.steps):
        adam.param_groups[0]["lr"] = ppo.rate(step)
        log_ratio = Policy(mu, sigma).log_prob(theta) - before
        ratio = log_ratio.sum(1, keepdim=True).exp()
        clipped = log_ratio.clamp(low, high).sum(1, keepdim=True).exp()
        loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return mu.detach()
