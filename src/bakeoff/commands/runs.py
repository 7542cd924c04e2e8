"""Commands that run a matrix and look at a run: run, plan, status."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bakeoff.commands.shared import WIDTH_PIPED, Json, Run, Runs, print_json, print_table, say
from bakeoff.progress import plural

if TYPE_CHECKING:
    from bakeoff.matrix import Matrix
    from bakeoff.planning import PlannedCell, PlannedStage
    from bakeoff.store import Store

app = typer.Typer()

Source = Annotated[str, typer.Argument(help="A stock matrix's name, or the path of a YAML file.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Override a value of the matrix; repeatable.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="AXIS=LABEL,...", help="Only the cells that match; repeat for more."),
]
Name = Annotated[str | None, typer.Option("--name", help="The run's folder; the matrix's name unless said.")]


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
        say(f"stopped with {plural(left)} to go. To resume, run the same command again:")
        say(f"  {_typed()}")
        raise typer.Exit(130)
    if unfit := summary.statuses.get("incompatible", 0):
        say(f"{plural(unfit)} cannot run; `bakeoff status` says why.")
    if not summary.ran:
        console.print(f"Nothing to do: every {'other ' if unfit else ''}cell is done.", highlight=False)
    results = reporting.read_results(store)
    console.print(reporting.leaderboard(results))
    _say_failures(store, summary.failed)
    written = reporting.refresh_reports(store, results)
    path = store.folder / "report" / "index.html"
    console.print(f"Report{'' if written else ' (unchanged)'}: {path}", markup=False, soft_wrap=True)
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
    from bakeoff import planning

    matrix, store = _open(source, set_, only, runs, name)
    _say_bad_rows(matrix)
    cells = planning.plan(matrix, store)
    stages = planning.stages(cells, store)
    if as_json:
        states = {stage.id: _state(stage) for stage in stages}
        print_json([_plan_row(cell, states) for cell in cells])
        return
    print_table(
        f"{store.folder.name}: {plural(len(cells))}",
        ("cell", "model", "task", "budget", "algorithm", "seed", "state", "time", "memory"),
        (_plan_line(cell) for cell in cells),
    )
    # Short names are alike ("gpro" and "grpo"); what they stand for is not.
    full_names = dict.fromkeys(f"{cell.cell.algorithm.label}: {cell.record()['title']}" for cell in cells)
    print("\n" + "\n".join(full_names))
    if stages:
        print_table(
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
        print_json(
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
    print_table(
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
            say(
                f"{spec.label}: {len(data.train)} train / {len(data.test)} test rows, "
                f"{len(data.bad_rows)} bad row{'' if len(data.bad_rows) == 1 else 's'}, "
                f"first: {bad.file}:{bad.line} {bad.reason}"
            )


def _say_failures(store: Store, failed: int) -> None:
    from bakeoff import progress

    if failed:
        say(f"{plural(failed)} failed; running the same command again retries them:")
        for cell in progress.read(store).cells:
            if cell.state not in ("ok", "incompatible", "to do", "running", "interrupted"):
                say(f"  {cell.label}: {cell.state}: {cell.reason}\n    {store.cell(cell.id) / 'log.txt'}")


def _typed() -> str:
    from bakeoff.environment import command_line

    return command_line(sys.argv)
