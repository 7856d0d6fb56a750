"""Commands that show, write or export what the study of a job holds."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.opening import opened_job, study_store
from cli.options import (
    Format,
    FormatOption,
    JobPath,
    LaunchTarget,
    Output,
    StorageUrl,
)
from cli.output import print_rows

if TYPE_CHECKING:
    pass


def status(job: JobPath, storage: StorageUrl = None, output_format: FormatOption = Format.TABLE) -> None:
    """Show the status of a job's study."""
    from tuner.service.opening import default_output
    from tuner.service.views import require_study, status_rows

    opened = opened_job(job)
    with study_store(storage, job, to_read=True) as store:
        study = require_study(store.ledger, opened)
        print_rows(status_rows(store.ledger, study, default_output(opened.job).resolve()), output_format)


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
    """Show what was measured and predicted for one trial."""
    from tuner.service.views import explain_rows, require_study

    opened = opened_job(job)
    with study_store(storage, job, to_read=True) as store:
        study = require_study(store.ledger, opened)
        print_rows(explain_rows(store.ledger, study, trial), output_format)


def report(job: JobPath, storage: StorageUrl = None, output: Output = None) -> None:
    """Write a job's report again from its study, without probing."""
    from tuner.service.opening import default_output
    from tuner.service.reporting import report_job

    opened = opened_job(job)
    with study_store(storage, job, to_read=True) as store:
        files = report_job(opened, store, output or default_output(opened.job))
    for path in files.values():
        typer.echo(path)


def record(
    job: JobPath,
    storage: StorageUrl = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file; STUDY.jsonl.gz in this folder by default.", show_default=False
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
        {"what": "recording", "value": str(made.path)},
        {"what": "configurations", "value": made.num_runs},
        {"what": "reached the target", "value": made.num_arrived},
        *({"what": "left out", "value": words} for words in made.left_out),
    ]
    print_rows(rows, output_format)


def export(
    job: JobPath,
    target: Annotated[
        LaunchTarget,
        typer.Option(
            "--target",
            "-t",
            help="A script, an sbatch file, a Ray job, a Kubeflow TrainJob, a SkyPilot task, or an "
            "environment file.",
            show_default=False,
        ),
    ],
    storage: StorageUrl = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file; stdout by default.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    accelerator: Annotated[
        str | None,
        typer.Option(help="Type of a device, such as A100; CPU cores by default.", show_default=False),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="k8s, skypilot: the container image it runs in.", show_default=False),
    ] = None,
) -> None:
    """Print, or write with --output, a launch file that trains the recommendation elsewhere."""
    from tuner.service.exporting import ExportOptions, export_job

    opened = opened_job(job)
    options = ExportOptions(
        target=target.value,
        output=output,
        force=force,
        accelerator=accelerator,
        image=image,
        made_by=_export_line(job, target, accelerator=accelerator, image=image, output=output),
    )
    with study_store(storage, job, to_read=True) as store:
        text = export_job(opened, store, options)
    typer.echo(text if output is None else f"wrote {output}", nl=output is not None)


def _export_line(job: Path, target: LaunchTarget, **others: object) -> str:
    """The export's command line, to be repeated; without the database URL, which may hold a password."""
    flags = [f"--{name}={value}" for name, value in others.items() if value is not None]
    return shlex.join(["paceline", "export", str(job), "--target", target.value, *flags])


def upgrade(
    url: Annotated[str, typer.Argument(help="SQLAlchemy URL of the study database.", show_default=False)],
) -> None:
    """Upgrade a study database to the tables of this version; its contents are kept."""
    from storage import upgrade as upgrade_storage

    upgrade_storage(url)
    typer.echo("the study database is up to date")
