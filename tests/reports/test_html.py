"""The HTML page: complete, offline, and safe against what a model may write."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from bakeoff.reports import html
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.charts.gallery import all_charts
from bakeoff.reports.html import HTML
from bakeoff.reports.page.methods import CHARTS, IN_WORDS, METHODS, method_of, method_of_chart
from bakeoff.reports.tables.leaderboard import all_tables, tables_under


class Page(HTMLParser):
    """Collects what matters for safety: every tag, every attribute, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.policy = [], [], [], ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "meta" and dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"]
        if tag in ("script", "style"):
            self.inside = tag if dict(attrs).get("type") is None else "data"
            self.scripts.append([self.inside, ""])

    def handle_endtag(self, tag):
        self.inside = "" if tag in ("script", "style") else self.inside

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1][1] += data


@pytest.fixture(scope="module")
def text(results):
    return HTML().render(results)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def completions(page):
    return json.loads(next(content for kind, content in page.scripts if kind == "data"))["parts"]


def test_page_holds_all_there_is_to_see(text, results):
    """Tables, charts, flags, provenance and methods are in the one file, which is small."""
    for part in ("Leaderboard", "Reward–KL frontier", "Who beats whom", "All runs", "Budget ledger", "torch 2.13.0"):
        assert part in text
    assert "out of memory: tried to allocate 2.0 GiB &lt;b&gt;of 8&lt;/b&gt;" in text
    assert "1 of 3 seeds of ppo failed (seed 2 oom)" in text
    charts = sum(len(all_charts(section)) for section in sections(results))
    assert text.count('aria-roledescription="chart"') == text.count("Data of this chart") == charts > 20
    assert len(text.encode()) < 3_000_000


def test_every_number_of_a_table_leads_to_its_method(results, text):
    """Each column with numbers or verdicts and each chart has a method that stands in the page; cells link to it."""
    for _, table in all_tables(results):
        for column in table.columns:
            if (not column.is_text or column.kind == "verdict") and (table.name, column.key) != ("runs", "seed"):
                assert method_of(column, table.family) in METHODS, (table.name, column.key)
    assert set(IN_WORDS.values()) | set(CHARTS.values()) <= set(METHODS)
    for chart in all_charts(sections(results)[0]):
        assert f'<figure id="{chart.name}"' in text and method_of_chart(chart.name) in METHODS
    for key in METHODS:
        assert f'id="how-{key}"' in text
    assert re.search(r'id="leaderboard-1-delta" data-column="delta"><a class="how ?" href="#how-gain">\+0\.', text)


def test_equal_by_what_is_answered_for_each_currency(results, page, text):
    """All that ranks is there once more for each currency: headline, tables, charts, claims."""
    (section,) = sections(results)
    axes = [value for tag, name, value in page.attributes if (tag, name) == ("div", "data-axis")]
    ranked = {table.family for table in tables_under(section)}
    assert ranked == {"leaderboard", "verdicts", "pairwise", "ranking", "metrics"}
    for currency, found in section.equal_by.items():
        own = {table.family for table in tables_under(section) if table.currency == currency}
        assert axes.count(currency) == 2 + len(own)  # headline and claims
        assert own == ranked - ({"ranking"} if len(found.ranked) < 3 else set())
        assert found.sentence in text
        for chart in ("effects", "versus", "wins", "seeds"):
            assert ("figure", "id", f"{chart}-{currency.replace('_', '-')}") in page.attributes


def test_policy_allows_only_this_files_style_and_script(page):
    """The policy denies everything but one style sheet and one script, whose hashes are right."""
    kinds = {"style": "style-src", "script": "script-src"}
    assert page.policy.startswith("default-src 'none';")
    assert "unsafe" not in page.policy
    inline = [(kind, content) for kind, content in page.scripts if kind != "data"]
    assert sorted(kind for kind, _ in inline) == ["script", "style"]
    for kind, content in inline:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kinds[kind]} 'sha256-{digest}'" in page.policy


def test_nothing_is_loaded_from_anywhere(page):
    """No element could fetch or run anything: links stay in the page, no handlers, no style attributes."""
    assert not {"img", "iframe", "link", "object", "embed", "base", "form", "foreignobject"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "style", "srcset"), (tag, name)
        if name in ("href", "xlink:href"):
            assert value.startswith("#")


def test_ids_are_unique_and_links_lead_somewhere(page):
    """Each id is there once, also over ten charts, and each reference has its target."""
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [value[1:] for _, name, value in page.attributes if name == "href"]
    targets += [value[5:-1] for _, name, value in page.attributes if name == "clip-path"]
    assert set(targets) <= set(ids)


def test_completions_are_data_with_nothing_hidden(page):
    """Hostile completions arrive as text: clipped, with control, bidi and zero-width characters as escapes."""
    (section,) = completions(page)
    texts = {prompt["id"]: prompt["completions"] for prompt in section["prompts"]}
    assert len(texts) == 48
    everything = json.dumps(section, ensure_ascii=False)
    assert not re.search("[\x00-\x08\x0b-\x1f\u200b-\u200f\u2028-\u202e\ufeff]", everything)
    shown = [answer["text"] for prompt in texts.values() for answers in prompt.values() for answer in answers]
    assert max(map(len, shown)) < 2_100
    first = section["prompts"][0]["completions"]
    assert [answer["seed"] for answer in first["base"]] == [0, 1, 2]
    assert [answer["seed"] for answer in first["ppo"]] == [0, 1]
    assert set(first["base"][0]["scores"]) == {"gold_reward", "train_reward", "win_rate", "kl", "length_tokens"}


def test_completions_fit_a_page(run, monkeypatch):
    """Past the limit one seed is kept instead of all, then fewer prompts."""
    monkeypatch.setattr("bakeoff.reports.page.browser.BYTES_LIMIT", 60_000)
    made = html.completions(sections(run.results()))
    assert len(json.dumps(made)) < 60_000
    assert {len(answers) for prompt in made[0]["prompts"] for answers in prompt["completions"].values()} == {1}
    assert {answers[0]["seed"] for prompt in made[0]["prompts"] for answers in prompt["completions"].values()} == {0}


def test_hostile_text_never_closes_the_data_island(page):
    """A completion with </script> does not end the element that holds it."""
    answers = [a for prompt in completions(page)[0]["prompts"] for some in prompt["completions"].values() for a in some]
    assert any("</script><script>" in answer["text"] for answer in answers)
    assert page.tags.count("script") == 2


def test_flags_come_before_any_number(run):
    """A cell that is not comparable is left out and said so above the leaderboard, its hostile value as text."""
    run.edit(run.path("dpo", 1) / "cell.json", parity={"device": "cuda<b>"})
    text = HTML().render(run.results())
    assert text.index("red flags</h2>") < text.index("Leaderboard</h2>")
    assert "dpo seed 1 is left out" in text
    assert "cuda&lt;b&gt;" in text


def test_hostile_labels_are_escaped_everywhere(run):
    """A label from the matrix reaches tables and charts as text."""
    plan = run.folder / "plan.json"
    plan.write_text(plan.read_text().replace('"algorithm": "sft"', '"algorithm": "<script>alert(1)</script>"'))
    page = Page(HTML().render(run.results()))
    assert page.tags.count("script") == 2


def test_sections_share_a_page(tmp_path, run):
    """Two tasks give two sections with their own anchors and a table across both, and ids stay unique."""
    two = type(run)(tmp_path / "two", tasks=("sentiment", "arithmetic")).write()
    page = Page(HTML().render(two.results()))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert {"sentiment-smollm2-135m-6tf", "arithmetic-smollm2-135m-6tf"} <= set(ids)
    assert len(ids) == len(set(ids))
    assert len(completions(page)) == 2
    assert "across-1-1-improvement" in ids


def test_a_run_without_results_still_has_a_page(run):
    """Before any cell has finished, the page says so and lists the cells."""
    shutil.rmtree(run.folder / "cells")
    (run.folder / "environment.json").unlink()
    text = HTML().render(run.results())
    assert "15 of 15 cells have no result: 15 not run." in text
    assert "environment.json is missing" in text


def test_write_makes_page_and_charts(results, tmp_path):
    """The plugin returns the page and the chart files, all of them written."""
    written = HTML().write(results, tmp_path)
    assert written[0] == tmp_path / "index.html"
    assert len(written) == 1 + 2 * sum(len(all_charts(section)) for section in sections(results))
    assert all(path.stat().st_size for path in written)
