"""The two pages about all that is published, written from the files beside them."""

from pathlib import Path

from rankdet.files import write_text
from rankdet.overview.index import index
from rankdet.overview.page import report_page
from rankdet.overview.published import editions


def write_overview(root: Path) -> list[Path]:
    """Writes experiments/README.md and report.html; returns their paths. An unchanged state changes no byte."""
    published = editions(root)
    text = index(root, published)
    paths = [root / "experiments" / name for name in ("README.md", "report.html")]
    write_text(paths[0], text)
    write_text(paths[1], report_page(root, text, published))
    return paths
