"""One row of a manifest: its settings under each protocol, and the rows whose runs or weights it shares."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rankdet.errors import UserError
from rankdet.results.reading import check_keys, flag, override_list
from rankdet.robustness.conditions import CONDITIONS

PROTOCOL_KEYS = ("paper", "reason", "mini_overrides", "paper_overrides", "start_from", "searched_by")
TEST_KEYS = ("test", "mini_test", "paper_test")
ROW_KEYS = ("overrides", "mini", *PROTOCOL_KEYS, "same_run_as", "same_weights_as", "condition", *TEST_KEYS)


@dataclass(frozen=True)
class ManifestRow:
    """The runs of one printed row. mini, paper: whether that protocol can do it; reason: why mini cannot."""

    key: str
    overrides: tuple[str, ...]
    mini: bool
    paper: bool
    reason: str | None
    same_run_as: str | None  # key of the row that these runs belong to
    same_weights_as: str | None = None  # likewise, where only the test is another
    test: tuple[str, ...] = ()  # settings of another test of the weights than the one that the training ends with
    mini_overrides: tuple[str, ...] = ()  # on top of overrides under mini and mini_long
    paper_overrides: tuple[str, ...] = ()  # likewise under paper
    mini_test: tuple[str, ...] = ()  # on top of test, likewise
    paper_test: tuple[str, ...] = ()
    start_from: str | None = None  # <manifest>#<row>: whose weights the trainings start from, seed by seed
    searched_by: str | None = None  # the search of experiments/searches.yaml whose functions the loss takes
    condition: str | None = None  # what all its cells are tested under; None: what the columns say

    @property
    def trained_as(self) -> str:
        """Key of the row whose trainings these are, maybe in another manifest."""
        return self.same_run_as or self.same_weights_as or self.key

    @property
    def loss(self) -> str:
        """The row's choice of the config group loss."""
        return next(item.removeprefix("loss=") for item in self.overrides if item.startswith("loss="))

    def under(self, protocol: str) -> tuple[str, ...]:
        """The row's own settings under a protocol; later ones take over."""
        return (*self.overrides, *(self.paper_overrides if protocol == "paper" else self.mini_overrides))

    def test_under(self, protocol: str) -> tuple[str, ...]:
        """The settings of its own test under a protocol; later ones take over."""
        return (*self.test, *(self.paper_test if protocol == "paper" else self.mini_test))


def read_row(key: str, raw: object, path: Path, retests_only: bool) -> ManifestRow:
    """A row as the manifest has it, checked. retests_only: its manifest trains nothing of its own."""
    where = f"{path}: rows.{key}"
    row = check_keys(raw, where, (), ROW_KEYS)
    tests = {name: override_list(row.get(name, []), f"{where}.{name}") for name in TEST_KEYS}
    if retests_only or "same_weights_as" in row:
        row = check_keys(raw, where, ("same_weights_as",), (*TEST_KEYS, "condition"))
        condition = check_condition(str(row["condition"]), where) if "condition" in row else None
        own = str(row["same_weights_as"])
        return ManifestRow(key, (), False, False, None, None, own, **tests, condition=condition)
    if "same_run_as" in row:
        if len(row) > 1:
            raise UserError(f"{where}: same_run_as stands alone, the other row's settings hold; remove the other keys")
        return ManifestRow(key, (), False, False, None, str(row["same_run_as"]))
    row = check_keys(raw, where, ("overrides", "mini"), (*PROTOCOL_KEYS, *TEST_KEYS))
    for name in ("mini", "paper"):
        flag(row.get(name, False), f"{where}.{name}")
    if row["mini"] == ("reason" in row):
        raise UserError(f"{where}: a row says reason if, and only if, it is mini: false")
    overrides = override_list(row["overrides"], f"{where}.overrides")
    if not any(item.startswith("loss=") for item in overrides):
        raise UserError(f"{where}.overrides: name the loss, loss=...: its tuned settings are looked up by it")
    special = {}
    for protocol in ("mini", "paper"):
        name = f"{protocol}_overrides"
        special[name] = override_list(row.get(name, []), f"{where}.{name}")
        if special[name] and not row.get(protocol, False):
            raise UserError(f"{where}.{name}: the row is not done under {protocol}; also say {protocol}: true")
    links = {name: str(row[name]) for name in ("start_from", "searched_by") if name in row}
    flags = (row["mini"], row.get("paper", False), row.get("reason"))
    return ManifestRow(key, overrides, *flags, None, **links, **special, **tests)


def check_condition(name: str, where: str) -> str:
    """name, if it is a condition to test under; else UserError."""
    if name not in CONDITIONS:
        raise UserError(f"{where}: there is no condition {name!r}; there are {', '.join(CONDITIONS)}")
    return name


def follow(row: ManifestRow, rows: Mapping[str, ManifestRow], path: Path) -> ManifestRow:
    """The row with the settings of the one among rows whose runs or weights it names."""
    if row.trained_as == row.key and row.same_weights_as is None:
        return row
    other = rows.get(row.trained_as)
    if other is None or other.same_run_as is not None or other.same_weights_as is not None:
        link = "same_run_as" if row.same_run_as else "same_weights_as"
        raise UserError(f"{path}: rows.{row.key}.{link}: {row.trained_as!r} is no row with runs of its own")
    shared = ("overrides", "mini", "mini_overrides", "paper", "paper_overrides", "reason", "start_from", "searched_by")
    shared += TEST_KEYS if row.same_run_as else ()
    return replace(row, **{name: getattr(other, name) for name in shared})
