"""The command that checks the machine."""

from __future__ import annotations

import typer

from bakeoff.commands.shared import Json, Runs, print_json

app = typer.Typer()


@app.command(epilog="Example: [bold]bakeoff doctor --json[/]")
def doctor(runs: Runs = None, as_json: Json = False) -> None:
    """Check that this machine can run a bake-off; exit code 1 when something is broken."""
    import dataclasses

    from bakeoff.doctor import examine

    checks = []
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "broken": "[red]broken[/]"}
    from rich.console import Console

    console = Console()
    for check in examine(runs):
        checks.append(check)
        if not as_json:
            console.print(f"{marks[check.state]:<20} {check.name}: ", end="")
            console.print(check.detail, markup=False, highlight=False, soft_wrap=True)
            if check.fix and check.state != "ok":
                console.print(f"        {check.fix}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(1)
