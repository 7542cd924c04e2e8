"""Commands about plugins: list what is installed, show one, hold one to its promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bakeoff.commands.shared import Json, print_json, print_table, say

if TYPE_CHECKING:
    from bakeoff.catalogue import PluginInfo
    from bakeoff.registry import Kind
    from bakeoff.testing import Finding

app = typer.Typer(no_args_is_help=True, help="Show the installed plugins, and check that they keep their promises.")

WIDEST_TYPE = 40
"""Characters of a type that the table of settings has a column for; a longer one stands in its meaning."""

KindArgument = Annotated[str, typer.Argument(help="algorithm, task, evaluator, judge or report.")]

KindOrName = Annotated[str, typer.Argument(metavar="[KIND]", help="Needed where two kinds share the name.")]
Name = Annotated[str | None, typer.Argument(metavar="NAME", help="The plugin, or a preset: dpo:ipo.")]


@app.command("list", epilog="Example: [bold]bakeoff plugins list algorithm[/]")
def plugins_list(
    kind: Annotated[str | None, typer.Argument(help="Only these: algorithm, task, evaluator, judge, report.")] = None,
    as_json: Json = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="A page of one kind, with presets and papers.")
    ] = False,
) -> None:
    """List every installed plugin with its presets; one that is broken says why and hides no other."""
    import dataclasses

    from bakeoff import catalogue, cataloguepage, registry
    from bakeoff.errors import PluginError

    kinds = [kind_of(kind)] if kind else list(registry.BASES)
    if as_markdown and (as_json or not kind):
        raise PluginError("--markdown is a page of one kind.", fix="bakeoff plugins list algorithm --markdown")
    found = [catalogue.describe(each, name) for each in kinds for name in registry.names(each)]
    if as_json:
        print_json([dataclasses.asdict(info) for info in found])
        return
    if as_markdown:
        print(cataloguepage.page(kinds[0], found), end="")
        return
    print_table("", ("kind", "name", "title", "from"), (line for info in found for line in _lines(info)))


@app.command("show", epilog="Example: [bold]bakeoff plugins show algorithm grpo[/]")
def plugins_show(
    kind_or_name: KindOrName,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Show one plugin: its paper, what it takes and gives, its settings with their defaults, its presets."""
    import dataclasses

    from bakeoff import catalogue, registry
    from bakeoff.errors import PluginError

    kind, wanted = _asked("show", kind_or_name, name)
    plugin, _, preset = wanted.partition(":")
    info = catalogue.describe(kind, plugin)
    if preset:
        registry.preset(info.kind, plugin, preset)  # raises with what there is
        info = dataclasses.replace(info, presets=tuple(each for each in info.presets if each.name == preset))
    if as_json:
        print_json(dataclasses.asdict(info))
    elif not info.error:
        _show(info, preset)
    else:
        print(f"{info.name} ({info.kind}), {info.value} of {info.distribution} {info.version}".rstrip())
    if info.error:
        raise PluginError(info.error)


@app.command("check", epilog="Example: [bold]bakeoff plugins check algorithm ppo --only resume --report check.md[/]")
def plugins_check(
    kind_or_name: KindOrName,
    name: Name = None,
    *,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting to check with; repeatable.")
    ] = None,
    only: Annotated[str, typer.Option("--only", help="Names of checks, comma-separated; all unless said.")] = "",
    report: Annotated[
        Path | None, typer.Option("--report", help="Write a Markdown report, for a pull request.")
    ] = None,
) -> None:
    """Hold a plugin to its promises, on a toy model and a CPU, in under a minute.

    Says of each promise that is broken what was promised, what happened and how to mend it. Exit code: 0 all are kept,
    1 some are broken, 2 the command is wrong.
    """
    from bakeoff.testing import examine

    kind, plugin = _asked("check", kind_or_name, name)
    wanted = [each.strip() for each in only.split(",") if each.strip()]
    conformance = examine(kind, plugin, _settings(set_ or []), only=wanted, say=_tell)
    if report:
        report.write_text(conformance.markdown(), encoding="utf-8")
        say(f"report: {report}")
    print(f"{len(conformance.broken)} broken of {len(conformance.findings)} promises, {conformance.seconds:.0f} s")
    if conformance.broken:
        raise typer.Exit(1)


def kind_of(word: str) -> Kind:
    """The kind that a user names, in the singular or the plural. Raises ``PluginError``."""
    from bakeoff import registry
    from bakeoff.errors import PluginError

    known = next((each for each in registry.BASES if each == word.removesuffix("s")), None)
    if known is None:
        raise PluginError(f"{word!r} is no kind of plugin.", fix=f"Kinds: {', '.join(registry.BASES)}.")
    return known


def _asked(command: str, kind_or_name: str, name: str | None) -> tuple[Kind, str]:
    """The kind and the name that a user gave, or the name alone where one kind has it. Raises ``PluginError``."""
    from bakeoff import registry
    from bakeoff.errors import PluginError

    if name is not None:
        return kind_of(kind_or_name), name
    plugin = kind_or_name.partition(":")[0]
    kinds = [kind for kind in registry.BASES if plugin in registry.names(kind)]
    if len(kinds) == 1:
        return kinds[0], kind_or_name
    if kinds:
        found = f"{' and '.join(kinds)} are called {plugin!r}."
    elif plugin.removesuffix("s") in registry.BASES:
        kind = kind_of(plugin)
        raise PluginError(f"no {kind} is named.", fix=f"Name one of {', '.join(registry.names(kind))}.")
    else:
        known = {each: kind for kind in registry.BASES for each in registry.names(kind)}
        close = [f"{known[each]} {each}" for each in registry.nearest(plugin, known)]
        found = f"nothing is called {plugin!r}." + (f" Did you mean {' or '.join(close)}?" if close else "")
    usage = f"bakeoff plugins {command} KIND {kind_or_name}"
    raise PluginError(found, fix=f"Say which: {usage}, of {', '.join(registry.BASES)}.")


def _settings(words: list[str]) -> dict[str, Any]:
    """``["beta=0.1"]`` to ``{"beta": 0.1}``; values are YAML, as in a matrix."""
    import yaml

    from bakeoff.errors import PluginError

    settings = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise PluginError(f"--set {word} has no value.", fix="Write --set NAME=VALUE.")
        settings[name] = yaml.safe_load(value)
    return settings


def _tell(finding: Finding) -> None:
    marks = {"kept": "kept", "broken": "BROKEN", "does not apply": "-", "not reached": "?"}
    print(f"{marks[finding.verdict]:<8}{finding.name:<12}{finding.found}", flush=True)
    if finding.fix:
        print(f"{'':<20}promised: {finding.promise}\n{'':<20}to mend:  {finding.fix}", flush=True)


def _lines(info: PluginInfo) -> Iterator[tuple[str, ...]]:
    """A line for the plugin, and one for each preset."""
    where = f"{info.distribution} {info.version}".rstrip()
    yield info.kind, info.name, f"broken: {' '.join(info.error.split())}" if info.error else info.title, where
    for preset in info.presets:
        yield "", f"{info.name}:{preset.name}", preset.title, ""


def _show(info: PluginInfo, preset: str) -> None:
    print(f"{info.name} ({info.kind}): {info.title}")
    print("\n".join(line for line in (info.summary, info.paper) if line))
    print(f"{info.value} of {info.distribution} {info.version}\n")
    for name, fact in info.facts.items():
        print(f"{name}: {fact}")
    changed = info.presets[0].settings if preset else {}
    if info.settings:
        rows = (
            (
                each.name,
                (each.type if len(each.type) <= WIDEST_TYPE else "one of") + (f" {each.bounds}" if each.bounds else ""),
                "required" if each.required else str(changed.get(each.name, each.default)),
                each.description + (f" One of: {each.type}." if len(each.type) > WIDEST_TYPE else ""),
            )
            for each in info.settings
        )
        print_table(
            "", ("setting", "type", f"{preset or 'default'}", "meaning, and where the default comes from"), rows
        )
    for each in info.presets:
        settings = ", ".join(f"{name}={value}" for name, value in each.settings.items())
        print(f"\n{info.name}:{each.name}: {each.title} ({settings})\n  {each.paper}")
        if each.differs_from_paper:
            print(f"  Differs from the paper: {each.differs_from_paper}")
