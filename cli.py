"""The `paceline` command line: commands, their options, error messages and exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tuner.domain.errors import JobError, StorageError, TunerError
from tuner.server.commands import add_commands as add_service_commands
from tuner.service.job_commands import calibrate, check, doctor, init, schema
from tuner.service.next_steps import add_next_steps, pop_suggestion, suggest
from tuner.service.options import (
    INTERRUPTED,
    PROVISIONAL,
    Format,
    FormatOption,
    JobPath,
    LaunchTarget,
    ReportTo,
    SourceFormat,
    StorageUrl,
)
from tuner.service.outcome_command import add_outcome_command
from tuner.service.output import ask, print_rows, say, set_log, show
from tuner.service.predict_commands import add_predict_commands
from tuner.service.remote_commands import approve, cancel, jobs, pause, resume, submit, watch
from tuner.service.report_command import report_command
from tuner.service.run_command import run_commands

if TYPE_CHECKING:
    from storage import Storage
    from tuner.service.opening import OpenedJob

#: Errors of the operating system that a path given by the user causes.
_PATH_ERRORS = frozenset(
    (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)
)

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


def status(job: JobPath, storage: StorageUrl = None, output_format: FormatOption = Format.TABLE) -> None:
    """Show the status of a job's study."""
    from tuner.service.opening import default_output
    from tuner.service.outcomes import compared_outcomes
    from tuner.service.views import require_study, status_rows

    opened = opened_job(job)
    with study_store(storage, job, to_read=True) as store:
        study = require_study(store.ledger, opened)
        folder, outcomes = default_output(opened.job).resolve(), compared_outcomes(store, study)
        print_rows(status_rows(store.ledger, study, folder, outcomes), output_format)


def trials(job: JobPath, storage: StorageUrl = None, output_format: FormatOption = Format.TABLE) -> None:
    """List every probe of a job's study."""
    from tuner.service.views import require_study, trial_rows

    opened = opened_job(job)
    with study_store(storage, job, to_read=True) as store:
        study = require_study(store.ledger, opened)
        print_rows(trial_rows(store.ledger, study), output_format)


def explain(
    job: JobPath,
    trial: Annotated[int, typer.Argument(help="Number of the trial.")],
    storage: StorageUrl = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Show the measurements and predictions of one trial."""
    from tuner.service.views import explain_rows, require_study

    opened = opened_job(job)
    with study_store(storage, job, to_read=True) as store:
        study = require_study(store.ledger, opened)
        print_rows(explain_rows(store.ledger, study, trial), output_format)


def record(
    job: JobPath,
    storage: StorageUrl = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Path of the file; ./STUDY.jsonl.gz by default.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Write a recording of a job's study: its runs and curves, for later replay."""
    from tuner.service.record import record_study

    opened = opened_job(job)
    with study_store(storage, job, to_read=True) as store:
        made = record_study(opened, store, output, force=force)
    rows: list[dict[str, Any]] = [
        {"name": "recording", "value": str(made.path)},
        {"name": "configurations", "value": made.num_runs},
        {"name": "reached the target", "value": made.num_arrived},
        *({"name": "left out", "value": words} for words in made.left_out),
    ]
    print_rows(rows, output_format)


def import_runs(
    job: JobPath,
    sources: Annotated[
        list[Path],
        typer.Option("--from", help="File or folder of runs; can be repeated.", show_default=False),
    ],
    mapping: Annotated[
        Path | None,
        typer.Option(help="TOML file that names the columns and parameters to read.", show_default=False),
    ] = None,
    source_format: Annotated[
        SourceFormat, typer.Option("--source-format", help="Read only files of this format.")
    ] = SourceFormat.AUTO,
    same_hardware: Annotated[
        bool,
        typer.Option("--same-hardware", help="Also use the runs' times: they used the job's hardware."),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Replace all runs that were imported for this job before.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs, and store nothing.")] = False,
    storage: StorageUrl = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Import metric curves of past runs. They improve predictions, but are never recommended."""
    from tuner.service.importing import ImportOptions, import_rows, read_past_runs, summary_words

    opened = opened_job(job)
    options = ImportOptions(
        sources=tuple(sources),
        mapping=mapping,
        source_format=None if source_format is SourceFormat.AUTO else source_format.value,
        same_hardware=same_hardware,
    )
    read = read_past_runs(opened, options, ask if sys.stdin.isatty() and sys.stderr.isatty() else None)
    say(f"mapping:\n{read.mapping_text}")
    if dry_run:
        rows = import_rows(opened, read, None)
    else:
        with study_store(storage, job) as store:
            rows = import_rows(opened, read, store.ledger, fresh=fresh)
    print_rows(rows, output_format)
    say(summary_words(rows))


def export(
    job: JobPath,
    target: Annotated[
        LaunchTarget,
        typer.Option(
            "--target",
            "-t",
            help="Kind of launch file: a script, an sbatch file, a Ray job, a Kubeflow TrainJob, a SkyPilot "
            "task, or an environment file.",
            show_default=False,
        ),
    ],
    storage: StorageUrl = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Path of the file; stdout by default.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    accelerator: Annotated[
        str | None,
        typer.Option(help="Type of the devices, such as A100; CPU cores by default.", show_default=False),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="Container image for k8s and skypilot.", show_default=False),
    ] = None,
    report_to: ReportTo = None,
) -> None:
    """Print, or write with --output, a launch file that trains the recommendation elsewhere."""
    from tuner.service.exporting import ExportOptions, export_job, export_line

    opened = opened_job(job)
    options = ExportOptions(
        target=target.value,
        output=output,
        force=force,
        accelerator=accelerator,
        image=image,
        made_by=export_line(job, target.value, accelerator=accelerator, image=image, output=output),
        report_to=report_to,
    )
    with study_store(storage, job, to_read=True) as store:
        text = export_job(opened, store, options)
    if output is not None:
        show(f"wrote {output}")
    elif sys.stdout.isatty():
        show(text, nl=False)
    else:
        # A file gets the exact text.
        typer.echo(text, nl=False)


def upgrade(
    url: Annotated[str, typer.Argument(help="SQLAlchemy URL of the study database.", show_default=False)],
) -> None:
    """Upgrade the tables of a study database to this version. All data are preserved."""
    from storage import open_storage

    open_storage(url).close()
    show("the study database is up to date")


def recover(
    file: Annotated[Path, typer.Argument(help="The recovery file.", show_default=False)],
    url: Annotated[
        str, typer.Argument(help="SQLAlchemy URL of a new or existing study database.", show_default=False)
    ],
) -> None:
    """Add the measurements in a recovery file to a study database. Nothing is added twice."""
    from storage import open_storage

    with open_storage(url) as store:
        added = store.recover(file)
    typer.echo(
        f"recovered {added.num_studies} studies, {added.num_probes} probes and {added.num_slices} slices "
        "that the database did not have"
    )


def opened_job(path: Path) -> OpenedJob:
    """Reads a job file."""
    from tuner.service.opening import open_job

    return open_job(path)


@contextmanager
def study_store(url: str | None, job: Path, *, to_read: bool = False) -> Iterator[Storage]:
    """Context manager that opens the study database. With `to_read`, an SQLite file must exist already."""
    from storage import open_storage
    from tuner.service.opening import default_storage_url

    url = url or default_storage_url(job)
    file = Path(url.removeprefix("sqlite:///"))
    if to_read and url.startswith("sqlite:///") and file.parent.is_dir() and not file.exists():
        suggest("run {job}", job=job)
        raise JobError(
            f"{job}: there is no study of this job here yet, and no database {file}; `paceline run {job}` "
            "starts one. If the study is in another database, give its URL with --storage"
        )
    with open_storage(url) as store:
        yield store


for _command in (
    *(init, check, *run_commands(study_store), status, trials, explain, report_command(study_store)),
    *(record, import_runs, export, calibrate, schema, doctor),
    *(submit, jobs, watch, cancel, approve, pause, resume),
):
    app.command()(_command)
database.command()(upgrade)
database.command()(recover)


@contextmanager
def _service_store(url: str) -> Iterator[Storage]:
    """Context manager that opens the database of the service."""
    from storage import open_storage

    with open_storage(url) as store:
        yield store


add_service_commands(app, database, _service_store)


add_outcome_command(app, study_store)
add_predict_commands(app, study_store)
add_next_steps(app)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits with its code. Errors are one message on stderr, without a traceback.

    The last line on stderr is the next sensible command, unless the output is for a program.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    set_log()
    pop_suggestion()
    code = _exit_code(arguments)
    step = pop_suggestion()
    if step is not None:
        say(f"Next: paceline {step}")
    sys.exit(code)


def _exit_code(arguments: Sequence[str] | None) -> int:
    """Runs a command, prints its error message, and returns its exit code."""
    try:
        code = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except TunerError as error:
        say(f"paceline: {error}", "error")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        if error.errno not in _PATH_ERRORS or error.filename is None:
            raise
        path = Path(os.fsdecode(error.filename))
        say(f"paceline: {path}: {error.strerror}. Choose another path, or correct this one", "error")
        return StorageError.exit_code
    except Exception as error:
        # Usage errors of Typer print their own message.
        show = getattr(error, "show", None)
        if show is None:
            raise
        vars(error)["message"] = str(vars(error).get("message", "")).replace("Value error, ", "")
        show()
        return int(getattr(error, "exit_code", 2))
    # Typer returns this exit code for an interrupt, without a message.
    if code == INTERRUPTED:
        say("paceline: interrupted; run the same command to resume", "interrupted")
    if code == PROVISIONAL:
        say("paceline: the answer is provisional, and --strict makes this an error", "error")
    return code if isinstance(code, int) else 0


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
