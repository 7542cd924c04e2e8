"""Commands on a run's results: report, score, compare, gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bakeoff.commands.shared import Json, Run, Runs, print_json, print_table, say

app = typer.Typer()

Mix = Annotated[
    bool,
    typer.Option("--mix", help="Compare cells that differ in model, precision, rows and the like; the report says so."),
]


@app.command(epilog="Example: [bold]bakeoff report quickstart --format html,csv --to ./figures[/]")
def report(
    run: Run = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder to write to; the run's own unless said.")] = None,
    format_: Annotated[str, typer.Option("--format", help="Forms, comma-separated; all unless said.")] = "",
    mix: Mix = False,
    runs: Runs = None,
) -> None:
    """Write a run's reports again, as far as it is."""
    from bakeoff import reporting
    from bakeoff.store import find_run

    forms = [form.strip() for form in format_.split(",") if form.strip()]
    store = find_run(run, runs)
    for paths in reporting.write_reports(store, reporting.read_results(store, mixed=mix), forms, to).values():
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


@app.command(epilog="Example: [bold]bakeoff compare monday tuesday[/]")
def compare(
    before: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A run.")],
    after: Annotated[str, typer.Argument(metavar="NAME|DIR", help="The run to hold against it.")],
    mix: Mix = False,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Say which verdicts changed from one run to another, and what that was recorded differs between them."""
    import dataclasses

    from bakeoff import reporting
    from bakeoff.store import find_run

    both = [reporting.read_results(find_run(name, runs), mixed=mix) for name in (before, after)]
    changes, differences = reporting.compare(*both)
    if as_json:
        told = [dataclasses.asdict(change) for change in changes]
        print_json({"before": str(both[0].folder), "after": str(both[1].folder)} | {"differences": differences}
                   | {"changes": told})  # fmt: skip
        return
    for difference in differences:
        print(f"differs: {difference}")
    if not changes:
        print("No verdict changed.")
        return
    print_table("", ("where", "pair", "was", "is", "why"), (change.told() for change in changes))


@app.command(epilog="Example: [bold]bakeoff gate nightly --against released --margin 0.02[/]")
def gate(
    run: Run = None,
    *,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="NAME|DIR", help="The run to hold it against; its base unless said."),
    ] = None,
    margin: Annotated[float, typer.Option("--margin", min=0.0, help="A loss that does not matter.")] = 0.0,
    metric: Annotated[str, typer.Option("--metric", help="The metric; the primary one unless said.")] = "",
    mix: Mix = False,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Pass or fail a run, for a build to act on.

    Exit code: 0 ok, 1 regression, 2 nothing measured, 3 infrastructure failure, 4 not comparable.
    """
    from bakeoff import reporting
    from bakeoff.errors import BakeoffError
    from bakeoff.store import find_run

    try:
        results = reporting.read_results(find_run(run, runs), mixed=mix)
        other = reporting.read_results(find_run(against, runs), mixed=mix) if against else None
        made = reporting.gate(results, other, margin=margin, metric=metric)
    except Exception as error:  # a gate that breaks has let nothing pass, and is no regression either
        say(str(error) if isinstance(error, BakeoffError) else f"{type(error).__name__}: {error}")
        raise typer.Exit(3) from error
    if as_json:
        findings = [{"code": code.name.lower(), "text": text} for code, text in made.findings]
        print_json({"code": int(made.code), "outcome": made.code.name.lower(), "findings": findings})
    else:
        for code, text in made.findings:
            print(f"{code.name.lower().replace('_', ' ')}: {text}")
        print(f"gate: {made.code.name.lower().replace('_', ' ')}")
    raise typer.Exit(int(made.code))
