"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parents[1]

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The checkout's root."""
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real photographs (bccd, coco128): $RANKDET_DATA, or shared/data beside the checkout."""
    for folder in (os.environ.get("RANKDET_DATA"), REPO.parent / "shared" / "data"):
        if folder and (Path(folder) / "bccd").is_dir():
            return Path(folder)
    if os.environ.get("CI"):
        pytest.fail("the real photographs (shared/data beside the checkout, or $RANKDET_DATA) must be there in CI")
    pytest.skip("needs the folders bccd and coco128: set RANKDET_DATA to the folder that holds them")
