"""Reports are written when something changed, wherever they are sent, and one that fails stops no other."""

import pytest

from bakeoff import registry, reporting
from bakeoff.errors import PluginError
from bakeoff.store import Store


class Results:
    """Stands for the reports family's own: the ids of the planned cells."""

    @staticmethod
    def read(folder, *, mixed=False):
        store = Store(folder)
        return [entry["id"] for entry in store.read_json(store.plan_path)["cells"]]


class Count:
    """A report that writes the number of cells."""

    def write(self, results, to):
        to.mkdir(parents=True, exist_ok=True)
        (to / "count.txt").write_text(f"{len(results)}\n")
        return [to / "count.txt"]


class Broken:
    """A report that cannot be written."""

    def write(self, results, to):
        raise ZeroDivisionError("no cells")


@pytest.fixture(autouse=True)
def reports(monkeypatch):
    """Installs two reports in place of the built-in ones: ``broken`` and ``count``."""
    family = type("frame", (), {"Results": Results})
    plugins = {"broken": Broken, "count": Count}
    monkeypatch.setattr(reporting, "_reports", lambda module: family)
    monkeypatch.setattr(registry, "names", lambda kind: sorted(plugins))
    monkeypatch.setattr(registry, "load", lambda kind, name: plugins[name])
    monkeypatch.setattr(registry, "source_hash", lambda plugin: plugin.__name__)
    return plugins


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "run")
    plan(store, "a")
    return store


def plan(store, *ids):
    store.write_json(store.plan_path, {"cells": [{"id": each} for each in ids]})


def count_of(folder):
    return (folder / "count.txt").read_text()


def test_reports_are_refreshed_when_something_changed(store, reports):
    """A new cell, or a cell that ended, makes the reports be written again; nothing else does."""
    del reports["broken"]

    def refresh():
        return reporting.refresh_reports(store, reporting.read_results(store))

    assert [refresh(), refresh()] == [True, False]
    plan(store, "a", "b")
    assert [refresh(), refresh()] == [True, False]
    assert count_of(store.folder / "report") == "2\n"
    store.open_cell("b")
    store.finish_cell("b", {"status": "ok"})
    assert [refresh(), refresh()] == [True, False]
    store.write_json(store.scoring("judge-gold") / "scored.json", {"cells": {}})
    assert [refresh(), refresh()] == [True, False]
    (store.folder / "report" / ".written_from.json").unlink()
    assert refresh()
    reporting.write_reports(store, ["of cells that were mixed"])
    assert refresh()


def test_reports_go_where_they_are_sent(store, tmp_path):
    """A report can be written to any folder, and then the run's own stays as it is."""
    written = reporting.write_reports(store, ["a"], ["count"], tmp_path / "paper")
    assert written == {"count": [tmp_path / "paper" / "count.txt"]}
    assert not (store.folder / "report").exists()


def test_a_failing_report_stops_no_other(store):
    """The others are written, then the failure is told by name, and the next run tries again."""
    for _ in range(2):
        with pytest.raises(PluginError, match="report 'broken' failed: ZeroDivisionError: no cells") as caught:
            reporting.refresh_reports(store, ["a"])
        assert "count" in caught.value.fix
        assert count_of(store.folder / "report") == "1\n"
        (store.folder / "report" / "count.txt").unlink()
