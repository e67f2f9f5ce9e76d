"""Trainings: the overrides and the directory of each."""

from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from omegaconf import DictConfig

from rankdet.config import compose, config_hash, detector_name, run_directory
from rankdet.files import relative
from rankdet.results.datasets import quoted, unquoted
from rankdet.results.tuning import RETINANET

RECORD = "record.json"
Reads = tuple[str, str, str]  # a data set's name, the split that is learnt from, the split that is tested on


@dataclass(frozen=True)
class Run:
    """One training: seed and overrides determine it, config_hash is over everything but the seed.

    after: the training whose weights it starts from, which is done before it."""

    overrides: tuple[str, ...]
    seed: int
    directory: Path
    config_hash: str
    protocol_version: int
    label: str  # what it is called while it runs: its row, its setting
    tuned: tuple[str, ...]  # those of the overrides that were found by tuning
    train_split: str
    detector: str = RETINANET
    test_split: str = "test"
    after: "Run | None" = None

    @property
    def name(self) -> str:
        """<model>-<loss>-<hash>: the part of the directory that seeds share."""
        return self.directory.parent.name

    @property
    def data(self) -> str:
        """The name of the data set that it is trained and tested on."""
        return self.directory.parents[2].name

    @property
    def reads(self) -> Reads:
        """Data set and splits: runs that agree in them are learnt from and tested on the same images."""
        return self.data, self.train_split, self.test_split

    @property
    def data_root(self) -> str | None:
        """The folder of the data, None where the overrides leave it to the config."""
        found = [item for item in self.overrides if item.startswith("data.root=")]
        return unquoted(found[0].removeprefix("data.root=")) if found else None

    def before(self) -> list["Run"]:
        """The trainings that have to be done before it, in their order."""
        return [*self.after.before(), self.after] if self.after else []

    @property
    def finished(self) -> bool:
        """Whether its record is there, which a run writes last."""
        return (self.directory / RECORD).is_file()


def detector_of(overrides: tuple[str, ...]) -> str:
    """The detector that overrides choose, by the name it has in run directories."""
    return _detector_of(tuple(item for item in overrides if item.partition("=")[0] in ("protocol", "model")))


@lru_cache(maxsize=64)
def _detector_of(overrides: tuple[str, ...]) -> str:
    return detector_name(compose(list(overrides)))


def make_runs(
    label: str, overrides: tuple[str, ...], seeds: tuple[int, ...], root: Path, tuned: tuple[str, ...] = ()
) -> tuple[Run, ...]:
    """The runs of one config, a seed each. tuned: which of the overrides tuning found."""
    folder, digest, version, *rest = _composed(overrides)
    return tuple(
        Run(overrides, seed, root / folder / f"seed{seed}", digest, version, label, tuned, *rest) for seed in seeds
    )


@lru_cache(maxsize=1024)
def config_of(overrides: tuple[str, ...]) -> DictConfig:
    """The config of a run but for its seed; do not write into it."""
    return compose([*overrides])


@lru_cache(maxsize=1024)
def _composed(overrides: tuple[str, ...]) -> tuple[Path, str, int, str, str, str]:
    """What a run's config says of it: folder of its seeds, hash, protocol version, split, detector, test split."""
    cfg = config_of(overrides)
    version, split = int(cfg.protocol.version), str(cfg.splits.train)
    return run_directory(cfg).parent, config_hash(cfg), version, split, detector_name(cfg), str(cfg.splits.test)


def start_from(run: Run, after: Run, root: Path) -> Run:
    """run, but from the weights of another; their path, relative to the checkout, becomes a part of its identity."""
    overrides = merge_overrides(run.overrides, (f"init_from={quoted(weights_path(after, root))}",))
    (again,) = make_runs(run.label, overrides, (run.seed,), root, run.tuned)
    return replace(again, after=after)


def weights_path(run: Run, root: Path) -> str:
    """Relative to the checkout where it lies there, so that it is the same on any machine."""
    return str(relative(run.directory / "weights.pt", root))


def telling(overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are no mere matter of where and how runs run: runtime.num_workers=8 makes no other table."""
    return tuple(item for item in overrides if not item.startswith("runtime."))


def of_args(args: tuple[str, ...]) -> list[str]:
    """What a table or figure with the user's own overrides has in its name: their hash, where they tell anything."""
    own = telling(args)
    return [f"args-{sha256(chr(0).join(own).encode()).hexdigest()[:8]}"] if own else []


def merge_overrides(*parts: tuple[str, ...]) -> tuple[str, ...]:
    """All parts in order; a key's later value takes the place of its earlier one (Hydra refuses doubles)."""
    merged: dict[str, str] = {}
    for item in (item for part in parts for item in part):
        key = item.partition("=")[0]
        merged[key] = item
    return tuple(merged.values())
