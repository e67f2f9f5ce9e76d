"""experiments/README.md: where every table and figure stands, with links to what there is of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from rankdet.figures.manifest import is_figure, load_figure
from rankdet.figures.specs import Computed
from rankdet.overview.published import Edition
from rankdet.overview.targets import goal, names
from rankdet.results.manifest import load_manifest
from rankdet.results.registry import PrintedTable, Registry, load_registry

PAPERS = {
    "ap-loss": "AP-loss (TPAMI 2020)",
    "alrp": "aLRP loss (NeurIPS 2020)",
    "dr-loss": "DR loss (CVPR 2020), supplement",
    "harmonic": "Harmonic loss (ICCV 2021), supplement",
    "pap": "Parameterized AP loss (NeurIPS 2021), supplement",
    "all-losses": "All losses side by side",
}  # by their folders; the registry has none of the last one, which is our own, and none of the harmonic loss's
KINDS = {"md": "table", "csv": "CSV", "tex": "LaTeX", "png": "plot", "cost.png": "accuracy against cost", "svg": "SVG"}
FIGURE_KINDS = KINDS | {"md": "text", "csv": "points"}
HEADERS = ("", "what it shows", "protocol", "data", "done", "seeds", "newest run", "files")
ELSEWHERE = {  # files, or patterns of several, in experiments/
    "pap/search.*.md": "What was found by searches of Parameterized AP loss (make compare-search-pap)",
    "pap/searches/*/*/report.md": "Round by round (make search-pap)",
    "pap/toy-search.md": "The same search on a toy problem (make search-toy)",
    "all-losses/README.md": "What the comparison of all losses says, and what not (make reproduce-all-losses)",
    "profile/profile.md": "What the losses cost (make profile-loss)",
    "profile/loading.md": "What loading images costs (make profile-loading)",
    "benchmark/benchmark.md": "What a training step costs (make benchmark)",
    "theory/theory.md": "The papers' formulas and theorems, checked (make reproduce-theory)",
}
HEAD = """# Experiments

Written by `make publish` from the committed records; not to be edited. A row is done when all of its seeds are; rows
that a paper quotes from elsewhere do not count. `make publish` also writes `report.html` beside this page: all of it
in one file, plots included, to be read offline; it is not under version control.

Protocol mini trains a small detector for about a minute, mini_long for four times the steps: on drawn shapes, or on
bccd, 364 photographs of blood cells. Both compare the order of rows and neither confirms nor refutes a paper's numbers.
`make plan` says what is left to train, `make status` what is running."""


def index(root: Path, published: Sequence[Edition]) -> str:
    """The page. Every paper's tables are there, also those for which nothing has been done."""
    registry = load_registry(root / "experiments" / "registry.yaml")
    parts = [HEAD]
    for paper, title in PAPERS.items():
        lines = [*_tables(root, paper, registry, published), *_figures(root, paper, registry, published)]
        table = tabulate(lines, HEADERS, tablefmt="pipe", disable_numparse=True, stralign=None)
        parts += [f"## {title}", table if lines else "It prints no table."]
    folder = root / "experiments"
    found = {pattern: sorted(folder.glob(pattern)) for pattern in ELSEWHERE}
    there = [
        f"- [{text}{_which(path, pattern)}]({path.relative_to(folder)})"
        for pattern, text in ELSEWHERE.items()
        for path in found[pattern]
    ]
    missing = [f"- {text}: nothing published" for pattern, text in ELSEWHERE.items() if not found[pattern]]
    return "\n\n".join([*parts, "## Beside the tables", "\n".join([*there, *missing])]) + "\n"


def _which(path: Path, pattern: str) -> str:
    """What tells files of one pattern apart: the end of search.shapes.NAMES.md, or the folders of a report.md."""
    if "*" not in pattern:
        return ""
    protocol, name = path.parent.parent.name, path.parent.name
    return f": {name}, {protocol}" if path.stem == "report" else f": {path.stem.partition('.')[2]}"


def _tables(root: Path, paper: str, registry: Registry, published: Sequence[Edition]) -> Iterator[list[str]]:
    """A line for each edition of each manifest in the order of the registry, or for a printed table without any.

    Tables of our own come last."""
    folder = root / "experiments" / paper
    manifests = {}
    for name in names(root, paper) if folder.is_dir() else ():
        manifests |= dict.fromkeys(_printed(folder / f"{name}.yaml", registry), name)
    seen = set()
    for printed in registry.tables.values():
        name = manifests.get(printed.id)
        if printed.id.partition("/")[0] != paper or (name and name in seen):
            continue
        seen.add(name)
        own = [edition for edition in published if (edition.paper, edition.name) == (paper, name)]
        kinds = FIGURE_KINDS if (name or "").startswith("figure") else KINDS
        yield from (_line(root, edition, kinds) for edition in own)
        if not own:
            yield _empty(printed, paper, name)
    for name in dict.fromkeys(name for table, name in manifests.items() if table not in registry.tables):
        own = [edition for edition in published if (edition.paper, edition.name) == (paper, name)]
        yield from (_line(root, edition, KINDS) for edition in own)
        if not own:
            title = load_manifest(folder / f"{name}.yaml", registry).tables[0].title
            yield _waiting(paper, name, title)


def _figures(root: Path, paper: str, registry: Registry, published: Sequence[Edition]) -> Iterator[list[str]]:
    folder = root / "experiments" / paper
    for name in names(root, paper) if folder.is_dir() else ():
        path = folder / f"{name}.yaml"
        if is_figure(path) and not _printed(path, registry):
            own = [edition for edition in published if (edition.paper, edition.name) == (paper, name)]
            yield from (_line(root, edition, FIGURE_KINDS) for edition in own)
            if not own:
                yield _waiting(paper, name, load_figure(path).title)


def _printed(path: Path, registry: Registry) -> list[str]:
    """Ids of the printed tables that a manifest is for."""
    if not is_figure(path):
        return [printed.id for printed in load_manifest(path, registry).tables]
    spec = load_figure(path).spec
    return list(spec.tables) if isinstance(spec, Computed) else []


def _line(root: Path, edition: Edition, kinds: dict[str, str]) -> list[str]:
    stem = f"{edition.paper}/{edition.stem}"
    files = [f"[{text}]({stem}.{kind})" for kind, text in kinds.items() if _exists(root, f"{stem}.{kind}")]
    seeds = ", ".join(map(str, edition.seeds)) or "-"
    state = [edition.protocol or "-", edition.data or "-", edition.done, seeds, edition.newest or "-"]
    return [f"**{called(edition.name)}**", edition.title, *state, " ".join(files)]


def _exists(root: Path, path: str) -> bool:
    return (root / "experiments" / path).is_file()


def _empty(printed: PrintedTable, paper: str, name: str | None) -> list[str]:
    if name is not None:
        return _waiting(paper, name, printed.title)
    if printed.kind == "measured":
        state = f"not yet: {len(printed.own_rows())} own rows"
    else:
        state = "nothing to train: `make reproduce-theory` works it out"
    return [called(printed.id.partition("/")[2]), printed.title, "-", "-", state, "-", "-", ""]


def _waiting(paper: str, name: str, title: str) -> list[str]:
    return [f"**{called(name)}**", title, "-", "-", f"nothing published: `make {goal(paper, name)}`", "-", "-", ""]


def called(name: str) -> str:
    """Table 2, Figure 8a."""
    return name.replace("-", " ").capitalize()
