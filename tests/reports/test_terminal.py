"""The table that a run ends with."""

import io

from bakeoff.reports.terminal import leaderboard
from rich.console import Console


def printed(results):
    console = Console(file=io.StringIO(), width=130)
    console.print(leaderboard(results))
    return console.file.getvalue()


def test_leaderboard_is_printed_with_intervals_and_failures(results):
    """Each algorithm is a line with its score, gain, verdict and seeds."""
    lines = printed(results).splitlines()
    ppo = next(line for line in lines if line.lstrip().startswith("ppo"))
    assert "2/3 · 1\u00a0oom" in ppo
    assert "INCONCLUSIVE" in ppo
    assert any("grpo-lr3" in line and "[" in line for line in lines)


def test_full_names_stand_below(results):
    """What a short name stands for, once an algorithm."""
    text = " ".join(printed(results).split())
    titles = results.cells.drop_duplicates("algorithm")[["algorithm", "title"]]
    assert len(titles) > 3
    for name, title in titles.itertuples(index=False):
        assert f"{name}: {title}" in text


def test_labels_are_not_markup(run):
    """A label in square brackets is text, and an escape sequence does not reach the terminal."""
    plan = run.folder / "plan.json"
    plan.write_text(plan.read_text().replace('"algorithm": "sft"', '"algorithm": "[red]x\\u001b[31m"'))
    text = printed(run.results())
    assert "[red]x\\x1b[31m" in text
    assert "\x1b[31m" not in text


def test_each_section_has_its_table(tmp_path, run):
    """A run over two tasks prints two leaderboards under their names."""
    two = type(run)(tmp_path / "two", tasks=("sentiment", "arithmetic")).write()
    text = printed(two.results())
    assert text.count("verdict") == 2
    assert "arithmetic · SmolLM2-135M · 6tf" in text
