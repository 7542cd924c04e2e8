"""Commands on a run's results: report, score, compare, gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bakeoff.commands.shared import Run, Runs, say

app = typer.Typer()


@app.command(epilog="Example: [bold]bakeoff report quickstart --format html,csv --to ./figures[/]")
def report(
    run: Run = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder to write to; the run's own unless said.")] = None,
    format_: Annotated[str, typer.Option("--format", help="Forms, comma-separated; all unless said.")] = "",
    runs: Runs = None,
) -> None:
    """Write a run's reports again, as far as it is."""
    from bakeoff import reporting
    from bakeoff.store import find_run

    forms = [form.strip() for form in format_.split(",") if form.strip()]
    store = find_run(run, runs)
    for paths in reporting.write_reports(store, reporting.read_results(store), forms, to).values():
        for path in paths:
            print(path)


@app.command(epilog='Example: [bold]bakeoff score quickstart --judge "{name: openai, model: gpt-5-mini}"[/]')
def score(
    run: Run = None,
    evaluator: Annotated[
        list[str] | None, typer.Option("--evaluator", metavar="NAME|YAML", help="An evaluator; repeatable.")
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option("--judge", metavar="NAME|YAML", help="A judge, which compares all algorithms; repeatable."),
    ] = None,
    runs: Runs = None,
) -> None:
    """Score a run's stored samples by another evaluator or judge. Trains nothing and changes no earlier score.

    A plugin is named as in a matrix: gold, or "{name: ..., label: ..., setting: ...}". What was scored already is not
    scored again. The reports are then written again.
    """
    from bakeoff import matrix, reporting, scoring
    from bakeoff.errors import MatrixError
    from bakeoff.progress import plural
    from bakeoff.store import find_run

    store = find_run(run, runs)
    asked: list[tuple[scoring.Kind, str]] = [("evaluator", text) for text in evaluator or ()]
    asked += [("judge", text) for text in judge or ()]
    if not asked:
        raise MatrixError("nothing to score by.", fix="Name an --evaluator or a --judge; `bakeoff plugins list` does.")
    for kind, text in asked:
        spec = matrix.plugin(kind, text)
        done = scoring.score(store, kind, spec)
        said = [plural(done.cells)] if done.cells else []
        said += [f"{done.comparisons} comparisons in both orders"] if done.comparisons else []
        print(f"{kind} {spec.label}: {', '.join(said) or 'nothing to do, all is scored'}: {done.folder}")
        if done.invalid:
            say(f"{done.invalid} comparisons have no valid verdict; the same command asks for them again.")
        for key, value in done.facts.items():
            print(f"  {key}: {value}")
    written = reporting.refresh_reports(store, reporting.read_results(store))
    print(f"Report{'' if written else ' (unchanged)'}: {store.folder / 'report' / 'index.html'}")
