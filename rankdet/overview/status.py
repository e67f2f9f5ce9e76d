"""What make status prints: a line for each table and figure, and below it what is running, failed or broken off."""

from collections.abc import Sequence
from pathlib import Path

from rankdet.files import relative
from rankdet.overview.state import DONE, FAILED, RUNNING, STATES, WAITING, Standing, seconds_left, standing
from rankdet.overview.targets import Target, distinct
from rankdet.results.progress import duration


def status(targets: Sequence[Target], root: Path, jobs: int) -> str:
    """The text. Each run is looked at once, and told of where it comes first."""
    found = {run.directory: standing(run, root) for run in distinct(targets)}
    known: set[Path] = set()
    lines = []
    for target in targets:
        own = [found[run.directory] for run in target.order]
        lines.append(f"{target.title}: {counts(own)}")
        for each in own:
            if each.run.directory not in known:
                lines += told(each, root)
            known.add(each.run.directory)
    everything = list(found.values())
    return "\n".join([*lines, f"in all: {counts(everything)}{left(everything, root, jobs)}"]) + "\n"


def counts(standings: Sequence[Standing]) -> str:
    """12 of 24 trainings done, 2 running, 1 failed, 9 waiting."""
    number = {state: sum(each.state == state for each in standings) for state in STATES}
    others = [f"{number[state]} {state}" for state in STATES if state != DONE and number[state]]
    return ", ".join([f"{number[DONE]} of {len(standings)} trainings done", *others])


def left(standings: Sequence[Standing], root: Path, jobs: int) -> str:
    """How long what is not done will take, if that can be told; empty where nothing is left."""
    if not any(each.state in (RUNNING, WAITING) for each in standings):
        return ""
    seconds = seconds_left(standings, root, jobs)
    if seconds is None:
        return "; time left: unknown until a training has finished"
    return f"; about {duration(seconds)} of training left with {jobs} at a time"


def told(each: Standing, root: Path) -> list[str]:
    """A line on a run that is running, failed or broken off; none on others."""
    run = each.run
    name = f"{run.label} seed {run.seed}"
    at = f"step {each.step} of {'?' if each.steps is None else each.steps}"
    if each.state == RUNNING:
        if each.step is None:
            return [f"  running  {name}: starting"]
        if each.step == each.steps:
            return [f"  running  {name}: trained, being tested"]
        return [f"  running  {name}: {at}" + (f", about {duration(each.seconds)} left" if each.seconds else "")]
    if each.state == FAILED:
        return [f"  failed   {name}: {each.says} ({relative(run.directory / 'log.txt', root)})"]
    if each.state == WAITING and each.step is not None:
        return [f"  waiting  {name}: broken off at {at}, goes on from its last checkpoint"]
    return []
