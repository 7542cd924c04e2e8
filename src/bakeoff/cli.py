"""The command line: parse, call, print. Heavy imports wait until a command needs them."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

import bakeoff
from bakeoff.commands import doctor, new, plugins, results, runs
from bakeoff.errors import BakeoffError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Compare post-training algorithms (SFT, DPO, PPO, GRPO, yours) under one budget, with honest intervals.",
    epilog="Start with: [bold]bakeoff run quickstart[/]",
)
app.add_typer(runs.app)
app.add_typer(results.app)
app.add_typer(doctor.app)
app.add_typer(plugins.app, name="plugins")
app.add_typer(new.app)


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        print(f"bakeoff {bakeoff.__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the command ``bakeoff``. What a user can mend is told without a traceback, exit code 2."""
    try:
        app()
    except (BakeoffError, OSError) as error:
        told, fix = (error.args[0], error.fix) if isinstance(error, BakeoffError) else _of_the_disk(error)
        if not told or "--debug" in sys.argv:
            raise
        from rich.console import Console

        console = Console(stderr=True)
        console.print(told, style="red", markup=False, highlight=False, soft_wrap=True)
        if fix:
            console.print(fix, markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _of_the_disk(error: OSError) -> tuple[str, str]:
    """What happened to a file, and how to mend it; empty for what is no file's, such as a connection's end."""
    if not error.filename and error.errno not in (errno.ENOSPC, errno.EIO):
        return "", ""
    told = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    return told, "Check the path, its permissions and the space left there; --debug shows where it happened."
