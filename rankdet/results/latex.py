r"""A table as LaTeX: \input it into a document; it needs no package."""

import re

from rankdet.results.describe import description
from rankdet.results.registry import PrintedTable
from rankdet.results.render import cells
from rankdet.results.tables import Table

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''",
    "±": r"$\pm$", "†": r"$\dagger$", "δ": r"$\delta$", "²": "$^2$",
}  # fmt: skip


def latex(table: Table) -> str:
    """A table environment for each printed table, and below the last one what was measured and how."""
    plan = table.plan
    head = f"% {plan.manifest.paper} {plan.manifest.name}: written from the recorded runs, not to be edited."
    parts = [_environment(table, printed) for printed in plan.manifest.tables]
    notes = "\n\n".join(escaped(line) for line in description(table))
    return "\n\n".join([head, *parts, f"{{\\footnotesize\n{notes}\n\n}}"]) + "\n"


def escaped(text: str) -> str:
    """text as LaTeX prints it."""
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda found: SPECIAL[found[0]], text)


def _environment(table: Table, printed: PrintedTable) -> str:
    headers, lines = cells(table, printed)
    beside = f", beside {printed.id}" if printed.is_printed else ""
    title = f"{printed.title}: protocol {table.plan.protocol} on {', '.join(table.plan.data_names)}{beside}."
    columns = f"l{'r' * (len(headers) - 2)}l"
    body = [" & ".join(map(escaped, line)) + r" \\" for line in lines]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(title)}}}",
            rf"\label{{tab:{printed.id}:{table.plan.file_stem}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\hline",
            " & ".join(map(escaped, headers)) + r" \\",
            r"\hline",
            *body,
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )
