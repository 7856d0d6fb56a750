"""The commands `paceline run` and `paceline train`, which search and train in the foreground."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.service.next_steps import suggest
from tuner.service.options import (
    INTERRUPTED,
    PROVISIONAL,
    Beta,
    Explore,
    Format,
    FormatOption,
    JobPath,
    LogFormat,
    LogFormatOption,
    OuterLearningRate,
    OuterMomentum,
    Output,
    Quiet,
    Sampler,
    StorageUrl,
    Tau,
)
from tuner.service.output import log_settings, print_rows, set_log, show

if TYPE_CHECKING:
    from tuner.domain.recommendation import Recommendation
    from tuner.service.opening import StudyStore

OpenStore = Callable[[str | None, Path], AbstractContextManager["StudyStore"]]


def run_commands(study_store: OpenStore) -> tuple[Callable[..., None], Callable[..., None]]:
    """Returns the functions of the commands `run` and `train`.

    Args:
        study_store: Opens the database at a URL, or the default database of a job file.
    """

    def run(
        job: JobPath,
        storage: StorageUrl = None,
        output: Output = None,
        sampler: Annotated[
            Sampler, typer.Option(envvar="PACELINE_SAMPLER", help="Sampler that chooses the probes.")
        ] = Sampler.MODEL,
        budget: Annotated[
            str | None,
            typer.Option(
                envvar="PACELINE_BUDGET", help="Maximum time to spend, such as 10m or 2h.", show_default=False
            ),
        ] = None,
        max_dollars: Annotated[
            float | None,
            typer.Option(envvar="PACELINE_MAX_DOLLARS", help="Maximum dollars to spend.", show_default=False),
        ] = None,
        parallel: Annotated[
            int,
            typer.Option(
                min=1,
                envvar="PACELINE_PARALLEL",
                help="Maximum number of concurrent probes, if enough nodes are free.",
            ),
        ] = 1,
        fresh: Annotated[
            bool, typer.Option("--fresh", help="Start a new study instead of resuming the last one.")
        ] = False,
        verify: Annotated[
            bool, typer.Option("--verify", help="Train the recommendation to the target.")
        ] = False,
        confirm: Annotated[
            int | None,
            typer.Option(
                "--confirm",
                min=1,
                metavar="N",
                help="Train the recommendation and the present settings with N new seeds each, and compare "
                "them.",
                show_default=False,
            ),
        ] = None,
        no_past_studies: Annotated[
            bool,
            typer.Option(
                "--no-past-studies", help="Do not use what other studies in the database have learnt."
            ),
        ] = False,
        explore: Explore = False,
        yes: Annotated[
            bool, typer.Option("--yes", "-y", envvar="PACELINE_YES", help="Start without asking.")
        ] = False,
        log_format: LogFormatOption = LogFormat.TEXT,
        quiet: Quiet = False,
        strict: Annotated[
            bool, typer.Option("--strict", help=f"Exit with code {PROVISIONAL} if the evidence is weak.")
        ] = False,
        output_format: FormatOption = Format.TABLE,
    ) -> None:
        """Tune a job: search, train, recommend, report. Called again, it resumes."""
        from tuner.service.foreground import in_foreground
        from tuner.service.opening import default_output, open_job
        from tuner.service.run import RunOptions, run_job

        set_log(log_format, quiet=quiet)
        opened = open_job(job, time_budget=budget, max_dollars=max_dollars)
        options = RunOptions(
            output=output or default_output(opened.job),
            sampler=sampler.value,
            fresh=fresh,
            verify=verify,
            parallel=parallel,
            confirm=confirm or 0,
            past_studies=not no_past_studies,
            explore=explore,
        )
        with study_store(storage, job) as store, in_foreground(opened) as (opened, listen):
            result = run_job(opened, store, options, listen, may_start=lambda: yes or _wants_to_start())
        recommendation = result.recommendation
        if output_format is Format.TABLE:
            show(result.text)
            show(f"report: {result.files['report.html']}")
        elif output_format is Format.JSON:
            show(json.dumps(recommendation.to_dict(), indent=2))
        else:
            data = recommendation.to_dict()["choice"]
            seconds = {f"seconds_{name}": value for name, value in (data["seconds"] or {}).items()}
            print_rows([{**data["configuration"], **seconds}], output_format)
        _suggest_after(recommendation, job)
        if opened.interruption.is_requested:
            suggest("run {job}", job=job)
            raise typer.Exit(INTERRUPTED)
        if strict and recommendation.provisional:
            raise typer.Exit(PROVISIONAL)

    def train(
        job: JobPath,
        batch_size: Annotated[int, typer.Option(help="Global batch size.")],
        learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")],
        nodes: Annotated[
            int | None, typer.Option(help="Number of nodes; needed unless the job allows only one.")
        ] = None,
        strategy: Annotated[
            str | None,
            typer.Option(
                help="Strategy. By default, the strategy of the job if it lists only one, else all_reduce."
            ),
        ] = None,
        tau: Tau = None,
        beta: Beta = None,
        outer_learning_rate: OuterLearningRate = None,
        outer_momentum: OuterMomentum = None,
        storage: StorageUrl = None,
        output: Output = None,
        log_format: LogFormatOption = LogFormat.TEXT,
        quiet: Quiet = False,
        output_format: FormatOption = Format.TABLE,
    ) -> None:
        """Train one configuration to the job's target, without a search. Called again, it resumes."""
        from tuner.service.foreground import in_foreground
        from tuner.service.opening import default_output, open_job, require_training
        from tuner.service.reporting import training_rows
        from tuner.service.training import chosen_configuration, train_configuration

        set_log(log_format, quiet=quiet)
        opened = open_job(job)
        require_training(opened)
        configuration = chosen_configuration(
            opened,
            nodes=nodes,
            batch_size=batch_size,
            learning_rate=learning_rate,
            strategy=strategy,
            knobs={
                "tau": tau,
                "beta": beta,
                "outer_learning_rate": outer_learning_rate,
                "outer_momentum": outer_momentum,
            },
        )
        folder = output or default_output(opened.job)
        with study_store(storage, job) as store, in_foreground(opened) as (opened, listen):
            state = train_configuration(opened, store, configuration, folder, listen)
        print_rows(training_rows(configuration, state), output_format)

    return run, train


def _suggest_after(recommendation: Recommendation, job: Path) -> None:
    """Chooses the next command after a search."""
    if recommendation.provisional:
        step = "run {job} --verify"  # [budget], which may be used up, does not limit it
    elif recommendation.command:
        step = "export {job} --target torchrun"
    else:
        step = "trials {job}"
    suggest(step, job=job)


def _wants_to_start() -> bool:
    """Asks the user on a terminal whether to start the search that the plan describes."""
    log = log_settings()
    is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if not is_terminal or log.is_quiet or log.format is LogFormat.JSON:
        return True
    return typer.confirm("Start?", default=True, err=True)
