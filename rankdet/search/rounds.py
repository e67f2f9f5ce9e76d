"""The search itself: round by round, each written down when it is done, so that it can be stopped at any moment."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankdet.errors import UserError
from rankdet.files import write_json
from rankdet.results.reading import read_json
from rankdet.search.policy import Policy, logits, shrunk
from rankdet.search.ppo import updated
from rankdet.search.settings import Search

SETTINGS = "search.json"
START = "start.json"

# (round from 0, or None for the start alone; theta [S, D]) -> S rewards, those of dead samples 0
Measure = Callable[[int | None, Tensor], Sequence[float]]


@dataclass(frozen=True)
class Round:
    """What one round drew, what came of it, and where that moved the policy: all that the rest of a search needs."""

    sigma: float
    mu: list[float]  # [D], that it drew from
    theta: list[list[float]]  # [S, D]
    rewards: list[float]  # [S]
    mu_after: list[float]

    @property
    def policy(self) -> Policy:
        """What it drew from."""
        return Policy(torch.tensor(self.mu, dtype=torch.float64), self.sigma)


def run_search(
    search: Search, measure: Measure, directory: Path, watch: Callable[[float, list[Round]], None]
) -> list[Round]:
    """All rounds, those that directory already holds and the missing ones.

    watch: called with the start's reward and the rounds so far, once at first and after each, before that is written
    down: where all rounds are, all that watch makes of them is there, too. A round is a function of the search's seed,
    its own number and the round before, so that what was under way at an interruption is drawn again, the same.
    """
    rounds = load_rounds(directory)
    start = _start(search, measure, directory)
    watch(start, rounds)
    for index in range(len(rounds), search.rounds):
        rounds.append(play(search, rounds, measure))
        watch(start, rounds)
        write_json(round_path(directory, index), asdict(rounds[-1]))
    return rounds


def play(search: Search, before: Sequence[Round], measure: Measure) -> Round:
    """The round after those before."""
    index = len(before)
    mu = torch.tensor(before[-1].mu_after, dtype=torch.float64) if before else logits(search.space.start())
    frozen = search.method == "random"
    policy = Policy(mu, search.sigma if frozen else shrunk(search.sigma, index, search.rounds))
    uniform = np.random.default_rng([search.seed, index]).random((search.samples, search.space.size))
    theta = policy.sample(torch.from_numpy(uniform))
    rewards = [float(reward) for reward in measure(index, theta)]
    after = mu
    if not frozen:
        # nothing is drawn after the last round, whose next spread would be 0
        spread = shrunk(search.sigma, index + 1, search.rounds) or policy.sigma
        after = updated(policy, spread, theta, torch.tensor(rewards, dtype=torch.float64), search.ppo)
    return Round(policy.sigma, mu.tolist(), theta.tolist(), rewards, after.tolist())


def begin(directory: Path, content: dict[str, Any]) -> None:
    """Writes down what is searched, or UserError where directory holds a search of something else.

    content: JSON, with everything that a reward depends on."""
    if (directory / SETTINGS).is_file():
        require_same(directory, content)
    elif (directory / START).is_file() or round_path(directory, 0).is_file():
        raise UserError(f"{directory}: holds rounds but no {SETTINGS} that says of what; remove that folder")
    else:
        write_json(directory / SETTINGS, content)


def require_same(directory: Path, content: dict[str, Any]) -> None:
    """UserError unless directory holds a search of just this."""
    path = directory / SETTINGS
    if not path.is_file():
        raise UserError(f"{path}: no such file; make search-pap with the same SEARCH, DATA and SEED makes it")
    before, content = read_json(path), json.loads(json.dumps(content))
    for key in dict.fromkeys([*before, *content]):
        if before.get(key) != content.get(key):
            was, now = (json.dumps(each.get(key)) for each in (before, content))
            raise UserError(
                f"{directory}: was begun with {key}={was}, not {now}; set it back, or remove that folder to begin anew"
            )


def load_rounds(directory: Path) -> list[Round]:
    """The rounds that are done, in order. UserError for a file that is damaged."""
    rounds: list[Round] = []
    while (path := round_path(directory, len(rounds))).is_file():
        try:
            rounds.append(Round(**read_json(path)))
        except TypeError as error:
            raise UserError(f"{path}: is no round of a search ({error}); delete it and those after it") from error
    return rounds


def round_path(directory: Path, index: int) -> Path:
    """Where a round is written down."""
    return directory / "rounds" / f"{index:03d}.json"


def load_start(directory: Path) -> float:
    """The reward of the identity line. UserError where it is not there."""
    path = directory / START
    if not path.is_file():
        raise UserError(f"{path}: no such file; make search-pap makes a search's directory")
    content = read_json(path)
    if not isinstance(content, dict) or type(content.get("reward")) is not float:
        raise UserError(f"{path}: holds no reward; delete it, and make search-pap measures it again")
    return content["reward"]


def _start(search: Search, measure: Measure, directory: Path) -> float:
    """The reward of theta that the search begins at: measured once, beside the samples."""
    path = directory / START
    if not path.is_file():
        (reward,) = measure(None, search.space.start()[None])
        write_json(path, {"reward": float(reward)})
    return load_start(directory)
