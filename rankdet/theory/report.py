"""All claims checked: what is printed, and the files of the report."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.errors import UserError
from rankdet.files import as_csv, replacing, write_text
from rankdet.theory import (
    alrp_boxes,
    alrp_claims,
    alrp_tables,
    ap_batches,
    ap_bounds,
    ap_convergence,
    ap_counterexample,
    ap_definitions,
    ap_equivalences,
    ap_landscape,
    ap_training,
    ap_update,
    dr_claims,
    harmonic_claims,
    harmonic_figures,
    parameterized_claims,
)
from rankdet.theory.claim import Claim, Plot, Table, Verdict, claims_of

# In the order of the papers; a new module of claims is named here and nowhere else.
MODULES = (
    ap_definitions, ap_update, ap_equivalences, ap_training, ap_batches,
    ap_convergence, ap_counterexample, ap_bounds, ap_landscape,
    alrp_claims, alrp_boxes, alrp_tables, dr_claims, harmonic_claims, harmonic_figures, parameterized_claims,
)  # fmt: skip


class Checked(NamedTuple):
    """A claim and what its check found."""

    claim: Claim
    verdict: Verdict
    seconds: float


def all_claims() -> list[Claim]:
    """Every claim of MODULES."""
    return [claim for module in MODULES for claim in claims_of(module)]


def chosen(ids: Sequence[str]) -> list[Claim]:
    """The claims with these ids, in the report's order; all without ids. UserError names an unknown one."""
    claims = all_claims()
    known = {claim.id for claim in claims}
    for id in ids:
        if id not in known:
            raise UserError(f"{id}: no such claim; there are {', '.join(claim.id for claim in claims)}")
    return [claim for claim in claims if not ids or claim.id in ids]


def check(claims: Sequence[Claim]) -> Iterator[Checked]:
    """Checks one claim after the other."""
    for claim in claims:
        start = time.perf_counter()
        verdict = claim.check()
        yield Checked(claim, verdict, time.perf_counter() - start)


def terminal(checked: Checked) -> str:
    """A claim as it is printed: verdict first, every finding on a line of its own, tables below."""
    claim, verdict, seconds = checked
    lines = [f"{claim.id}: {verdict.word.upper()} ({claim.where}; {seconds:.1f} s)", f"  {claim.statement}"]
    lines += [f"  {'+' if finding.holds else 'NOT'} {finding.text}" for finding in verdict.findings]
    lines += [f"  {note}" for note in notes(verdict)]
    for table in verdict.tables:
        lines += ["", *(f"  {line}" for line in rendered(table).splitlines())]
    return "\n".join(lines) + "\n"


def summary(results: Sequence[Checked]) -> str:
    """How many hold, and which do not."""
    failed = [checked.claim.id for checked in results if not checked.verdict.holds]
    return f"{len(results) - len(failed)} of {len(results)} claims hold" + (
        f", not {', '.join(failed)}" if failed else ""
    )


def markdown(results: Sequence[Checked]) -> str:
    """The report: an overview, then a section for each claim."""
    rows = [(claim.id, claim.where, verdict.word, claim.statement.replace("|", "\\|")) for claim, verdict, _ in results]
    parts = ["# The papers' formulas and claims, checked", f"{summary(results)}. None of this needs training."]
    parts.append(tabulate(rows, ("claim", "where", "verdict", "statement"), tablefmt="github", disable_numparse=True))
    for claim, verdict, _ in results:
        parts.append(f"## {claim.id}: {verdict.word}")
        parts.append(f"{claim.where}. {claim.statement}")
        parts.append("\n".join(f"- {'' if f.holds else '**does not hold:** '}{f.text}" for f in verdict.findings))
        parts += notes(verdict)
        parts += [rendered(table) for table in verdict.tables]
        parts += [f"![{plot.caption}]({stem(claim, plot)}.png)\n\n{plot.caption}" for plot in verdict.plots]
    return "\n\n".join(parts) + "\n"


def findings_csv(results: Sequence[Checked]) -> str:
    """One line per finding."""
    lines = [
        (claim.id, claim.where, verdict.word, "yes" if finding.holds else "no", finding.text)
        for claim, verdict, _ in results
        for finding in verdict.findings
    ]
    return as_csv(("claim", "where", "verdict", "finding_holds", "finding"), lines)


def save(results: Sequence[Checked], folder: Path) -> list[Path]:
    """Writes theory.md, theory.csv, and a CSV for every table and a PNG for every plot; returns their paths."""
    texts = {"theory.md": markdown(results), "theory.csv": findings_csv(results)}
    for claim, verdict, _ in results:
        for table in verdict.tables:
            texts[f"{stem(claim, table)}.csv"] = as_csv(table.headers, table.rows)
    for name, text in texts.items():
        write_text(folder / name, text)
    paths = [folder / name for name in texts]
    for claim, verdict, _ in results:
        for plot in verdict.plots:
            paths.append(folder / f"{stem(claim, plot)}.png")
            figure = Figure(figsize=plot.size, layout="constrained")
            plot.draw(figure)
            with replacing(paths[-1]) as partial:
                figure.savefig(partial, dpi=120, metadata={"Software": None})
    return paths


def stem(claim: Claim, part: Table | Plot) -> str:
    """ap-q10-steps."""
    return f"{claim.id.lower()}-{part.name}"


def notes(verdict: Verdict) -> list[str]:
    """What stands below the findings."""
    named = (("except", verdict.exceptions), ("read as", verdict.reading))
    return [f"{name}: {text}" for name, text in named if text]


def rendered(table: Table) -> str:
    """Markdown that also reads in a terminal."""
    return tabulate(table.rows, table.headers, tablefmt="github", disable_numparse=True)
