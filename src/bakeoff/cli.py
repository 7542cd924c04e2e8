"""The command line: parse, call, print. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import bakeoff
from bakeoff.commands import new, plugins
from bakeoff.errors import BakeoffError
from bakeoff.progress import plural

if TYPE_CHECKING:
    from bakeoff.matrix import Matrix
    from bakeoff.runner import PlannedCell, PlannedStage
    from bakeoff.store import Store

WIDTH_PIPED = 140
"""Columns of the leaderboard where there is no terminal to be as wide as."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compare post-training algorithms (SFT, DPO, PPO, GRPO, yours) under one budget, with honest intervals.",
    epilog="Start with: [bold]bakeoff run quickstart[/]",
)
app.add_typer(plugins.app, name="plugins")
app.add_typer(new.app)

Source = Annotated[str, typer.Argument(help="A stock matrix's name, or the path of a YAML file.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Override a value of the matrix; repeatable.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="AXIS=LABEL,...", help="Only the cells that match; repeat for more."),
]
Runs = Annotated[Path | None, typer.Option("--runs", help="Where runs are kept: ./runs, or $BAKEOFF_RUNS.")]
Name = Annotated[str | None, typer.Option("--name", help="The run's folder; the matrix's name unless said.")]
Run = Annotated[str | None, typer.Argument(metavar="[NAME|DIR]", help="A run; the last one unless said.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        print(f"bakeoff {bakeoff.__version__}")
        raise typer.Exit


@app.command(epilog="Example: [bold]bakeoff run quickstart --set seeds=5 --only algorithm=ppo --workers 2[/]")
def run(
    source: Source,
    *,
    set_: Set = None,
    only: Only = None,
    runs: Runs = None,
    name: Name = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Cells at once; the cores are divided among them.")
    ] = None,
) -> None:
    """Train and score every cell of a matrix that is not done yet, then write the report.

    Run it again to resume. Exit code: 0 all cells are well, 1 some failed, 2 the command is wrong, 130 stopped.
    """
    from rich.console import Console

    from bakeoff import reporting, runner

    matrix, store = _open(source, set_, only, runs, name)
    console = Console(width=None if sys.stdout.isatty() else WIDTH_PIPED)
    _say_bad_rows(matrix)
    summary = runner.run(matrix, store, workers=workers, console=console)
    if summary.interrupted:
        left = sum(summary.statuses.values()) - summary.statuses.get("ok", 0) - summary.statuses.get("incompatible", 0)
        _say(f"stopped with {plural(left)} to go. To resume, run the same command again:")
        _say(f"  {_typed()}")
        raise typer.Exit(130)
    if not summary.ran:
        console.print("Nothing to do: every cell is done.", highlight=False)
    results = reporting.read_results(store)
    console.print(reporting.leaderboard(results))
    _say_failures(store, summary.failed)
    written = reporting.refresh_reports(store, results)
    console.print(
        f"Report{'' if written else ' (unchanged)'}: {store.folder / 'report' / 'index.html'}", soft_wrap=True
    )
    if summary.failed:
        raise typer.Exit(1)


@app.command(epilog="Example: [bold]bakeoff plan ./mine.yaml --only task=sentiment[/]")
def plan(
    source: Source,
    *,
    set_: Set = None,
    only: Only = None,
    runs: Runs = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """List the cells: done, to do, incompatible and why, with estimated time and memory, and what they share.

    Trains nothing.
    """
    from bakeoff import runner

    matrix, store = _open(source, set_, only, runs, name)
    _say_bad_rows(matrix)
    cells = runner.plan(matrix, store)
    stages = runner.stages(cells, store)
    if as_json:
        states = {stage.id: _state(stage) for stage in stages}
        _print_json([_plan_row(cell, states) for cell in cells])
        return
    _print_table(
        f"{store.folder.name}: {plural(len(cells))}",
        ("cell", "model", "task", "budget", "algorithm", "seed", "state", "time", "memory"),
        (_plan_line(cell) for cell in cells),
    )
    if stages:
        _print_table(
            "\nStages: computed once, by the first cell that needs it",
            ("stage", "what", "state", "cells", "algorithms", "seeds"),
            (_stage_line(stage) for stage in stages),
        )
    from bakeoff.executors import default_workers
    from bakeoff.progress import duration

    todo = [cell for cell in cells if cell.is_due]
    total = duration(sum(cell.seconds for cell in todo))
    print(
        f"{len(todo)} to do, about {total} of cell time, {plural(default_workers())} at a time unless --workers says."
    )
    for basis in sorted({cell.basis for cell in todo}):
        print(f"Estimated from: {basis}.")


@app.command(epilog="Example: [bold]watch bakeoff status quickstart[/]")
def status(run: Run = None, runs: Runs = None, as_json: Json = False) -> None:
    """Show how far a run is, from any terminal, while it runs or afterwards."""
    import dataclasses

    from rich.console import Console

    from bakeoff import progress
    from bakeoff.store import find_run

    store = find_run(run, runs)
    where = progress.read(store)
    if as_json:
        _print_json(
            {
                "run": str(store.folder),
                "ended": where.ended,
                "failed": where.failed,
                "total": len(where.cells),
                "eta_s": where.eta_s(),
                "cells": [dataclasses.asdict(cell) for cell in where.cells],
            }
        )
        return
    _print_table(
        "",
        ("cell", "", "state", "time", ""),
        (
            (
                cell.id[:8],
                cell.label,
                cell.state,
                progress.duration(cell.elapsed_s) if cell.elapsed_s else "",
                progress.doing(cell) if cell.state in ("running", "interrupted") else cell.reason,
            )
            for cell in where.cells
        ),
    )
    Console().print(progress.render(where))


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
        _print_json([dataclasses.asdict(check) for check in checks])
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(1)


def main() -> None:
    """Entry point of the command ``bakeoff``. A ``BakeoffError`` is told without a traceback, exit code 2."""
    try:
        app()
    except BakeoffError as error:
        if "--debug" in sys.argv:
            raise
        from rich.console import Console

        console = Console(stderr=True)
        console.print(error.args[0], style="red", markup=False, highlight=False, soft_wrap=True)
        if error.fix:
            console.print(error.fix, markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


# ------------------------------------------------------------------------------------- helpers


def _open(
    source: str, set_: list[str] | None, only: list[str] | None, runs: Path | None, name: str | None
) -> tuple[Matrix, Store]:
    from bakeoff import matrix, store

    asked = matrix.load(source, set_ or (), only or ())
    return asked, store.new_run(name or asked.spec.name, runs)


def _plan_row(cell: PlannedCell, states: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": cell.id,
        **cell.labels,
        "state": cell.state,
        "why": cell.why,
        "estimated_s": cell.seconds,
        "estimated_bytes": cell.bytes,
        "basis": cell.basis,
        "stages": [{"id": key.id, "label": key.label, "state": states[key.id]} for key in cell.stages],
    }


def _plan_line(cell: PlannedCell) -> tuple[str, ...]:
    from bakeoff.progress import duration

    state = f"{cell.state}: {cell.why}" if cell.why else cell.state
    cost = ("", "") if cell.state == "incompatible" else (duration(cell.seconds), f"{cell.bytes / 2**30:.1f} GiB")
    return (cell.id[:8], *map(str, cell.labels.values()), state, *cost)


def _state(stage: PlannedStage) -> str:
    return "done" if stage.is_done else "to do"


def _stage_line(stage: PlannedStage) -> tuple[str, ...]:
    algorithms, seeds = (
        ", ".join(dict.fromkeys(str(cell.labels[axis]) for cell in stage.cells)) for axis in ("algorithm", "seed")
    )
    return (stage.id, stage.label, _state(stage), str(len(stage.cells)), algorithms, seeds)


def _say_bad_rows(matrix: Matrix) -> None:
    """A line for each task with rows that could not be used: how many, and where the first one is."""
    from bakeoff.setup import task_and_data

    said = []
    for spec in (cell.task for cell in matrix.cells()):
        _, data = task_and_data(spec)
        if data.bad_rows and spec not in said:
            said.append(spec)
            bad = data.bad_rows[0]
            _say(
                f"{spec.label}: {len(data.train)} train / {len(data.test)} test rows, "
                f"{len(data.bad_rows)} bad row{'' if len(data.bad_rows) == 1 else 's'}, "
                f"first: {bad.file}:{bad.line} {bad.reason}"
            )


def _say_failures(store: Store, failed: int) -> None:
    from bakeoff import progress

    if failed:
        _say(f"{plural(failed)} failed; running the same command again retries them:")
        for cell in progress.read(store).cells:
            if cell.state not in ("ok", "incompatible", "to do", "running", "interrupted"):
                _say(f"  {cell.label}: {cell.state}: {cell.reason}\n    {store.cell(cell.id) / 'log.txt'}")


def _typed() -> str:
    from bakeoff.environment import command_line

    return command_line(sys.argv)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, default=str))


def _print_table(title: str, columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    """A table as wide as the terminal; when piped, as wide as its content, so that grep finds whole lines."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=10_000)
    with wide.capture() as captured:
        wide.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())
