"""The command `paceline outcome add`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.service.options import JobPath, StorageUrl
from tuner.service.output import show

if TYPE_CHECKING:
    from tuner.service.opening import StudyStore


def add_outcome_command(
    app: typer.Typer, open_store: Callable[[str | None, Path], AbstractContextManager[StudyStore]]
) -> None:
    """Adds the command to the command line.

    Args:
        app: The command line.
        open_store: Opens the database at a URL, or the default database of a job file.
    """
    outcomes = typer.Typer(help="Real times to target of recommendations.", no_args_is_help=True)
    app.add_typer(outcomes, name="outcome")

    @outcomes.callback()
    def group() -> None:
        """Real times to target of recommendations."""

    @outcomes.command()
    def add(
        job: JobPath,
        seconds: Annotated[
            float, typer.Option(help="Training seconds to the target, or to the end.", show_default=False)
        ],
        not_reached: Annotated[
            bool, typer.Option("--not-reached", help="The training ended before it reached the target.")
        ] = False,
        nodes: Annotated[
            int | None, typer.Option(help="As recommended by default, like the other values.")
        ] = None,
        batch_size: Annotated[int | None, typer.Option(help="Global batch size.")] = None,
        learning_rate: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
        strategy: Annotated[str | None, typer.Option(help="Strategy.")] = None,
        key: Annotated[
            str | None, typer.Option(help="Key of the training; the same key is stored only once.")
        ] = None,
        storage: StorageUrl = None,
    ) -> None:
        """Store how long the recommended training really took, so that later intervals are right."""
        from tuner.service.opening import open_job
        from tuner.service.outcomes import NewOutcome, add_outcome
        from tuner.service.views import require_study

        given = {"nodes": nodes, "batch_size": batch_size, "learning_rate": learning_rate}
        values = {name: value for name, value in {**given, "strategy": strategy}.items() if value is not None}
        opened = open_job(job)
        with open_store(storage, job) as store:
            study = require_study(store.ledger, opened)
            new = NewOutcome(seconds=seconds, reached=not not_reached, values=values, key=key)
            stored = add_outcome(store, study, new)
        show(stored.words if stored.is_new else f"stored before: {stored.words}")
