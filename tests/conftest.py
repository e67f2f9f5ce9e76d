"""Fixtures shared by all tests."""

import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import browser
import pytest
import torch

from rankdet.results.registry import Registry, load_registry

REPO = Path(__file__).resolve().parents[1]

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The checkout's root."""
    return REPO


@pytest.fixture(scope="session")
def registry(repo: Path) -> Registry:
    """The papers' printed numbers."""
    return load_registry(repo / "experiments" / "registry.yaml")


@pytest.fixture(scope="session")
def front_end(repo: Path) -> Callable[[str], Callable[..., int]]:
    """name -> main of that script, to be run in this process."""
    return lambda name: runpy.run_path(str(repo / "scripts" / f"{name}.py"))["main"]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """A browser; the test skips where there is none, but not where a push is checked."""
    executable = browser.find()
    if executable is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("needs a Chromium: apt-get install chromium")
    with browser.browser(executable, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder that holds the photographs bccd (VOC layout) and coco128 (COCO layout): $RANKDET_DATA."""
    folder = os.environ.get("RANKDET_DATA")
    if not folder:
        pytest.skip("needs photographs: set RANKDET_DATA to a folder that holds bccd and coco128")
    if not (Path(folder) / "bccd").is_dir() or not (Path(folder) / "coco128").is_dir():
        pytest.fail(f"RANKDET_DATA={folder}: holds no folders bccd and coco128")
    return Path(folder).resolve()
