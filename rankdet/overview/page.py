"""experiments/report.html: the published tables and figures in one file that needs no other and no network."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import jinja2
import markdown
from PIL import Image

from rankdet.overview.index import PAPERS, called
from rankdet.overview.published import Edition
from rankdet.report.figures import data_uri

NUMBER = re.compile(r"-|[-+]?[\d.,]+( ± [\d.]+)?( †)?")
DIGITS = set("0123456789")
COLORS = 128  # of a plot; the full palette would make the page three times as large


class Section(NamedTuple):
    """One table or figure. anchor: its id on the page; short: its name in the list; body: HTML."""

    anchor: str
    short: str
    heading: str
    body: str


def report_page(root: Path, index: str, published: Sequence[Edition]) -> str:
    """The page's HTML, without what has not been written yet. index: the Markdown of experiments/README.md.

    Equal files, equal bytes."""
    paths = {root / "experiments" / edition.paper / f"{edition.stem}.md": edition for edition in published}
    there = {path: edition for path, edition in paths.items() if path.is_file()}
    papers = {
        title: [_section(path, edition) for path, edition in there.items() if edition.paper == paper]
        for paper, title in PAPERS.items()
    }
    anchors = {f"{edition.paper}/{edition.stem}.md": _anchor(edition) for edition in there.values()}
    overview = _tree(index)
    _keep_links(overview, anchors)
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("rankdet.overview", "."), jinja2.PackageLoader("rankdet.report", ".")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    for _ in range(2):  # its heading, and the paragraph on the file that it is
        overview.remove(overview[0])
    return environment.get_template("page.html").render(overview=_html(overview), papers=papers)


def _section(path: Path, edition: Edition) -> Section:
    tree = _tree(path.read_text(encoding="utf-8"))
    heading = "".join(tree[0].itertext())
    tree.remove(tree[0])
    for image in tree.iter("img"):
        image.set("src", _data_uri(path.with_name(image.attrib["src"])))
    notes = [child for child in tree if child.tag == "ul"]
    for child in notes:
        tree.remove(child)
        details = ElementTree.SubElement(tree, "details")
        ElementTree.SubElement(details, "summary").text = "What was measured, on what, and how far it carries"
        details.append(child)
    where = ", ".join(filter(None, (edition.protocol, edition.data)))
    return Section(_anchor(edition), f"{called(edition.name)}{f' ({where})' if where else ''}", heading, _html(tree))


def _anchor(edition: Edition) -> str:
    return f"{edition.paper}-{edition.stem}"


def _tree(text: str) -> ElementTree.Element:
    """Markdown as a tree, its tables in boxes that scroll, cells with numbers to the right."""
    tree = ElementTree.fromstring(f"<div>{markdown.markdown(text, extensions=['tables'], output_format='xhtml')}</div>")
    for place, child in enumerate(tree):
        if child.tag == "table":
            box = ElementTree.Element(
                "div", {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "table"}
            )
            box.append(child)
            tree[place] = box
    for table in tree.iter("table"):
        _align(table)
    return tree


def _align(table: ElementTree.Element) -> None:
    """A column is one of numbers if it has a digit and no cell that is something else than a number or a dash."""
    for column in zip(*(list(row) for row in table.iter("tr")), strict=True):
        texts = ["".join(cell.itertext()).strip() for cell in column[1:]]
        numbers = all(NUMBER.fullmatch(text) for text in texts if text) and any(set(text) & DIGITS for text in texts)
        for cell in column:
            cell.attrib.pop("style", None)
            if numbers:
                cell.set("class", "number")


def _keep_links(tree: ElementTree.Element, anchors: dict[str, str]) -> None:
    """Those to what is on this page; in cells others go, as their files do not come along, elsewhere they are text."""
    for parent in tree.iter():
        for link in parent.findall("a"):
            target = link.attrib.pop("href")
            if target in anchors:
                link.set("href", f"#{anchors[target]}")
                link.text = "below"
            elif parent.tag == "td":
                parent.remove(link)
            else:
                link.tag = "span"


def _data_uri(path: Path) -> str:
    """The SVG of that name if there is one, else the PNG with fewer colours."""
    vector = path.with_suffix(".svg")
    if vector.is_file():
        return data_uri("image/svg+xml", vector.read_bytes())
    out = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            out, "PNG", optimize=True
        )
    return data_uri("image/png", out.getvalue())


def _html(tree: ElementTree.Element) -> str:
    return "".join(ElementTree.tostring(child, encoding="unicode", method="html") for child in tree)
