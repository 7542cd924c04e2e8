"""The command that writes a new plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bakeoff.commands.plugins import KindArgument, kind_of
from bakeoff.commands.shared import say

app = typer.Typer()


@app.command("new", epilog="Example: [bold]bakeoff new algorithm my-method --flavour loop[/]")
def new(
    kind: KindArgument,
    name: Annotated[str, typer.Argument(help="Small letters, digits and hyphens: my-method.")],
    *,
    flavour: Annotated[
        str, typer.Option("--flavour", help="Of an algorithm: on-policy (unless said), trainer or loop.")
    ] = "",
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to write it into; the current one unless said.")
    ] = None,
) -> None:
    """Write a new plugin: a package that installs and passes its checks before the first edit.

    It has the class, its entry point, a test, a README and a CI file. Nothing that is there is overwritten.
    """
    from bakeoff import scaffold

    known = kind_of(kind)
    files = scaffold.write(known, name, flavour=flavour, to=to)
    for path in files:
        print(path)
    folder = files[0].parent
    say(f'Next:\n  pip install -e "{folder}[test]"\n  bakeoff plugins check {known} {name}')
    if known == "algorithm" and not flavour:
        told = "\n".join(f"  --flavour {each}: {what}" for each, what in scaffold.FLAVOURS.items())
        say(f"Other ways to begin an algorithm:\n{told}")
