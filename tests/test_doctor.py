"""The doctor finds what would stop a run."""

from bakeoff import catalogue, doctor, registry
from bakeoff.catalogue import PluginInfo


def test_a_check_that_raises_is_broken_and_the_rest_go_on(monkeypatch, tmp_path):
    """One check that raises is told as broken and keeps no other from being made."""

    def fails():
        raise RuntimeError("no driver")

    monkeypatch.setattr(doctor, "_device", fails)
    monkeypatch.setattr(doctor, "_nf4", lambda: doctor.Check("nf4", "ok", ""))
    monkeypatch.setattr(doctor, "_plugins", lambda: doctor.Check("plugins", "ok", ""))
    checks = {check.name: check for check in doctor.examine(tmp_path)}
    assert (checks["device"].state, checks["device"].detail) == ("broken", "RuntimeError: no driver")
    assert [*checks][-1] == "plugins"
    assert checks["runs"].state == "ok"


def test_file_in_the_place_of_a_folder_is_broken(tmp_path):
    """A file where the folder of runs should be is found before the first cell."""
    (tmp_path / "runs").touch()
    check = doctor._writable("runs", tmp_path / "runs")
    assert check.state == "broken"
    assert "BAKEOFF_RUNS" in check.fix


def test_broken_plugin_is_named(monkeypatch):
    """A plugin that cannot be imported is broken, with its reason."""
    info = PluginInfo("foo", "algorithm", "foo-dist", "1", "foo:Foo", error="algorithm 'foo' cannot be imported")
    monkeypatch.setattr(registry, "names", lambda kind: ["foo"] if kind == "algorithm" else [])
    monkeypatch.setattr(catalogue, "describe", lambda kind, name: info)
    check = doctor._plugins()
    assert check.state == "broken"
    assert "algorithm 'foo' cannot be imported" in check.detail


def test_versions_outside_what_is_required_are_broken(monkeypatch):
    """A package that is too old, or missing, is named with what is needed."""
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: ["pydantic>=999", "no-such-thing>=1"])
    check = doctor._packages()
    assert check.state == "broken"
    assert "pydantic>=999 (found" in check.detail
    assert "no-such-thing>=1 (found none)" in check.detail
