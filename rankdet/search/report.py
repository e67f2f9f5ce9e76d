"""What a search tells while it runs: a line, TensorBoard, pictures and a table, all anew after every round."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate
from torch.utils.tensorboard import SummaryWriter

from rankdet.files import as_csv, write_text
from rankdet.results.progress import duration
from rankdet.search import plots
from rankdet.search.found import Found, findings, save
from rankdet.search.rounds import Round
from rankdet.search.settings import Search


class Report:
    """Watches one search into its directory: progress.png, rewards.csv, report.md, best/, mean/ and an event file."""

    def __init__(self, search: Search, directory: Path, done: int) -> None:
        """done: the rounds that were there before. TensorBoard is told of them again: it may not know the last one."""
        self.search, self.directory = search, directory
        self.board = SummaryWriter(str(directory), purge_step=1)
        self.told, self.done = 0, done
        self.begun = time.monotonic()

    def __call__(self, start: float, rounds: list[Round]) -> None:
        """Tells of the rounds since the last call."""
        plots.save(plots.progress(self.search, start, rounds), self.directory / "progress.png")
        if not rounds:
            self._say(f"the identity line: AP {100 * start:.2f} on held-out images")
            return
        write_text(self.directory / "rewards.csv", rewards_csv(rounds))
        found = findings(self.search, start, rounds)
        for one in found:
            save(self.search, one, self.directory)
            plots.save(self._functions(one), self.directory / one.name / "functions.png")
        write_text(self.directory / "report.md", summary(self.search, start, rounds, found))
        for index in range(self.told, len(rounds)):
            self._tell(index, start, rounds[: index + 1])
        self.board.flush()
        self.told = len(rounds)

    def _tell(self, index: int, start: float, rounds: Sequence[Round]) -> None:
        """One round into TensorBoard and onto the screen."""
        one, step = rounds[-1], index + 1
        best = max(max(each.rewards) for each in rounds)
        values = {"mean": float(np.mean(one.rewards)), "best": max(one.rewards), "best so far": best, "identity": start}
        for name, value in values.items():
            self.board.add_scalar(f"reward/{name}", value, step)
        for place, reward in enumerate(one.rewards):
            self.board.add_scalar(f"samples/{place + 1}", reward, step)
        self.board.add_scalar("policy/spread", one.sigma, step)
        for name, value in zip(self.search.space.names(), one.policy.mean.tolist(), strict=True):
            self.board.add_scalar(f"mean/{name}", value, step)
        self.board.add_figure("functions/best", self._functions(findings(self.search, start, rounds)[0]), step)
        left, eta = self.search.rounds - step, ""
        if left and step > self.done:
            eta = f", about {duration((time.monotonic() - self.begun) / (step - self.done) * left)} left"
        shown = "  ".join(f"{name} {100 * values[name]:.2f}" for name in ("mean", "best", "best so far"))
        self._say(f"round {step}/{self.search.rounds}: AP {shown}{eta}")

    def _functions(self, found: Found) -> plots.Figure:
        title = f"{self.search.name}, {found.name}"
        return plots.functions(self.search.space.shapes(found.theta), title)

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def summary(search: Search, start: float, rounds: Sequence[Round], found: Sequence[Found]) -> str:
    """Markdown: what was searched, round by round, and what was found."""
    header = ("round", "spread", "mean AP", "best AP", "AP of 0")
    rows = [
        (index + 1, f"{one.sigma:.3f}", f"{100 * np.mean(one.rewards):.2f}", f"{100 * max(one.rewards):.2f}",
         one.rewards.count(0.0))
        for index, one in enumerate(rounds)
    ]  # fmt: skip
    space = search.space
    what = f"{space.size} parameters ({space.functions} functions{', gradient scale' * space.scale})"
    lines = [
        f"# {search.name}: protocol {search.protocol} on {search.data.name}, seed {search.seed}",
        "",
        f"{what}, method {search.method}, {search.samples} samples a round, {len(rounds)} of {search.rounds} rounds. "
        "Rewards are AP in percent on held-out images, 0 for a training that died; the identity line, where the search "
        f"starts, got {100 * start:.2f}.",
        "",
        tabulate(rows, header, tablefmt="github", disable_numparse=True),
        "",
        *(f"- {one.name}: {one.origin}" for one in found),
        "",
        "![rewards, and the policy, round by round](progress.png)",
        "",
        "![functions of the best sample](best/functions.png)",
    ]
    return "\n".join(lines) + "\n"


def rewards_csv(rounds: Sequence[Round]) -> str:
    """A line a sample."""
    lines = [
        (index + 1, place + 1, one.sigma, reward)
        for index, one in enumerate(rounds)
        for place, reward in enumerate(one.rewards)
    ]
    return as_csv(("round", "sample", "spread", "reward"), lines)
