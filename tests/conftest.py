"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

FAKE_LAB = Path(__file__).parent / "fake_lab"


@pytest.fixture
def fake_lab(tmp_path, monkeypatch):
    """Makes ``fake_lab`` importable, here and in processes started from here, and installs its plugins."""
    metadata = tmp_path / "site" / "fake_lab-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-lab\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "".join(
            f"[bakeoff.{kind.lower()}s]\nfake = fake_lab:Fake{kind}\n"
            for kind in ("Algorithm", "Task", "Evaluator", "Judge")
        )
    )
    for folder in (FAKE_LAB, metadata.parent):
        monkeypatch.syspath_prepend(folder)
    paths = [str(FAKE_LAB), str(metadata.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return "fake_lab"
