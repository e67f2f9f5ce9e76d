"""A claim of a paper, the check that measures it, and what the check found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor


@dataclass(frozen=True)
class Claim:
    """One formula or statement of a paper. The arguments of `check` are what it measures, for tests to spoil."""

    id: str  # as in the experiments' checklist: AP-Q1, AL-Q3, ...
    where: str  # in the paper
    statement: str  # one line
    check: "Callable[..., Verdict]"


def claim(id: str, where: str, statement: str) -> "Callable[[Callable[..., Verdict]], Claim]":
    """Makes a Claim of the check that it decorates; that is all a new claim needs, besides its module in report.py."""
    return lambda check: Claim(id, where, statement, check)


def claims_of(module: ModuleType) -> list[Claim]:
    """The claims that a module defines, in the order of their definition."""
    return [thing for thing in vars(module).values() if isinstance(thing, Claim)]


class Finding(NamedTuple):
    """One measured fact behind a verdict."""

    holds: bool
    text: str  # with the measured figure


class Table(NamedTuple):
    """Rows behind a verdict, saved as <claim>-<name>.csv."""

    name: str
    headers: Sequence[str]
    rows: Sequence[Sequence[object]]


class Plot(NamedTuple):
    """A figure that belongs to a claim, saved as <claim>-<name>.png."""

    name: str
    caption: str
    size: tuple[float, float]  # inches
    draw: Callable[[Figure], None]  # onto an empty figure


@dataclass(frozen=True)
class Verdict:
    """What a check found. A claim holds if every finding does."""

    findings: tuple[Finding, ...]
    exceptions: str = ""  # where what is stated does not go on to hold: a sentence or two
    reading: str = ""  # how what the paper leaves open, or misprints, was read
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()

    @property
    def holds(self) -> bool:
        """False without findings: nothing was checked."""
        return bool(self.findings) and all(finding.holds for finding in self.findings)

    @property
    def word(self) -> str:
        """What the report prints."""
        return "holds" if self.holds else "does not hold"


def agree(what: str, difference: float, tolerance: float) -> Finding:
    """Two things agree: the largest `difference` met is within `tolerance`. NaN is not."""
    allowed = f"allowed {tolerance:.0e}" if tolerance else "none allowed"
    return Finding(difference <= tolerance, f"{what}: largest difference {difference:.1e} ({allowed})")


def at_most(what: str, value: float, bound: float) -> Finding:
    """`value` does not exceed `bound`."""
    return Finding(value <= bound, f"{what}: {value:.4g} (allowed: at most {bound:.4g})")


def difference(a: Tensor | float, b: Tensor | float) -> float:
    """The largest absolute difference of two tensors of one shape, or of two numbers; 0 for empty ones."""
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    if a.shape != b.shape:
        return float("inf")
    return (a - b).abs().max().item() if a.numel() else 0.0
