"""The notebooks' code runs from top to bottom without Jupyter, and prints what the committed outputs show."""

import base64
import io
import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch


@pytest.fixture(scope="module")
def cells(repo):
    """The code cells of the only notebook."""
    (path,) = (repo / "notebooks").glob("*.ipynb")
    found = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(found) >= 6
    return found


@pytest.fixture
def figures(monkeypatch):
    """What plt.show was called with: the figures, drawn without a screen and then closed."""
    matplotlib.use("Agg")
    shown = []

    def show():
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
            shown.append(number)
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    with matplotlib.rc_context():
        yield shown


def printed(cell):
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def pictures(cell):
    return [output["data"]["image/png"] for output in cell["outputs"] if output["output_type"] == "display_data"]


def test_the_cells_run_in_order_and_print_what_is_committed(cells, figures):
    threads = torch.get_num_threads()
    names = {}
    try:
        for number, cell in enumerate(cells):
            screen, before = io.StringIO(), len(figures)
            with redirect_stdout(screen):
                exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
            assert screen.getvalue() == printed(cell), f"cell {number}: run the notebook again and save it"
            assert len(figures) - before == len(pictures(cell)), f"cell {number}: figures"
    finally:
        torch.set_num_threads(threads)
    assert len(figures) == 4


def test_it_was_saved_after_one_run_from_the_top(cells):
    """Numbered 1, 2, 3 ..., no errors, nothing on the error stream, and figures that are pictures of some size."""
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] in ("stream", "display_data") for output in outputs)
    assert all(output["name"] == "stdout" for output in outputs if output["output_type"] == "stream")
    for picture in [picture for cell in cells for picture in pictures(cell)]:
        assert base64.b64decode(picture).startswith(b"\x89PNG")
        assert 10_000 < len(picture) < 200_000


def test_it_says_nothing_of_the_machine(repo):
    """No path of a checkout, an environment or a home outside the pictures, no kernel of one's own, no time stamps."""
    for path in (repo / "notebooks").glob("*.ipynb"):
        notebook = json.loads(path.read_text())
        for cell in notebook["cells"]:
            assert cell["metadata"] == {}
            for output in cell.get("outputs", []):
                output.get("data", {}).pop("image/png", None)
        text = json.dumps(notebook)
        folders = (repo, Path.home(), tempfile.gettempdir(), sys.prefix)
        for trace in (*(f"{folder}/" for folder in folders), "site-packages", "/home/", "/Users/"):
            assert trace not in text, trace
        assert notebook["metadata"]["kernelspec"]["name"] == "python3"
