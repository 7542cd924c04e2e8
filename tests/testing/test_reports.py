"""The promises of a report: an honest one keeps all of them, and for each there is one that does not."""

import html

import pytest

from bakeoff.contracts import Report
from bakeoff.testing import check_report, examine


class Honest(Report):
    """A page with what each cell says."""

    title = "Honest"

    def write(self, results, to):
        to.mkdir(parents=True, exist_ok=True)
        path = to / "page.html"
        path.write_text(self.page(results), encoding="utf-8")
        return [path]

    def page(self, results):
        samples = "\n".join(html.escape(text) for text in results.samples()["completion"])
        return f"<p>{', '.join(results.cells['algorithm'])}</p><pre>{samples}</pre>"


class ShowsScoresOnly(Honest):
    """Forgets what has none."""

    def page(self, results):
        return f"<p>{', '.join(results.frame()['algorithm'].unique())}</p>"


class Trusts(Honest):
    """Sets what a model wrote as if it were its own."""

    def page(self, results):
        return super().page(results) + "".join(results.samples()["completion"])


class AsksTheNetwork(Honest):
    """Loads its style from somewhere."""

    def page(self, results):
        return super().page(results) + '<script src="https://cdn.example/chart.js"></script>'


class WaitsForResults(Honest):
    """Expects that something has been scored."""

    def page(self, results):
        return super().page(results) + str(results.frame()["value"].iloc[0])


class WritesBesides(Honest):
    """Leaves a file that it does not tell of."""

    def write(self, results, to):
        written = super().write(results, to)
        (to / "cache.bin").write_bytes(b"0")
        return written


class WritesIntoTheRun(Honest):
    """Keeps notes where the results are."""

    def write(self, results, to):
        (results.folder / "note.txt").write_text("seen")
        return super().write(results, to)


class WritesElsewhere(Honest):
    """Puts its page beside the folder that it was given."""

    def write(self, results, to):
        return super().write(results, to.parent)


class TellsOfWhatIsNotThere(Honest):
    """Returns a file that it did not write."""

    def write(self, results, to):
        return [*super().write(results, to), to / "table.csv"]


class WritesNothing(Honest):
    """Has nothing to say."""

    def write(self, results, to):
        return []


def test_an_honest_report_keeps_every_promise():
    """All apply to it."""
    assert {finding.verdict for finding in check_report(Honest).findings} == {"kept"}


@pytest.mark.parametrize(
    ("report", "broken", "told"),
    [
        (WritesNothing, "writes", "wrote nothing"),
        (TellsOfWhatIsNotThere, "writes", "table.csv, which is not there"),
        (WritesElsewhere, "writes", "which is not under the folder"),
        (WritesBesides, "writes", "cache.bin"),
        (WritesIntoTheRun, "writes", "run's own files"),
        (ShowsScoresOnly, "complete", "'diverged' was planned"),
        (WaitsForResults, "early", "IndexError"),
        (Trusts, "hostile", "<script>bakeoff-canary"),
        (AsksTheNetwork, "offline", "https://"),
    ],
)
def test_a_dishonest_report_breaks_its_promise(report, broken, told):
    """What happened and how to mend it are said."""
    (finding,) = examine("report", report, only=[broken]).broken
    assert finding.name == broken
    assert told in finding.found
    assert finding.fix


def test_a_report_that_imports_torch_is_found_out(tmp_path, monkeypatch):
    """Only a fresh process shows it, since checks themselves need torch."""
    (tmp_path / "heavy_report.py").write_text(
        "import torch\nfrom bakeoff.contracts import Report\n"
        "class Heavy(Report):\n"
        "    '''Counts with a tensor.'''\n"
        "    title = 'Heavy'\n"
        "    def write(self, results, to):\n"
        "        to.mkdir(parents=True, exist_ok=True)\n"
        "        (to / 'n.txt').write_text(str(torch.ones(2).sum()))\n"
        "        return [to / 'n.txt']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from heavy_report import Heavy

    (finding,) = examine("report", Heavy, only=["light"]).broken
    assert "torch was imported" in finding.found
