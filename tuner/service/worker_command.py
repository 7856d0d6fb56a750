"""The command `paceline worker`, and the hidden command that runs one job of a worker."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.domain.errors import JobError
from tuner.service.output import say

if TYPE_CHECKING:
    from tuner.service.leased_run import RunStore

_LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
_MOST_LABELS = 8


def add_worker_commands(
    app: typer.Typer, open_store: Callable[[str], AbstractContextManager[RunStore]], default_storage: str
) -> None:
    """Adds the commands to the command line.

    Args:
        app: The command line.
        open_store: Opens the database at a URL.
        default_storage: URL of the database if none is given.
    """

    @app.command()
    def worker(
        storage: Annotated[
            str,
            typer.Option(
                "--storage",
                envvar="PACELINE_STORAGE",
                help="SQLAlchemy URL of the database: SQLite for one host, PostgreSQL for many.",
            ),
        ] = default_storage,
        labels: Annotated[
            str, typer.Option(help="Labels, such as gpu,slurm; jobs that need a label run only there.")
        ] = "",
        slots: Annotated[int, typer.Option(min=1, help="Number of jobs to run at the same time.")] = 1,
        artifacts: Annotated[
            str | None,
            typer.Option(
                envvar="PACELINE_ARTIFACTS",
                metavar="PATH-OR-URL",
                help="Folder or fsspec URL, such as s3://bucket/paceline, that all workers share, so that "
                "another worker resumes from checkpoints.",
                show_default=False,
            ),
        ] = None,
        output: Annotated[
            Path, typer.Option(help="Local folder for the files of jobs, without a shared folder.")
        ] = Path("paceline-out"),
        attempts: Annotated[
            int, typer.Option(min=1, max=100, help="Silent workers after which a job fails.")
        ] = 3,
        lease: Annotated[
            float, typer.Option(min=1.0, help="Seconds without a sign of life until a job is taken over.")
        ] = 60.0,
        silence: Annotated[
            float,
            typer.Option(min=1.0, help="Minutes without a sign of life of a search until it is given up."),
        ] = 15.0,
        drain_after_jobs: Annotated[
            int | None,
            typer.Option(min=1, help="Number of jobs after which the worker ends.", show_default=False),
        ] = None,
    ) -> None:
        """Run jobs of the queue until SIGTERM, which hands them back with a checkpoint."""
        from tuner.service.worker import Worker, WorkerSettings

        settings = WorkerSettings(
            storage=storage,
            local=output.resolve(),
            artifacts=artifacts
            if artifacts is None or "://" in artifacts
            else str(Path(artifacts).resolve()),
            labels=_labels(labels),
            slots=slots,
            attempts=attempts,
            lease_seconds=lease,
            silent_seconds=60.0 * silence,
            drain_after=drain_after_jobs,
        )
        with open_store(storage) as store:
            found = Worker(store=store, settings=settings)
            say(f"worker {found.name} takes jobs from {store.url}; Ctrl-C hands its jobs back and ends it")
            found.run()
            say("the worker has stopped")

    @app.command(hidden=True)
    def leased_run() -> None:
        """Run one job of a worker; the worker sends its order through the standard input."""
        from tuner.service.leased_run import main_of_process

        raise typer.Exit(main_of_process(open_store))


def _labels(words: str) -> tuple[str, ...]:
    labels = tuple(label.strip() for label in words.split(",") if label.strip())
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise JobError(
                f"--labels: {label!r} is no label; use up to 32 small letters, digits, '.', '_' and '-', as "
                "in gpu,slurm"
            )
    if len(labels) > _MOST_LABELS:
        raise JobError(f"--labels: {len(labels)} labels were given; a worker has at most {_MOST_LABELS}")
    return labels
