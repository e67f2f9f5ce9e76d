"""The settings that a figure's tuning found: experiments/tuning/<name>.<data>.yaml, or fresh in runs/tuning/."""

from dataclasses import dataclass
from pathlib import Path

from rankdet.results.reading import check_keys, read_yaml

OUTCOME_KEYS = ("data", "protocol", "protocol_version", "seeds", "grid", "quantity", "series")


@dataclass(frozen=True)
class Outcome:
    """The settings of each series, and the text that says how they were found."""

    path: Path
    data: str
    best: dict[str, dict[str, float]]
    text: str


def find_outcome(root: Path, name: str, data: str) -> Outcome | None:
    """The settings found on this data, fresh (runs/) before committed ones; None where there are none."""
    for folder in (root / "runs" / "tuning", root / "experiments" / "tuning"):
        path = folder / f"{name}.{data}.yaml"
        if path.is_file():
            return load_outcome(path)
    return None


def load_outcome(path: Path) -> Outcome:
    """Reads and checks one file that outcome_yaml made."""
    raw = check_keys(read_yaml(path), str(path), OUTCOME_KEYS)
    best, edges = {}, []
    for key, value in raw["series"].items():
        entry = check_keys(value, f"{path}: series.{key}", ("best", "final", "at_edge", "trials"))
        best[str(key)] = {name: float(number) for name, number in entry["best"].items()}
        edges += [f"{name} for {key}" for name in entry["at_edge"]]
    count = max(len(entry["trials"]) for entry in raw["series"].values())
    chosen = "; ".join(f"{key}: {', '.join(f'{n} {v:g}' for n, v in setting.items())}" for key, setting in best.items())
    text = (
        f"Tuned on {raw['data']}, split train, the same {count} settings for each series, by the lowest final "
        f"{raw['quantity']} (protocol {raw['protocol']} version {raw['protocol_version']}, seed "
        f"{', '.join(map(str, raw['seeds']))}): {chosen}."
    )
    if edges:
        text += f" At the edge of the grid, so that a better value may lie beyond: {', '.join(edges)}."
    return Outcome(path, str(raw["data"]), best, text)
