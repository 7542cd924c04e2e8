"""Fixtures of the task tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def public_data():
    """Finds a public data set by file name, in ``$BAKEOFF_TEST_DATA`` or a ``shared/data`` folder; skips without."""
    folders = [Path(os.environ.get("BAKEOFF_TEST_DATA", "")), ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]

    def find(name):
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        return path or pytest.skip(f"{name} is not on this machine")

    return find
