"""What a section's cells say about their data, in words."""

import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.html import HTML
from bakeoff.reports.markdown import Markdown
from bakeoff.reports.tables.data import facts

DATA = {
    "source": "films",
    "train_rows": 900,
    "left_out": {"a prompt over 64 tokens (train)": 10, "an empty prompt (test)": 2},
    "bad_rows": 4,
    "bad_row_examples": [{"file": "films.csv", "line": n, "reason": "no <b>prompt</b>"} for n in (3, 5, 8, 9)],
    "derived": {},
}


@pytest.fixture
def told(run):
    """A run whose cells derived different things; that of base, the first, nothing."""
    derived = {"base": {}, "sft": {"demonstrations": "the best of 4"}, "dpo": {"preferences": "best against worst"}}
    for algorithm, made in derived.items():
        for seed in run.seeds:
            run.edit(run.path(algorithm, seed) / "cell.json", data=DATA | {"derived": made})
    run.edit(run.path("sft", 2) / "cell.json", data=DATA | {"derived": {"demonstrations": "the best of 8"}})
    return run.results()


def test_what_any_cell_derived_is_told(told):
    """Each cell derives only what it consumes; what differs between seeds is told as often as it differs."""
    (section,) = sections(told)
    assert facts(told, section) == {
        "source": "films",
        "train_rows": 900,
        "left_out": "12 rows left out: 10 with a prompt over 64 tokens (train), 2 with an empty prompt (test)",
        "bad_rows": "4 rows could not be used: films.csv:3 no <b>prompt</b>; films.csv:5 no <b>prompt</b>; "
        "films.csv:8 no <b>prompt</b>; …",
        "derived_demonstrations": "the best of 4; the best of 8",
        "derived_preferences": "best against worst",
    }


@pytest.mark.parametrize("report", [HTML, Markdown])
def test_page_and_text_tell_it(report, told):
    """Rows that were left out and data that was made are in both, escaped."""
    text = report().render(told)
    assert "12 rows left out: 10 with a prompt over 64 tokens" in text
    assert "4 rows could not be used: films.csv:3 no &lt;b&gt;prompt" in text
    assert "best against worst" in text


def test_a_run_without_records_tells_nothing(run):
    """Before any cell has written down its data there is nothing to tell."""
    for file in run.folder.glob("cells/*/cell.json"):
        run.edit(file, data=None)
    results = run.results()
    (section,) = sections(results)
    assert facts(results, section) == {}
    assert "<h3>Data of" not in HTML().render(results)
