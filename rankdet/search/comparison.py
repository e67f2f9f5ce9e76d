"""What searches were worth: trainings by what they found and by the identity line, tested on what none of them saw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from tabulate import tabulate
from torch import Tensor

from rankdet.config import compose
from rankdet.errors import UserError
from rankdet.figures.content import COLORS, mean_sd, spread
from rankdet.files import as_csv
from rankdet.results.describe import run_facts
from rankdet.results.records import Record, run_records
from rankdet.results.runs import Run, merge_overrides
from rankdet.results.separation import above
from rankdet.search.found import findings
from rankdet.search.parameters import overrides
from rankdet.search.proxy import runs_of
from rankdet.search.rounds import load_rounds, load_start
from rankdet.search.settings import Search

METRICS = ("AP", "AP50", "AP75")
ALIKE = ("protocol", "data", "detector", "proxy", "first", "rounds", "samples")  # of searches that are compared


@dataclass(frozen=True)
class Contestant:
    """Functions that were trained by, a seed each. reward: on the held-out images, None where that was not measured.

    method: of the search that found them, None of the identity line."""

    label: str
    reward: float | None
    runs: tuple[Run, ...]
    method: str | None = None


def contestants(searches: Sequence[tuple[Search, Path]], seeds: tuple[int, ...], root: Path) -> list[Contestant]:
    """The identity line, then what each search found. searches: with their directories.

    UserError for one that is not finished, and for searches that differ in more than space, method and seed."""
    first, directory = searches[0]
    start = first.space.start()
    found = [("the identity line", load_start(directory), first, start, None)]
    for search, folder in searches:
        for key in ALIKE:
            if getattr(search, key) != getattr(first, key):
                raise UserError(f"{search.name} and {first.name}: differ in {key}, so their budgets do not compare")
        rounds = load_rounds(folder)
        if len(rounds) < search.rounds:
            raise UserError(
                f"{folder}: {len(rounds)} of {search.rounds} rounds are done; the make search-pap that began it goes on"
            )
        best = max(max(one.rewards) for one in rounds)
        for one in findings(search, load_start(folder), rounds):
            label = f"{search.name}, {'best sample' if one.name == 'best' else 'last mean'}"
            found.append((label, best if one.name == "best" else None, search, one.theta, search.method))
    return [
        Contestant(label, reward, runs_of(search, label, final(search, shapes_of(search, theta)), seeds, root), method)
        for label, reward, search, theta, method in found
    ]


def shapes_of(search: Search, theta: Tensor) -> tuple[str, ...]:
    """The overrides that theta stands for."""
    return overrides(search.space.shapes(theta))


def final(search: Search, functions: tuple[str, ...]) -> tuple[str, ...]:
    """A whole training by functions: on all images that the samples had a part of, tested on the test split."""
    whole = str(compose([*search.sample]).hold_out.of)
    splits = (f"splits.train={whole}", "splits.monitor=null", "splits.test=test")
    return merge_overrides(search.training, ("loss=parameterized_ap", "box_loss=none", *splits), functions)


def scores(contestant: Contestant, metric: str = "AP") -> list[float]:
    """Percent, one a finished seed."""
    return [100 * (record["metrics"][metric] or 0.0) for record in run_records(contestant.runs)]


def markdown(title: str, found: Sequence[Contestant], searches: Sequence[Search]) -> str:
    """The table and what it says."""
    rows = [
        (
            one.label,
            "-" if one.reward is None else f"{100 * one.reward:.2f}",
            *(mean_sd(scores(one, metric)) if scores(one, metric) else "-" for metric in METRICS),
            len(scores(one)),
        )
        for one in found
    ]
    table = tabulate(rows, ["trained by", "reward", *METRICS, "n"], tablefmt="github", disable_numparse=True)
    first = searches[0]
    budget = f"{first.rounds} rounds of {first.samples} samples"
    notes = [
        "Ours: mean ± sample standard deviation over n seeds, in percent, on the test split, of which the searches "
        "have seen nothing. Reward: AP of the one short training on held-out images that the functions were chosen by, "
        "which tells above all how fast a loss begins.",
        f"Every search had {budget}. random: the same number of samples of the policy as it starts, none the wiser for "
        "any reward.",
        *opening(found),
        *verdicts(found),
        *among_searches(found),
        *(run_facts([run.train_split for one in found for run in one.runs], done) if (done := records(found)) else []),
    ]
    return "\n".join([f"# {title}", "", table, "", *(f"- {line}" for line in notes)]) + "\n"


def opening(found: Sequence[Contestant]) -> list[str]:
    """What all trainings start from, where that is a training."""
    firsts = found[0].runs[0].before()
    return [
        f"All trainings, those of the searches, too, start from one network, {first.name}, with a class head that is "
        "new, as the paper's start from ImageNet's weights. It learnt from the images that the samples learn from."
        for first in firsts
    ]


def distinct(found: Sequence[Contestant]) -> list[Run]:
    """Each run once: two searches may have found the same functions."""
    return list({run.directory: run for one in found for run in one.runs}.values())


def records(found: Sequence[Contestant]) -> list[Record]:
    """All that is finished."""
    return run_records(distinct(found))


def finished(one: Contestant) -> bool:
    """Whether all of its trainings are."""
    return len(scores(one)) == len(one.runs)


def verdicts(found: Sequence[Contestant]) -> list[str]:
    """For each that was found: whether it beats the identity line, which is to be ahead with every seed."""
    line, *others = found
    before = scores(line)
    lines = []
    for one in others:
        now = scores(one)
        if not (finished(one) and finished(line)):
            lines.append(f"{one.label}: not all seeds are finished, so nothing is said.")
            continue
        ahead = sum(a > b for a, b in zip(now, before, strict=True))
        gap = fmean(now) - fmean(before)
        word = "beats" if ahead == len(now) else "does not beat"
        lines.append(
            f"{one.label}: {word} the identity line it starts from in AP: {gap:+.2f} in the mean, ahead with {ahead} "
            f"of {len(now)} seeds."
        )
    if finished(line) and any(map(finished, others)):
        lines.append(
            f"Functions that do no better than the line are ahead with all of {len(before)} seeds in 1 of "
            f"{2 ** len(before)} cases, by chance."
        )
    return lines


def among_searches(found: Sequence[Contestant]) -> list[str]:
    """Whether the seeds tell what the searches by reward found from what was drawn at random."""
    drawn = [one for one in found if one.method == "random"]
    by_reward = [one for one in found if one.method not in ("random", None)]
    lines = []
    for one, other in product(by_reward, drawn):
        now, before = scores(one), scores(other)
        if now and before:
            apart = above(now, before) or above(before, now)
            lines.append(
                f"{one.label}, less {other.label}: {fmean(now) - fmean(before):+.2f} AP in the mean; the seeds "
                f"{'tell' if apart else 'do not tell'} the two apart."
            )
    if lines:
        lines.append(
            "There is one search a method: ± is over trainings by what it found, not over searches, which may find "
            "better or worse with another seed."
        )
    return lines


def csv(found: Sequence[Contestant]) -> str:
    """A line a training."""
    lines = [
        (one.label, record["seed"], *(record["metrics"][metric] for metric in METRICS))
        for one in found
        for record in run_records(one.runs)
    ]
    return as_csv(("trained_by", "seed", *METRICS), lines)


def plot(title: str, found: Sequence[Contestant], path: Path) -> None:
    """Bars with spread and single runs. Equal results, equal bytes."""
    figure, axes = plt.subplots(figsize=(8, 1.4 + 0.55 * len(found)), layout="constrained")
    for place, one in enumerate(found):
        values = scores(one)
        if values:
            color = "#999999" if place == 0 else COLORS[0]
            axes.barh(place, fmean(values), 0.6, color=color, alpha=0.5, xerr=spread(values) or None, capsize=4)
            axes.plot(values, [place] * len(values), ls="", marker="o", ms=4, color="black")
    if scores(found[0]):
        axes.axvline(fmean(scores(found[0])), color="#777777", ls="--", lw=1)
    axes.set_yticks(range(len(found)), [one.label for one in found])
    axes.invert_yaxis()
    most = max([value for one in found for value in scores(one)], default=1.0)
    axes.set_xlim(0, math.ceil(most * 1.1))
    axes.set_xlabel("AP on the test split (%): bars are means, dots single seeds")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
