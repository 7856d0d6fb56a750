"""The command line: its commands, errors and exit codes; torch is imported only when something trains."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from cli.job_commands import calibrate, check, doctor, init, schema
from cli.options import INTERRUPTED
from cli.study_commands import explain, export, record, report, status, trials, upgrade
from cli.tuning_commands import run, train
from tuner.domain.errors import TunerError

app = typer.Typer(
    name="paceline",
    help="Finds the nodes, batch size, learning rate and strategy that bring a distributed PyTorch "
    "training to its target soonest, or cheapest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
database = typer.Typer(help="The study database.", no_args_is_help=True)
app.add_typer(database, name="db")
for _command in (
    *(init, check, run, train, status, trials, explain, report),
    *(record, export, calibrate, schema, doctor),
):
    app.command()(_command)
database.command()(upgrade)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"paceline {version('paceline')}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Handles the options that all commands share."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits with its code; errors are one message on stderr, not a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except TunerError as error:
        typer.echo(f"paceline: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        # Typer's usage errors have their own message and exit code.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))
    # Typer turns an interrupt into this exit code, without a message.
    if code == INTERRUPTED:
        typer.echo("paceline: interrupted; run the same command to resume", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
