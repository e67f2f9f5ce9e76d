"""Records of finished runs: where they lie, which run each belongs to, and what makes one stale."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankdet.results.reading import check_keys, read_json
from rankdet.results.returned import with_returned
from rankdet.results.runs import Run
from rankdet.results.tuning import TUNED_KEYS

FIELDS = (
    "config_hash", "data_name", "data_hash", "protocol_name", "protocol_version", "seed", "split", "steps",
    "planned_steps", "image_passes", "num_images", "threads", "train_seconds", "cpu_seconds", "commit", "dirty",
    "torch", "hardware", "date", "metrics",
)  # fmt: skip
# Of one machine, or of the seed: no part of which row a record belongs to.
NOT_ROW = ("seed", "data.root", "gpus")


@dataclass(frozen=True)
class Record:
    """One finished run as it was recorded; content is the JSON file's. metrics: fractions in 0..1."""

    path: Path
    content: dict[str, Any]

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401
        """A field of the record."""
        return self.content[key]

    @property
    def overrides(self) -> tuple[str, ...]:
        """What the run was started with; only published records say so."""
        return tuple(self.content.get("overrides", ()))


@dataclass(frozen=True)
class Match:
    """The record found for a run. stale: why it is not one of today's run; empty if it is."""

    record: Record
    stale: tuple[str, ...]


def read_record(path: Path) -> Record:
    """UserError naming the file where it is no JSON or lacks a field. Further fields are kept."""
    content = read_json(path)
    known = content if isinstance(content, dict) else ()
    return Record(path, dict(check_keys(content, str(path), FIELDS, [key for key in known if key not in FIELDS])))


def run_records(runs: Iterable[Run]) -> list[Record]:
    """The records that lie in the runs' own directories."""
    return [read_finished(run.directory) for run in runs if run.finished]


def read_finished(directory: Path) -> Record:
    """A finished run's record, with what an evaluation server returned for its test, if anything."""
    record = read_record(directory / "record.json")
    detections = directory / "evaluation" / record["split"] / "detections.json"
    return Record(record.path, with_returned(record.content, detections))


def published_records(folder: Path) -> list[Record]:
    """All records of one published data set and protocol, experiments/records/<data>/<protocol>/."""
    return [read_record(path) for path in sorted(folder.glob("*.json"))]


def match(run: Run, records: Sequence[Record]) -> Match | None:
    """The record of exactly this config and seed; else the newest of the same row under an older config, as stale."""
    same_seed = [record for record in records if record["seed"] == run.seed]
    exact = [record for record in same_seed if record["config_hash"] == run.config_hash]
    if exact:
        return Match(exact[-1], ())
    older = superseded(run, same_seed)
    if not older:
        return None
    record = max(older, key=lambda record: record["date"])
    reasons = ["its configuration has changed since"]
    if record["protocol_version"] != run.protocol_version:
        reasons = [f"protocol version {record['protocol_version']}, now {run.protocol_version}"]
    return Match(record, tuple(reasons))


def superseded(run: Run, records: Iterable[Record]) -> list[Record]:
    """Records of the same row and seed under another config: protocol, defaults or tuned settings changed since."""
    own = row_identity(run.overrides, run.tuned)
    return [
        record
        for record in records
        if record["seed"] == run.seed
        and record["config_hash"] != run.config_hash
        and record.overrides
        and own == row_identity(record.overrides, tuple(record.content.get("tuned", ())))
    ]


def row_identity(overrides: Iterable[str], tuned: Iterable[str]) -> frozenset[str]:
    """The overrides that say which row it is: not where it ran, nor what tuning added."""
    kept = [item for item in overrides if item.partition("=")[0] not in NOT_ROW]
    tuned_keys = {item.partition("=")[0] for item in tuned} & set(TUNED_KEYS)
    return frozenset(item for item in kept if item.partition("=")[0] not in tuned_keys)


def flag_other_data(matches: Iterable[Match | None], data_hash: str | None = None) -> list[Match | None]:
    """The matches, with those on other data marked stale. data_hash: of today's data; None: that of most records."""
    matches = list(matches)
    hashes = Counter(found.record["data_hash"] for found in matches if found and not found.stale)
    if data_hash is None and hashes:
        data_hash = hashes.most_common(1)[0][0]
    flagged: list[Match | None] = []
    for found in matches:
        if found and data_hash is not None and found.record["data_hash"] != data_hash:
            hashes = f"{found.record['data_hash']}, not {data_hash}"
            reason = f"trained or tested on other data ({hashes}); remove its run to repeat it"
            found = Match(found.record, (*found.stale, reason))
        flagged.append(found)
    return flagged
