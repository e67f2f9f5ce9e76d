"""What is left to train, before anything starts: as commands with the reckoning between them, and as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankdet.errors import UserError
from rankdet.files import relative
from rankdet.overview.cost import Speeds, Work, work
from rankdet.overview.targets import Part, Target, distinct
from rankdet.results.launch import Hardware, as_typed, check_hardware, command, retest_jobs, shown
from rankdet.results.retests import Tests, outstanding
from rankdet.results.runs import Run


@dataclass(frozen=True)
class Reckoning:
    """What to reckon with: what a training runs on, the GPUs that were measured, and the checkout."""

    hardware: Hardware
    speeds: Sequence[Speeds]
    root: Path

    def work(self, run: Run) -> Work:
        """A training's length."""
        return work(run, self.root)

    def hours(self, run: Run) -> dict[str, float]:
        """GPU hours by hardware, as far as measured."""
        found = {speeds.hardware: self.work(run).gpu_hours(speeds, self.hardware.processes) for speeds in self.speeds}
        return {hardware: hours for hardware, hours in found.items() if hours is not None}


def script(targets: Sequence[Target], reckoning: Reckoning) -> str:
    """A shell script of what is left, row by row, with the reckoning as comments; each training at its first row."""
    lines = []
    seen: dict[Path, str] = {}
    for target in targets:
        left = [run for run in target.order if not run.finished]
        lines.append(f"# {target.title}: {_count(left, target.order)}")
        lines += _in_the_way(left, reckoning.hardware)
        for part in target.parts:
            lines.append(f"# {part.label}: {_part(part, seen, reckoning)}")
            lines += [
                shown(run, reckoning.hardware) for run in part.runs if not run.finished and run.directory not in seen
            ]
            seen |= {run.directory: f"{part.label} ({target.name})" for run in part.runs if run.directory not in seen}
        lines += [*(f"# besides: {what}" for what in target.besides), ""]
    tests = _tests(targets)
    if tests:
        lines.append(f"# tests of trained weights that are left: {sum(map(len, tests.values()))}")
        lines += [as_typed(job.command) for job in retest_jobs(tests, tests, reckoning.hardware.gpus)]
        lines.append("")
    lines.append(f"# in all, each training once: {_total(distinct(targets), reckoning)}")
    return "\n".join(lines) + "\n"


def as_json(targets: Sequence[Target], reckoning: Reckoning) -> dict[str, Any]:
    """Every target's parts with the directories of their runs, and every run once with its command and length."""
    runs = distinct(targets)
    return {
        "targets": [
            {
                "paper": target.paper, "name": target.name, "protocol": target.protocol, "data": target.data,
                "besides": list(target.besides),
                "parts": [
                    {
                        "label": part.label, "why_not": part.why,
                        "runs": [_relative(run, reckoning.root) for run in part.runs],
                    }
                    for part in target.parts
                ],
            }
            for target in targets
        ],
        "runs": [
            {
                "directory": _relative(run, reckoning.root), "seed": run.seed, "finished": run.finished,
                "command": ["python", *command(run, reckoning.hardware)[1:]],
                "steps": reckoning.work(run).steps, "image_passes": reckoning.work(run).image_passes,
                "gpu_hours": reckoning.hours(run),
            }
            for run in runs
        ],
        "tests_left": sum(map(len, _tests(targets).values())),
    }  # fmt: skip


def _in_the_way(left: Sequence[Run], hardware: Hardware) -> list[str]:
    """What a target's command would refuse."""
    try:
        check_hardware(left, hardware, workers=1)
    except UserError as error:
        return [f"# as it stands, its command starts nothing: {error}"]
    return []


def _part(part: Part, seen: dict[Path, str], reckoning: Reckoning) -> str:
    if part.why is not None:
        return part.why
    elsewhere = dict.fromkeys(seen[run.directory] for run in part.runs if run.directory in seen)
    if len(elsewhere) == 1 and all(run.directory in seen for run in part.runs):
        return f"the trainings of {next(iter(elsewhere))}"
    left = [run for run in part.runs if not run.finished]
    lengths = {(reckoning.work(run).steps, reckoning.work(run).image_passes) for run in part.runs}
    each = " or ".join(
        f"{_number(steps)} steps, {_number(passes)} image passes" for steps, passes in sorted(lengths, key=str)
    )
    hours = f"; {_hours(left, reckoning)}" if left else ""
    return f"{_count(left, part.runs)}; a training: {each}{hours}"


def _total(runs: Sequence[Run], reckoning: Reckoning) -> str:
    left = [run for run in runs if not run.finished]
    passes = [reckoning.work(run).image_passes for run in left]
    known = sum(count for count in passes if count is not None)
    unknown = sum(count is None for count in passes)
    text = f"{_count(left, runs)}; {known:,} image passes"
    text += f" and those of {unknown} trainings of unknown length" if unknown else ""
    return f"{text}; {_hours(left, reckoning)}" if left else _count(left, runs)


def _hours(runs: Sequence[Run], reckoning: Reckoning) -> str:
    """By GPU; where a part of them was not measured, of how many the hours are."""
    each = [reckoning.hours(run) for run in runs]
    texts = []
    for speeds in reckoning.speeds:
        known = [hours[speeds.hardware] for hours in each if speeds.hardware in hours]
        if known:
            of = "" if len(known) == len(runs) else f" for {len(known)} of them, the others not measured"
            texts.append(f"{sum(known):,.1f} GPU hours on {speeds.hardware}{of}")
    return "; ".join(texts) or "GPU hours: not measured"


def _tests(targets: Iterable[Target]) -> Tests:
    """Of finished trainings those without a current record, of the others all."""
    wanted: Tests = {}
    for target in targets:
        for run, tests in target.retests.items():
            wanted.setdefault(run, []).extend(test for test in tests if test not in wanted.get(run, ()))
    todo = {run: tests for run, tests in wanted.items() if tests and not run.finished}
    return todo | outstanding(wanted)


def _count(left: Sequence[Run], runs: Sequence[Run]) -> str:
    return f"{len(left)} of {len(runs)} trainings left" if runs else "no trainings"


def _number(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _relative(run: Run, root: Path) -> str:
    return str(relative(run.directory, root))
