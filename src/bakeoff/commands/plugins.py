"""Commands that show the installed plugins."""

from __future__ import annotations

from typing import Annotated

import typer

from bakeoff.commands.shared import Json, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Show the installed plugins and their settings.")


@app.command("list", epilog="Example: [bold]bakeoff plugins list --json[/]")
def plugins_list(as_json: Json = False) -> None:
    """List every installed plugin: algorithms, tasks, evaluators, judges, reports."""
    import dataclasses

    from bakeoff import registry

    found = [registry.describe(kind, name) for kind in registry.BASES for name in registry.names(kind)]
    if as_json:
        print_json([dataclasses.asdict(info) for info in found])
        return
    print_table(
        "",
        ("kind", "name", "title", "from"),
        (
            (
                info.kind,
                info.name,
                f"broken: {' '.join(info.error.split())}" if info.error else info.title,
                f"{info.distribution} {info.version}",
            )
            for info in found
        ),
    )


@app.command("show", epilog="Example: [bold]bakeoff plugins show algorithm grpo[/]")
def plugins_show(
    kind: Annotated[str, typer.Argument(help="algorithm, task, evaluator, judge or report.")],
    name: Annotated[str, typer.Argument(help="The plugin's name.")],
    as_json: Json = False,
) -> None:
    """Show one plugin: its paper and its settings with their defaults."""
    import dataclasses

    from bakeoff import registry
    from bakeoff.errors import PluginError

    known = next((each for each in registry.BASES if each == kind.removesuffix("s")), None)
    if known is None:
        raise PluginError(f"{kind!r} is no kind of plugin.", fix=f"Kinds: {', '.join(registry.BASES)}.")
    info = registry.describe(known, name)
    if as_json:
        print_json(dataclasses.asdict(info))
        return
    print(f"{info.name} ({info.kind}): {info.title}")
    print("\n".join(line for line in (info.paper, f"{info.value} from {info.distribution} {info.version}") if line))
    if info.error:
        raise PluginError(info.error)
    rows = (
        (each.name, each.type, "required" if each.required else str(each.default), each.description)
        for each in info.settings
    )
    print_table("", ("setting", "type", "default", "meaning"), rows)
