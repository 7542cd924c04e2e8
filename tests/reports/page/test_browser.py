"""The page in a real Chromium: no dialog, no request, no message, and all of it works, by mouse and by keyboard."""

import importlib
import json
import os
import shutil
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from bakeoff.reports.analysis.section import sections
from bakeoff.reports.html import HTML

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
NEEDED = bool(os.environ.get("BAKEOFF_NEEDS_CHROMIUM"))
"""Set in CI, where a skipped test would be one that never runs."""
playwright = importlib.import_module("playwright.sync_api") if NEEDED else pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not NEEDED, reason="no Chromium on this machine: apt-get install chromium"
)
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "BAKEOFF_NEEDS_CHROMIUM is set, and there is no Chromium: apt-get install chromium"
    with playwright.sync_playwright() as engine:
        launched = engine.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def url(results, tmp_path_factory) -> str:
    """The page of the shared run, its hostile completions included."""
    folder = tmp_path_factory.mktemp("page")
    path = folder / "index.html"
    path.write_text(HTML().render(results))
    return path.as_uri()


class Watched:
    """A page, and everything on it that should not be: requests, dialogs, console messages, errors."""

    def __init__(self, browser, url: str, **context):
        self.seen: list[str] = []
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context))
        self.page = self.context.new_page()
        self.page.on(
            "request",
            lambda r: (
                self.seen.append(r.url) if r.url.split("?")[0].split("#")[0] != url.split("?", maxsplit=1)[0] else None
            ),
        )
        self.page.on("dialog", lambda dialog: (self.seen.append(dialog.message), dialog.dismiss()))
        self.page.on("console", lambda message: self.seen.append(message.text))
        self.page.on("pageerror", lambda error: self.seen.append(str(error)))
        self.page.goto(url)


@pytest.fixture
def watched(browser, url) -> Iterator[Watched]:
    """A fresh page; that nothing was seen is part of every test."""
    made = Watched(browser, url)
    yield made
    made.context.close()
    assert made.seen == []


@pytest.fixture
def page(watched):
    return watched.page


def texts(locator) -> list[str]:
    return [text.strip() for text in locator.all_inner_texts()]


def test_hostile_completions_stay_text(page):
    """Every kept prompt is shown, with and without marked differences; no element comes out of a completion."""
    prompts = page.locator(".browser select").nth(1)
    for marked in (False, True):
        page.get_by_label("mark what differs").set_checked(marked)
        for value in prompts.locator("option").evaluate_all("all => all.map(one => one.value)"):
            prompts.select_option(value)
            assert page.locator(".answer-card").count() == 5
    inside = ".answer-card p > :not(span, ins, del), .answer-card script, .answer-card img, .answer-card b, .prompt > *"
    assert page.locator(inside).count() == 0
    prompts.select_option(label=next(t for t in texts(prompts.locator("option")) if t.startswith("p001:")))
    assert "</script><script>alert(1)</script>" in page.locator(".answer-card").first.inner_text()


def test_a_completion_of_twenty_thousand_characters_is_clipped(page):
    """It says how much was cut, and the page does not grow sideways."""
    page.locator(".browser select").nth(1).select_option(label="p005: Review of film p005:")
    assert "more characters)" in page.locator(".answer-card").first.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_leaderboard_sorts_and_filters(page):
    """A click sorts, a second turns it round; the filter keeps the rows that hold a word."""
    board = page.locator('.grid[data-table="leaderboard"]')
    names = board.locator("tbody tr:visible th")
    board.get_by_role("button", name="KL", exact=True).click()
    assert texts(names)[0] == "grpo-lr3"
    board.get_by_role("button", name="KL", exact=True).click()
    assert texts(names)[0] == "base"
    assert board.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    board.get_by_label("Filter").fill("ppo")
    assert texts(names) == ["ppo"]
    board.get_by_label("Filter").fill("")
    assert len(texts(names)) == 5


def test_hiding_an_algorithm_hides_it_everywhere_and_the_address_keeps_it(watched, url):
    """Rows, marks and completions of a hidden algorithm go; a copied address shows the same."""
    page = watched.page
    page.locator("#algorithms label", has_text="dpo").click()
    assert "dpo" not in texts(page.locator('.grid[data-table="leaderboard"] tbody tr:visible th'))
    assert page.locator('svg [data-algorithm="dpo"]:not(.off)').count() == 0
    assert page.locator('svg [data-algorithm="sft"].off').count() == 0
    assert page.locator(".answer-card:visible", has_text="dpo").count() == 0
    assert "hide=dpo" in page.url
    page.goto(page.url)
    assert "dpo" not in texts(page.locator('.grid[data-table="leaderboard"] tbody tr:visible th'))
    page.locator("#algorithms label", has_text="dpo").click()
    assert "hide" not in page.url


def test_presets_find_what_they_say(page, results):
    """The biggest loss is the embedded completion with the lowest gain over base; highest KL has the highest KL."""
    (part,) = json.loads(page.locator("#report-data").text_content())["parts"]
    page.locator(".browser select").first.select_option("sft")
    kls = [one["scores"]["kl"] for prompt in part["prompts"] for one in prompt["completions"]["sft"]]
    page.get_by_role("button", name="Highest KL").click()
    focus = page.locator(".answer-card.focus")
    assert focus.locator("h3").inner_text().startswith("sft")
    assert f"{max(kls):.3f}" in focus.inner_text()
    base = {
        (p["id"], one["seed"]): one["scores"]["gold_reward"]
        for p in part["prompts"]
        for one in p["completions"]["base"]
    }
    losses = [
        one["scores"]["gold_reward"] - base[p["id"], one["seed"]]
        for p in part["prompts"]
        for one in p["completions"]["sft"]
    ]
    page.get_by_role("button", name="Biggest loss").click()
    assert f"{min(losses):+.3f}".replace("-", "−") in focus.inner_text()
    page.get_by_role("button", name="Random").click()
    page.get_by_role("button", name="Proxy over gold").click()
    assert page.locator(".answer-card").count() == 5


def test_a_preset_that_finds_nothing_says_so(page):
    """Of two algorithms only one has a proxy above its gold: of the other there is none to show."""
    told = page.evaluate(
        """() => {
        const answer = (train_reward) => [{ seed: 0, text: "t", end: "", scores: { gold_reward: 1, train_reward } }];
        const prompts = [{ id: "p", prompt: "q", completions: { even: answer(1), above: answer(2) } }];
        const box = document.createElement("div");
        const part = { baseline: null, primary: "gold_reward", higher: true, prompts };
        browser(box, { ...part, algorithms: ["even", "above"] });
        const named = (one) => one.textContent === "Proxy over gold";
        const press = () => [...box.querySelectorAll("button")].find(named).click();
        press();
        const none = box.querySelector(".where").textContent, names = box.querySelector("select");
        names.value = "above";
        names.dispatchEvent(new Event("change"));
        press();
        return [none, box.querySelector(".where").textContent];
        }"""
    )
    assert told == ["none of even in this page", "1 of 1 prompts kept in this page"]


def test_a_difference_is_marked_word_by_word(page):
    """What the policy added stands in <ins>, what it left out in <del>; the rest is common."""
    found = page.evaluate("difference('a short good film ', 'a very good film indeed')")
    assert found == [["span", "a "], ["del", "short "], ["ins", "very "], ["span", "good film "], ["ins", "indeed"]]


def test_a_mark_tells_and_opens_its_prompt(page):
    """Pointing at a prompt's mark tells its number; a click opens that prompt with that algorithm in the browser."""
    page.locator("#gains").scroll_into_view_if_needed()
    x, y, name, prompt = page.evaluate(UNCOVERED)
    page.mouse.move(x, y)
    assert page.locator("#tip").inner_text().startswith(f"{name}, prompt {prompt}: ")
    page.mouse.click(x, y)
    assert page.locator(".answer-card.focus h3").inner_text().startswith(name)
    assert page.locator(".browser select").nth(1).locator("option:checked").inner_text().startswith(prompt)


UNCOVERED = """() => {
  for (const mark of document.querySelectorAll('#gains svg [data-prompt]')) {
    const { left, top, width, height } = mark.getBoundingClientRect(), x = left + width / 2, y = top + height / 2;
    const hit = document.elementFromPoint(x, y);
    if (hit && mark.contains(hit)) return [x, y, mark.dataset.algorithm, mark.dataset.prompt];
  }
}"""


def test_a_chart_is_walked_by_keyboard(page):
    """Tab reaches one mark a chart, arrows the others, Enter opens the run's completions."""
    page.locator("#seeds").scroll_into_view_if_needed()
    marks = page.locator('#seeds svg [role="img"]')
    assert page.locator('#seeds svg [tabindex="0"]').count() == 1
    marks.first.focus()
    first = page.locator("#tip").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").inner_text() != first
    told = page.locator("#tip").inner_text()
    page.keyboard.press("Enter")
    name, seed = told.split(":")[0].split(", seed ")
    heads = texts(page.locator(".answer-card h3"))
    assert any(head.startswith(name) and head.endswith(f"seed {seed}") for head in heads)


def test_keyboard_reaches_every_control(page):
    """Walking with Tab alone visits every link, button, field and disclosure that is shown."""
    wanted = page.evaluate(
        """() => [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')]
        .filter((node) => node.checkVisibility({ visibilityProperty: true }) && !node.disabled
            && !(node.type === 'radio' && !node.checked))
        .map((node, i) => { node.dataset.stop = i; return i; }).length"""
    )
    page.evaluate("document.body.focus()")
    seen = set()
    for _ in range(wanted + 20):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.dataset.stop"))
    missed = [str(i) for i in range(wanted) if str(i) not in seen]
    told = page.evaluate("(stops) => stops.map((i) => document.querySelector(`[data-stop='${i}']`).outerHTML)", missed)
    assert told == []


def test_every_number_leads_to_its_method(page):
    """In tables a number is a link; a chart, its data with it, has one of its own. Seeds are names, not numbers."""
    bare = page.evaluate(
        """() => [...document.querySelectorAll('main td.number')]
        .filter((cell) => /\\d/.test(cell.textContent) && !cell.querySelector('a.how') && !cell.closest('figure'))
        .map((cell) => `${cell.closest('.grid').dataset.table} ${cell.dataset.column}`)"""
    )
    assert set(bare) == {"runs seed"}
    for figure in page.locator("figure").all():
        assert page.locator(figure.locator("figcaption a").get_attribute("href")).count() == 1


def test_every_column_sorts_both_ways(page):
    """Of every table: by number or by text, what is missing last, and the head says which way."""
    wrong = page.evaluate(
        """() => [...document.querySelectorAll('table.sortable')].flatMap((table) => {
        const told = [];
        [...table.tHead.rows[0].cells].forEach((head, i) => {
            const numeric = head.classList.contains('number');
            for (const turn of [0, 1]) {
                head.querySelector('button').click();
                const up = head.getAttribute('aria-sort') === 'ascending';
                const cells = [...table.tBodies[0].rows].map((row) => row.cells[i]);
                const keys = cells.map((cell) => cell.dataset.order ?? cell.textContent.trim());
                const known = numeric ? keys.map(Number.parseFloat).filter((key) => !Number.isNaN(key)) : keys;
                const ordered = known.every((key, n) => n === 0 || (numeric
                    ? (up ? known[n - 1] <= key : known[n - 1] >= key)
                    : (up ? 1 : -1) * known[n - 1].localeCompare(key, undefined, { numeric: true }) <= 0));
                const last = numeric && keys.slice(0, known.length).some((key) => Number.isNaN(Number.parseFloat(key)));
                if (!ordered || last) told.push(`${head.textContent} ${up}`);
            }
        });
        return told; })"""
    )
    assert wrong == []


def test_a_number_says_how_it_was_computed(page):
    """A number opens its method, its unrounded value and its place in the CSV file; Escape closes it again."""
    cell = page.locator('.grid[data-table="leaderboard"] td[data-column="delta"] a').first
    cell.click()
    told = page.locator("#explain").inner_text()
    assert "paired differences" in told
    assert "tables/leaderboard.csv, column delta" in told
    assert "paired gain over the baseline" in told
    page.keyboard.press("Escape")
    assert not page.locator("#explain").is_visible()
    for target in page.locator("a.how").evaluate_all("all => [...new Set(all.map(one => one.hash))]"):
        assert page.locator(target).count() == 1


def test_axes_switch(page):
    """A learning curve is read against each currency in turn."""
    assert page.locator("#curve-flops").is_visible()
    page.get_by_role("region", name="Learning curve").get_by_role("button", name="tokens generated").click()
    assert page.locator("#curve-tokens-generated").is_visible()
    assert not page.locator("#curve-flops").is_visible()


def test_equal_by_ranks_the_whole_report_again(watched, results):
    """Another currency shows its sentence, leaderboard and charts; the address keeps it, and "as run" goes back."""
    page, (section,) = watched.page, sections(results)
    boards = page.locator('.grid[data-table="leaderboard"]'), page.locator('.grid[data-table="leaderboard-seconds"]')
    assert (boards[0].is_visible(), boards[1].is_visible()) == (True, False)
    page.locator("#basis label", has_text="seconds").click()
    assert (boards[0].is_visible(), boards[1].is_visible()) == (False, True)
    assert page.locator("header .lede:visible").inner_text() == section.equal_by["seconds"].sentence
    for table in ("verdicts", "pairwise", "ranking", "metrics"):
        assert page.locator(f'.grid[data-table="{table}-seconds"]').is_visible()
        assert not page.locator(f'.grid[data-table="{table}"]').is_visible()
    assert texts(boards[1].locator("tbody th")) == section.equal_by["seconds"].ranked
    for chart in (
        "effects-seconds",
        "versus-seconds",
        "wins-seconds",
        "seeds-seconds",
        "curve-seconds",
        "cost-seconds",
    ):
        assert page.locator(f"#{chart}").is_visible()
    assert not page.locator("#effects").is_visible()
    assert "at equal seconds (31.0 s)" in page.locator("#claims li:visible").first.inner_text()
    said = "getComputedStyle(document.querySelector('.panel:has(#gains) > h4'), '::after').content"
    assert page.evaluate(said) == '"as run"'
    page.goto(page.url)
    assert boards[1].is_visible()
    page.locator("#basis label", has_text="as run").click()
    assert boards[0].is_visible()
    assert page.locator("#effects").is_visible()
    assert "by=" not in page.url


def test_a_link_to_what_another_choice_shows_chooses_it(watched, url):
    """A cell under equal FLOPs, and back to one as run; a hidden axis of a learning curve."""
    page = watched.page
    page.goto(f"{url}#leaderboard-flops-1-delta")
    assert page.locator("#leaderboard-flops-1-delta").is_visible()
    assert page.locator('#basis input[value="flops"]').is_checked()
    page.evaluate("location.hash = 'leaderboard-1-delta'")
    page.locator("#leaderboard-1-delta").wait_for(state="visible")
    assert not page.locator('.grid[data-table="leaderboard-flops"]').is_visible()
    page.evaluate("location.hash = 'curve-seconds'")
    page.locator("#curve-seconds").wait_for(state="visible")


def test_a_number_under_an_equal_amount_says_so_behind_it(watched, url):
    """The popover of a gain tells how it was read off, too."""
    page = watched.page
    page.goto(f"{url}?by=seconds")
    page.locator("#leaderboard-seconds-1-delta a.how").click()
    told = page.locator("#explain").inner_text()
    assert "mixture of the two" in told
    page.goto(url)
    page.locator("#leaderboard-1-delta a.how").click()
    assert "mixture of the two" not in page.locator("#explain").inner_text()


def test_a_chart_is_saved_as_a_file_of_its_own(page, tmp_path):
    """Save SVG gives a file that parses, with nothing in it that only the page knows."""
    with page.expect_download() as saving:
        page.locator("#effects .save").click()
    saving.value.save_as(tmp_path / "effects.svg")
    root = ElementTree.parse(tmp_path / "effects.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "grpo-lr3" in "".join(root.itertext())


def test_light_and_dark_are_readable(browser, url, tmp_path):
    """Both schemes, a switch between them, wide and narrow: pictures, no sideways scroll, contrast of 4.5 and more."""
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)):
        made = Watched(browser, url, color_scheme=scheme, viewport={"width": width, "height": 900})
        picture = made.page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
        assert picture.startswith(b"\x89PNG")
        assert made.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert made.page.evaluate(CONTRAST) == []
        made.page.locator("#theme").click()
        assert (
            made.page.evaluate("document.documentElement.dataset.theme") == {"light": "dark", "dark": "light"}[scheme]
        )
        made.context.close()
        assert made.seen == []


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [r, g, b] = colour.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = rgb(getComputedStyle(one).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255, 255];
  };
  const poor = new Set();
  const texts = 'p, th, td, small, dt, dd, a, button, label, summary, li, h1, h2, h3, h4, code, svg text';
  for (const node of document.querySelectorAll(texts)) {
    if (!node.checkVisibility() || !node.textContent.trim() || node.disabled) continue;
    const style = getComputedStyle(node), drawn = node instanceof SVGElement;
    if (drawn && node.closest('#versus')) continue;  // its text stands on coloured cells, not on the page
    const both = [light(rgb(drawn ? style.fill : style.color)), light(ground(node))].sort((x, y) => y - x);
    const told = `${node.tagName} "${node.textContent.trim().slice(0, 30)}"`;
    if ((both[0] + 0.05) / (both[1] + 0.05) < 4.5) poor.add(told);
  }
  return [...poor];
}"""


def test_it_prints(browser, url, tmp_path):
    """Printed, the controls are gone, the tables whole, and there is more than one page."""
    made = Watched(browser, url)
    made.page.emulate_media(media="print")
    assert not made.page.locator(".bar").is_visible()
    assert not made.page.locator(".tools").first.is_visible()
    paper = made.page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert paper.startswith(b"%PDF")
    assert paper.count(b"/Type /Page\n") > 1
    made.context.close()
    assert made.seen == []


def test_without_javascript_everything_but_the_switches_is_there(browser, url):
    """Tables, all charts, methods and claims are in the page itself."""
    made = Watched(browser, url, java_script_enabled=False)
    assert made.page.locator("figure").count() == made.page.locator("figure:visible").count() > 10
    assert made.page.locator('.grid[data-table="leaderboard"] tbody tr').count() == 5
    assert not made.page.locator("#controls").is_visible()
    made.context.close()
    assert made.seen == []
