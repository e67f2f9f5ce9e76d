"""A sample's reward: the AP that a short training by its functions reaches on images held out of the training split."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from rankdet.build import open_source
from rankdet.config import compose, config_hash
from rankdet.data.records import DetectionSet, data_hash
from rankdet.errors import UserError
from rankdet.results.datasets import quoted
from rankdet.results.launch import Hardware, run_all
from rankdet.results.queue import Failure
from rankdet.results.records import read_finished
from rankdet.results.runs import Run, make_runs, merge_overrides, weights_path
from rankdet.results.today import require_data
from rankdet.search.parameters import overrides
from rankdet.search.settings import Search, settings_of
from rankdet.training.codes import DEAD, NOT_FINITE

METRIC = "AP"
REPORTED = "test"  # the split that what was found is tested on


class ProxyFailure(Exception):
    """A sample ended otherwise than by a reward: a fault of the machine or the program, so the search stops."""

    def __init__(self, failures: list[Failure]) -> None:
        super().__init__(f"{len(failures)} samples failed")
        self.failures = failures


@dataclass(frozen=True)
class Proxy:
    """Trains samples, `jobs` at a time, in run directories that are functions of their functions.

    data_hash: of what samples learn from and are judged on."""

    search: Search
    jobs: int
    hardware: Hardware
    root: Path
    data_hash: str

    def __call__(self, index: int | None, theta: Tensor) -> list[float]:
        """One reward a row of theta; that of a training that died or left the numbers is 0.

        Raises ProxyFailure; UserError where one that is finished already was trained on other data of the same name.
        """
        runs = [self.run(index, place, row) for place, row in enumerate(theta)]
        everything = [*runs[0].before(), *runs]
        for run in everything:
            require_data(run, self.data_hash)  # else it would be taken over: its directory is named by data.name alone
        failures = run_all(everything, self.jobs, self.hardware, self.root)
        samples = {run.directory for run in runs}
        died = [one for one in failures if one.code in (DEAD, NOT_FINITE) and one.job.directory in samples]
        if len(died) < len(failures):
            raise ProxyFailure([failure for failure in failures if failure not in died])
        rewards = [self.reward(run) for run in runs]
        for run in runs:  # a sample is its record: weights and detections of hundreds of them would fill a disk
            for folder in ("checkpoints", "evaluation"):
                shutil.rmtree(run.directory / folder, ignore_errors=True)
            (run.directory / "weights.pt").unlink(missing_ok=True)
        return rewards

    def reward(self, run: Run) -> float:
        """Of a training that is over."""
        return float(read_finished(run.directory)["metrics"][METRIC] or 0) if run.finished else 0.0

    def run(self, index: int | None, place: int, theta: Tensor) -> Run:
        """One sample's training."""
        label = "the identity line" if index is None else f"round {index + 1} sample {place + 1}"
        settings = merge_overrides(self.search.sample, overrides(self.search.space.shapes(theta)))
        (run,) = runs_of(self.search, label, settings, (self.search.proxy_seed,), self.root)
        return run


def runs_of(
    search: Search, label: str, settings: tuple[str, ...], seeds: tuple[int, ...], root: Path
) -> tuple[Run, ...]:
    """Trainings by settings, a seed each; where the search has an opening, from its weights, the class head fresh."""
    if not search.opening:
        return make_runs(label, settings, seeds, root)
    (first,) = make_runs("what all trainings start from", search.opening, (search.proxy_seed,), root)
    start = ("fresh_class_head=true", f"init_from={quoted(weights_path(first, root))}")
    return tuple(replace(run, after=first) for run in make_runs(label, merge_overrides(settings, start), seeds, root))


def described(search: Search) -> dict[str, Any]:
    """All that a search's rewards depend on, for a JSON file. UserError for what cannot be trained."""
    opening = {"opening_hash": config_hash(compose([*search.opening]))} if search.opening else {}
    of_samples = {"config_hash": config_hash(compose([*search.sample])), "data_hash": check_splits(search)}
    return settings_of(search) | opening | of_samples


def check_splits(search: Search) -> str:
    """A hash of what samples learn from and are judged on.

    UserError where these share an image, or one of them with the test split, that results are reported on: its AP would
    then be that of a split the search has seen. And where the data set has no such split.
    """
    cfg = compose([*search.sample])
    source = open_source(cfg)
    learnt, judged, reported = (source.read(split) for split in (cfg.splits.train, cfg.splits.test, REPORTED))
    _require_apart(learnt, judged, "searches are judged on images that their samples have not learnt from")
    for split in (learnt, judged):
        _require_apart(split, reported, f"a search must not see {REPORTED}: see hold_out in the proxy's overrides")
    return data_hash(learnt, judged)


def _require_apart(one: DetectionSet, other: DetectionSet, why: str) -> None:
    shared = {record.path.resolve() for record in one.records} & {record.path.resolve() for record in other.records}
    if shared:
        raise UserError(
            f"{one.name}: the splits {one.split} and {other.split} share {len(shared)} images, such as "
            f"{min(shared).name}; {why}"
        )
