"""The toy search with the functions fixed, shared and separate: what each comes to, as a table and a plot (PA-X1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from tabulate import tabulate

from rankdet.figures.content import COLORS, mean_sd
from rankdet.files import as_csv
from rankdet.results.datasets import DataChoice
from rankdet.search import toy
from rankdet.search.found import best_sample
from rankdet.search.parameters import Space
from rankdet.search.ppo import PPO
from rankdet.search.rounds import Round, begin, run_search
from rankdet.search.settings import Search, settings_of

FAMILIES = ("fixed", "shared", "separate")
ROUNDS, SAMPLES = 8, 8
REWARDED = [(toy.draw(seed), toy.draw(seed + 1)) for seed in (0, 2)]  # pairs to learn and to be judged on
UNSEEN = [(toy.draw(seed), toy.draw(seed + 1)) for seed in range(100, 112, 2)]


@dataclass(frozen=True)
class Outcome:
    """What a family's search came to. unseen: AP of its best sample on pairs that the search did not see, one each."""

    family: str
    size: int
    rounds: list[Round]
    unseen: list[float]

    @property
    def reward(self) -> float:
        """Of the best sample."""
        return max(max(one.rewards) for one in self.rounds)


def toy_search(family: str, rounds: int = ROUNDS, samples: int = SAMPLES) -> Search:
    """The search of a family; its gradient scale is searched, too."""
    nowhere = DataChoice("synthetic", ())
    ppo = PPO(clip=0.1, lr=0.01, steps=100, warmup=30)
    return Search(
        f"toy-{family}", "toy", Space(("loss",), family, True), "ppo", nowhere, detector=(), proxy=(), first=(),
        proxy_seed=0, seed=0, rounds=rounds, samples=samples, sigma=0.2, ppo=ppo,
    )  # fmt: skip


def outcome(search: Search, directory: Path) -> Outcome:
    """Searches what is missing in directory, then measures the best sample."""
    begin(directory, settings_of(search) | {"toy": {name: getattr(toy, name) for name in toy.SETTINGS}})
    rounds = run_search(search, toy.measure(search.space, REWARDED), directory, lambda start, rounds: None)
    index, place = best_sample(rounds)
    theta = torch.tensor(rounds[index].theta[place], dtype=torch.float64)
    return Outcome(search.space.functions, search.space.size, rounds, unseen(search.space, theta))


def unseen(space: Space, theta: torch.Tensor) -> list[float]:
    """AP on each pair that no search saw."""
    shape = space.shapes(theta)["loss"]
    return [toy.trained_ap(shape, learnt, judged) for learnt, judged in UNSEEN]


def markdown(line: tuple[float, list[float]], outcomes: Sequence[Outcome]) -> str:
    """line: reward of the identity line, and its AP on the unseen pairs."""
    rows = [
        ("the identity line, gradient scale 1", 0, f"{100 * line[0]:.1f}", mean_sd([100 * ap for ap in line[1]], 1))
    ]
    rows += [
        (f"{one.family} functions", one.size, f"{100 * one.reward:.1f}", mean_sd([100 * ap for ap in one.unseen], 1))
        for one in outcomes
    ]
    table = tabulate(
        rows, ["best of", "parameters", "best reward", "AP on unseen sets"], tablefmt="github", disable_numparse=True
    )
    by_reward = [one.family for one in sorted(outcomes, key=lambda one: -one.reward)]
    measured = [("the line", line[1]), *((one.family, one.unseen) for one in outcomes)]
    by_unseen = [name for name, _ in sorted(measured, key=lambda one: -fmean(one[1]))]
    notes = [
        f"A linear detector on {toy.POSITIVES} positive and {toy.NEGATIVES} negative synthetic anchors, trained for "
        f"{toy.STEPS} steps. Reward: AP in percent, the mean over IoU thresholds 0.50:0.05:0.95, of {len(REWARDED)} "
        f"trainings, each on a set of its own. {ROUNDS} rounds of {SAMPLES} samples; the gradient scale is searched in "
        "all three.",
        f"AP on unseen sets: mean ± sample standard deviation over {len(UNSEEN)} further pairs of sets.",
        "The supplement's Table 3 orders them separate, shared, handcrafted, each above the next. Here by best reward: "
        f"{', '.join(by_reward)}; on unseen sets: {', '.join(by_unseen)}. Spreads of that size leave the latter order "
        "open.",
    ]
    return (
        "\n".join(["# A toy search of Parameterized AP loss", "", table, "", *(f"- {note}" for note in notes)]) + "\n"
    )


def csv(outcomes: Sequence[Outcome]) -> str:
    """A line a sample."""
    lines = [
        (one.family, index + 1, place + 1, reward)
        for one in outcomes
        for index, each in enumerate(one.rounds)
        for place, reward in enumerate(each.rewards)
    ]
    return as_csv(("functions", "round", "sample", "reward"), lines)


def plot(line: float, outcomes: Sequence[Outcome], path: Path) -> None:
    """Mean and best reward so far, round by round."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axes.axhline(100 * line, color="#777777", ls=":", lw=1.2, label="the identity line, gradient scale 1")
    for number, one in enumerate(outcomes):
        rewards = 100 * np.array([each.rewards for each in one.rounds])
        x = np.arange(1, len(rewards) + 1)
        axes.plot(x, rewards.mean(1), color=COLORS[number], ls="--", lw=1.1)
        best = np.maximum.accumulate(rewards.max(1))
        axes.plot(x, best, color=COLORS[number], lw=1.8, label=f"{one.family} functions, {one.size} searched")
    axes.set_xlabel("round")
    axes.set_ylabel("AP of the toy detector (%)")
    axes.set_title("Toy search: best so far (solid) and mean of the round (dashed)", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
