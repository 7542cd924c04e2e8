"""The page of installed plugins: what ``bakeoff plugins list --markdown`` prints, and ``docs/algorithms.md`` holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bakeoff.catalogue import PluginInfo, PresetInfo
from bakeoff.registry import Kind

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
HEADS: dict[Kind, str] = {
    "algorithm": """\
An algorithm is named in a matrix by its name, a published variant of it as `algorithm:preset`; settings written beside
either win. What a preset does not set is as the algorithm has it.

```sh
bakeoff plugins show algorithm dpo
```

shows an algorithm's settings, each with its default, its bounds and where the default comes from.
""",
}
"""What a kind's page begins with; ``tests/test_docs.py`` runs its commands."""


def page(kind: Kind, plugins: Sequence[PluginInfo]) -> str:
    """The Markdown page of these plugins of one kind: a table of all, and one of each plugin's presets."""
    facts = list(dict.fromkeys(fact for info in plugins for fact in info.facts)) if kind == "algorithm" else []
    papers = any(info.paper for info in plugins)
    columns = ["name", "title", *facts, *(["paper"] if papers else [])]
    parts = [
        f"# {kind.capitalize()}s",
        f"<!-- Made by `bakeoff plugins list {kind} --markdown` from the plugins themselves: change those. -->",
        HEADS.get(kind, "").strip(),
        table(columns, (_line(info, facts, papers) for info in plugins)),
    ]
    for info in plugins:
        if info.presets:
            parts += [
                f"## Presets of `{info.name}`",
                table(
                    ("preset", "title", "settings", "differs from the paper", "paper"),
                    (_preset(info.name, preset) for preset in info.presets),
                ),
            ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; its cells are Markdown already."""
    names = list(columns)
    return "\n".join(f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows))


def cell(text: str) -> str:
    """Text for a Markdown table: one line, and nothing in it that Markdown or HTML would act on."""
    flat = " ".join(text.split())
    for character in "\\`*_|[]":
        flat = flat.replace(character, f"\\{character}")
    return flat.replace("<", "&lt;")


def _line(info: PluginInfo, facts: Sequence[str], papers: bool) -> list[str]:
    title = f"broken: {info.error}" if info.error else info.title
    given = [f"`{info.name}`", cell(title), *(cell(info.facts.get(fact, "")) for fact in facts)]
    return [*given, _paper(info.paper)] if papers else given


def _preset(algorithm: str, preset: PresetInfo) -> list[str]:
    settings = f"`{_flow(preset.settings)}`"
    told = [cell(preset.title), settings, cell(preset.differs_from_paper), _paper(preset.paper)]
    return [f"`{algorithm}:{preset.name}`", *told]


def _paper(text: str) -> str:
    return ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", cell(text))


def _flow(settings: dict[str, object]) -> str:
    """As a matrix writes them, without the braces."""
    import yaml

    flow = yaml.safe_dump(settings, default_flow_style=True, sort_keys=False, width=10_000).strip()
    return flow.removeprefix("{").removesuffix("}").replace("|", "\\|")
