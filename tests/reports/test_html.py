"""The HTML page: complete, offline, and safe against what a model may write."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bakeoff.reports.frame import Results
from bakeoff.reports.html import HTML

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


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
    return json.loads(next(content for kind, content in page.scripts if kind == "data"))


def test_page_holds_all_there_is_to_see(text):
    """Tables, charts, failures, provenance and the method are in the one file, which is small."""
    for part in ("Leaderboard", "Reward–KL frontier", "Who beats whom", "All runs", "Budget ledger", "torch 2.13.0"):
        assert part in text
    assert "out of memory: tried to allocate 2.0 GiB &lt;b&gt;of 8&lt;/b&gt;" in text
    assert "1 of 15 cells has no result: 1 oom." in text
    assert text.count("<svg") == 10
    assert text.count('role="img"') == 10
    assert len(text.encode()) < 3_000_000


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
    assert len(texts) == 40
    everything = json.dumps(section, ensure_ascii=False)
    assert not re.search("[\x00-\x08\x0b-\x1f\u200b-\u200f\u2028-\u202e\ufeff]", everything)
    shown = [answer["text"] for prompt in texts.values() for answer in prompt.values()]
    assert max(map(len, shown)) < 2_100
    base = section["prompts"][0]["completions"]["base"]
    assert set(base["scores"]) == {"gold_reward", "train_reward", "kl", "length_tokens"}


def test_hostile_text_never_closes_the_data_island(run):
    """Whatever prompts are chosen, a completion with </script> cannot end the element that holds it."""
    page = Page(HTML().render(run.results()))
    shown = [a["text"] for prompt in completions(page)[0]["prompts"] for a in prompt["completions"].values()]
    assert any("</script><script>" in text for text in shown)
    assert page.tags.count("script") == 2


def test_parity_problems_are_shown_first(run):
    """Unequal cells that are mixed are told above the leaderboard, naming field, value and cell."""
    run.edit(run.path("dpo", 1) / "cell.json", parity={"device": "cuda<b>"})
    text = HTML().render(Results.read(run.folder, mixed=True))
    assert text.index("Not a fair comparison") < text.index("Leaderboard</h2>")
    assert "<code>cuda&lt;b&gt;</code> in dpo seed 1" in text


def test_hostile_labels_are_escaped_everywhere(run):
    """A label from the matrix reaches tables and charts as text."""
    plan = run.folder / "plan.json"
    plan.write_text(plan.read_text().replace('"algorithm": "sft"', '"algorithm": "<script>alert(1)</script>"'))
    page = Page(HTML().render(run.results()))
    assert page.tags.count("script") == 2


def test_sections_share_a_page(tmp_path, run):
    """Two tasks give two sections with their own anchors, and ids stay unique."""
    two = type(run)(tmp_path / "two", tasks=("sentiment", "arithmetic")).write()
    page = Page(HTML().render(two.results()))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert {"sentiment-smollm2-135m-6tf", "arithmetic-smollm2-135m-6tf"} <= set(ids)
    assert len(ids) == len(set(ids))
    assert len(completions(page)) == 2


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
    assert len(written) == 21
    assert all(path.stat().st_size for path in written)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_runs_it_without_network_dialog_or_error(results, tmp_path):
    """In Chromium: no request but the file, no dialog, no console message; sorting, axes and completions work."""
    playwright = pytest.importorskip("playwright.sync_api")
    HTML().write(results, tmp_path)
    url = Path(tmp_path / "index.html").as_uri()
    seen = []
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: seen.append(request.url) if request.url != url else None)
        page.on("dialog", lambda dialog: seen.append(dialog.message))
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.goto(url)

        first = page.locator("table.sortable").first
        first.locator("thead button", has_text="KL").click()
        assert first.locator("tbody th").first.inner_text() == "grpo-lr3"
        first.locator("thead button", has_text="KL").click()
        assert first.locator("tbody th").first.inner_text() == "base"

        assert page.locator("#curve-flops").is_visible()
        page.locator(".switch button", has_text="tokens generated").click()
        assert page.locator("#curve-tokens-generated").is_visible()
        assert not page.locator("#curve-flops").is_visible()

        for option in page.locator(".browser select").last.locator("option").all():
            page.locator(".browser select").last.select_option(option.get_attribute("value"))
        page.get_by_role("button", name="Biggest loss").click()
        page.get_by_role("button", name="Random").click()
        assert page.locator(".card").count() == 5
        assert page.locator(".card script, .card img, .card b").count() == 0

        page.locator("#theme").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        browser.close()
    assert seen == []
