"""The searches that experiments/searches.yaml describes, read and checked."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rankdet.errors import UserError
from rankdet.results.datasets import DataChoice, load_datasets
from rankdet.results.reading import check_keys, override_list, read_yaml, strings
from rankdet.results.runs import merge_overrides
from rankdet.search.parameters import Space
from rankdet.search.ppo import PPO

SEARCHES = Path("experiments", "searches.yaml")  # in the checkout
PROTOCOLS = ("mini", "paper")
METHODS = ("ppo", "random")
KEYS = ("searches", "policy", "ppo", "proxy", "protocols")
SEARCH_KEYS = ("data", "stages", "functions", "scale")
SEARCH_OPTIONAL = ("method", "start", "overrides", *(f"{name}_overrides" for name in PROTOCOLS))
# Settings of samples, some of them perhaps of the command line's, that the training they start from has to have, too.
SHARED = ("hold_out", "splits.", "data.", "model", "runtime.runs", "runtime.device")
COUNTS = {"rounds": 1, "samples": 2}  # and the least that makes sense: a single sample's reward is its mean


@dataclass(frozen=True)
class Search:
    """One search under one protocol. detector: overrides of every training with its functions, also of the final ones;
    proxy: of its samples alone. first: of the training from whose weights all others start, their class head new; none
    where they start from the model's own. data: what it is searched on. sigma: the policy's spread at the start."""

    name: str
    protocol: str
    space: Space
    method: str
    data: DataChoice
    detector: tuple[str, ...]
    proxy: tuple[str, ...]
    first: tuple[str, ...]
    proxy_seed: int
    seed: int
    rounds: int
    samples: int
    sigma: float
    ppo: PPO

    @property
    def training(self) -> tuple[str, ...]:
        """What any training with its functions is started with, but for the functions."""
        return merge_overrides((f"protocol={self.protocol}", *self.data.overrides), self.detector)

    @property
    def opening(self) -> tuple[str, ...]:
        """The training that all start from: on what samples learn from, by its own loss; empty where there is none."""
        shared = tuple(item for item in self.proxy if item.startswith(SHARED))
        return merge_overrides(self.training, shared, self.first) if self.first else ()

    @property
    def sample(self) -> tuple[str, ...]:
        """What a sample is started with, likewise."""
        return merge_overrides(self.training, self.proxy)


def settings_of(search: Search) -> dict[str, Any]:
    """All that experiments/searches.yaml and the command say of a search, for a JSON file."""
    fields = asdict(search)
    space, data = fields.pop("space"), fields.pop("data")
    return fields | space | {"data": data["name"]}


def search_directory(search: Search, root: Path) -> Path:
    """Where a search lies unless its command says otherwise."""
    return root / "runs" / "search" / search.protocol / search.data.name / f"{search.name}-seed{search.seed}"


def load_search(path: Path, name: str, protocol: str, data: DataChoice | None, seed: int) -> Search:
    """The search of that name. data: None: its own. UserError naming file and key for anything unknown or wrong."""
    raw = check_keys(read_yaml(path), str(path), KEYS)
    if protocol not in PROTOCOLS:
        raise UserError(f"PROTOCOL={protocol}: searches are described for {' and '.join(PROTOCOLS)}")
    if name not in raw["searches"]:
        raise UserError(f"SEARCH={name}: {path} has {', '.join(raw['searches'])}")
    if seed < 0:
        raise UserError(f"SEED={seed}: must be a whole number from 0 on")
    where = f"{path}: searches.{name}"
    entry = check_keys(raw["searches"][name], where, SEARCH_KEYS, SEARCH_OPTIONAL)
    sets = load_datasets(path.with_name("datasets.yaml"))
    if entry["data"] not in sets:
        raise UserError(f"{where}.data: {entry['data']!r} is not one of {', '.join(sets)}")
    method = str(entry.get("method", "ppo"))
    if method not in METHODS:
        raise UserError(f"{where}.method: {method!r} is not one of {', '.join(METHODS)}")
    where_budget = f"{path}: protocols.{protocol}"
    budget = check_keys(raw["protocols"][protocol], where_budget, (*COUNTS, "overrides"), ("start",))
    for key, least in COUNTS.items():
        if type(budget[key]) is not int or budget[key] < least:
            raise UserError(f"{where_budget}.{key}: expected a whole number from {least} on")
    proxy = check_keys(raw["proxy"], f"{path}: proxy", ("seed", "overrides"))
    if type(proxy["seed"]) is not int or proxy["seed"] < 0:
        raise UserError(f"{path}: proxy.seed: expected a whole number from 0 on, got {proxy['seed']!r}")
    sigma, update = _policy(raw, path)
    own, settings = sets[entry["data"]].own(protocol), sets[entry["data"]].settings_under(protocol)
    detector = [override_list(entry.get(key, []), f"{where}.{key}") for key in ("overrides", f"{protocol}_overrides")]
    samples = [
        override_list(part["overrides"], f"{path}: {at}.overrides")
        for at, part in (("proxy", proxy), (f"protocols.{protocol}", budget))
    ]
    first: tuple[str, ...] = ()
    if "start" in budget:
        both = ((budget["start"], where_budget), (entry.get("start", []), where))
        first = merge_overrides(*(override_list(items, f"{at}.start") for items, at in both))
    # A search's own settings come last: a detector that needs another schedule than the protocol's says so itself.
    return Search(
        name, protocol, _space(entry, where), method, data or own, merge_overrides(settings, *detector),
        merge_overrides(*samples, *detector), first, proxy["seed"], seed, budget["rounds"], budget["samples"],
        sigma, update,
    )  # fmt: skip


def _space(entry: Any, where: str) -> Space:  # noqa: ANN401
    if type(entry["scale"]) is not bool:
        raise UserError(f"{where}.scale: expected true or false, got {entry['scale']!r}")
    try:
        return Space(strings(entry["stages"], f"{where}.stages"), str(entry["functions"]), entry["scale"])
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _policy(raw: Any, path: Path) -> tuple[float, PPO]:  # noqa: ANN401
    sigma = check_keys(raw["policy"], f"{path}: policy", ("sigma",))["sigma"]
    ppo = PPO(**check_keys(raw["ppo"], f"{path}: ppo", ("clip", "lr", "steps", "warmup")))
    for key, value in (("policy.sigma", sigma), ("ppo.clip", ppo.clip), ("ppo.lr", ppo.lr)):
        if type(value) not in (int, float):
            raise UserError(f"{path}: {key}: expected a number, got {value!r}")
    for key, value in (("ppo.steps", ppo.steps), ("ppo.warmup", ppo.warmup)):
        if type(value) is not int:
            raise UserError(f"{path}: {key}: expected a whole number, got {value!r}")
    for key, value, good in (
        ("policy.sigma", sigma, sigma > 0),
        ("ppo.clip", ppo.clip, 0 < ppo.clip < 1),
        ("ppo.lr", ppo.lr, ppo.lr > 0),
        ("ppo.steps", ppo.steps, ppo.steps > ppo.warmup > 0),
    ):
        if not good:
            raise UserError(f"{path}: {key}: {value} makes no sense")
    return float(sigma), ppo
