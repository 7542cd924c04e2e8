"""Claims: each says what its cell says, no more, and can be cited."""

import json
import re

import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts.gallery import all_charts
from bakeoff.reports.charts.style import COLUMN
from bakeoff.reports.claims import bibtex, claims
from bakeoff.reports.html import HTML
from bakeoff.reports.paper import Paper
from bakeoff.reports.tables.leaderboard import tables_of


def test_a_claim_is_its_cell(five_seeds):
    """The numbers of a claim are the unrounded ones of the cell that it names, by row and column of the CSV file."""
    (section,) = sections(five_seeds)
    tables = {table.name: table for table in tables_of(section)}
    made = claims(five_seeds)
    assert len(made) == 10
    for claim in made:
        name, row, column = re.fullmatch(r"([a-z]+)-(\d+)-([a-z]+)", claim.cell).groups()
        cell = tables[name].frame.iloc[int(row) - 1]
        assert (claim.mean, claim.low, claim.high) == (cell[column], cell[f"{column}_low"], cell[f"{column}_high"])
        assert claim.label == cell["verdict"]


def test_a_claim_says_its_design_and_verdict(five_seeds):
    """Interval, seeds, prompts, p and verdict stand in the sentence; the run's declared hash beside it."""
    first = claims(five_seeds)[0]
    assert first.text.startswith("On sentiment with SmolLM2-135M under the budget 6tf, grpo-lr3 beats base: +0.3")
    assert re.search(
        r"\(95% interval \[\+0\.3\d+, \+0\.\d+\], 5 seeds × 48 prompts, paired; Holm p < 0\.001\): WIN\.$", first.text
    )
    assert five_seeds.declaration["hash"] in first.quote


def test_few_seeds_claim_nothing(results):
    """With three seeds no sentence says that one beats another."""
    for claim in claims(results):
        assert claim.verdict == "INCONCLUSIVE"
        assert "is not decided" in claim.text
        assert "descriptive" in claim.text
        assert " beats " not in claim.text


def test_files_for_a_paper(results, tmp_path):
    """claims.json is strict JSON with numbers; claims.md names the cells; charts are vectors."""
    written = Paper().write(results, tmp_path)
    record = json.loads((tmp_path / "claims.json").read_text(), parse_constant=pytest.fail)
    assert [claim["cell"] for claim in record["claims"]] == [claim.cell for claim in claims(results)]
    assert record["claims"][0]["seeds"] == 3
    assert {row["algorithm"]: row["ok"] for row in record["runs"]}["ppo"] == 2
    text = (tmp_path / "claims.md").read_text()
    assert "- ppo (sentiment, SmolLM2-135M, 6tf): 2 of 3 runs ended well" in text
    assert all(f"`{claim.cell}`" in text for claim in claims(results))
    charts = [path for path in written if path.suffix == ".pdf"]
    assert len(charts) == sum(len(all_charts(section, COLUMN)) for section in sections(results)) > 20
    assert all(path.read_bytes().startswith(b"%PDF") for path in charts)


def test_bibtex_is_balanced_and_escaped(run):
    """Whatever a run is called, the entry's braces match, and TeX's characters are escaped."""
    plan = run.folder / "plan.json"
    run.edit(plan, name="50%_of {my} \\run{", command="bakeoff run a_b.yaml & echo #1 } $HOME")
    text = bibtex(run.results())
    assert text.count("{") == text.count("}")
    assert "50\\%\\_of my run" in text
    assert "a\\_b.yaml \\& echo \\#1  \\$HOME" in text
    assert "year = {2026}" in text
    assert re.match(r"@misc\{bakeoff-run-50ofmyrun,", text)


def test_claims_link_to_cells_that_exist(results):
    """Each claim of the page leads to the id of its cell."""
    text = HTML().render(results)
    for claim in claims(results):
        assert f'href="#{claim.cell}"' in text
        assert text.count(f'id="{claim.cell}"') == 1
