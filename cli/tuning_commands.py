"""Commands that train: the search, and the training of one configuration."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from cli.opening import opened_job, study_store
from cli.options import (
    PROVISIONAL,
    Format,
    FormatOption,
    JobPath,
    Output,
    Sampler,
    StorageUrl,
)
from cli.output import print_rows, shown_progress
from tuner.domain.errors import JobError


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
    fresh: Annotated[bool, typer.Option("--fresh", help="Start a new study.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Train the recommendation to the target.")] = False,
    confirm: Annotated[
        int | None,
        typer.Option(
            "--confirm",
            min=1,
            metavar="N",
            help="Train the recommendation and the present settings with N new seeds each, and compare them.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit with {PROVISIONAL} if the answer is provisional.")
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Tune a job: search, train, recommend, report. Called again, it resumes."""
    from tuner.report import recommendation_text
    from tuner.service.opening import default_output
    from tuner.service.run import RunOptions, run_job

    opened = opened_job(job, budget=budget, max_dollars=max_dollars)
    options = RunOptions(
        output=output or default_output(opened.job),
        sampler=sampler.value,
        fresh=fresh,
        verify=verify,
        parallel=parallel,
        confirm=confirm or 0,
    )
    with study_store(storage, job) as store, shown_progress() as listen:
        result = run_job(opened, store, options, listen)
    recommendation = result.recommendation
    if output_format is Format.TABLE:
        typer.echo(recommendation_text(recommendation))
        typer.echo(f"report: {result.files['report.html']}")
    elif output_format is Format.JSON:
        typer.echo(json.dumps(recommendation.to_dict(), indent=2))
    else:
        data = recommendation.to_dict()["choice"]
        seconds = {f"seconds_{name}": value for name, value in (data["seconds"] or {}).items()}
        print_rows([{**data["configuration"], **seconds}], output_format)
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
        str | None, typer.Option(help="Strategy; the job's if it has only one, else all_reduce.")
    ] = None,
    tau: Annotated[int | None, typer.Option(help="Steps between two exchanges.")] = None,
    beta: Annotated[float | None, typer.Option(help="elastic_averaging: moving rate times ranks.")] = None,
    outer_learning_rate: Annotated[float | None, typer.Option(help="diloco: rate of outer steps.")] = None,
    outer_momentum: Annotated[float | None, typer.Option(help="diloco: momentum of outer steps.")] = None,
    storage: StorageUrl = None,
    output: Output = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Train one configuration to the job's target, without a search. Called again, it resumes."""
    from search_spaces import Configuration
    from tuner.advice.recommend import trained_model
    from tuner.job import configuration_with_knobs
    from tuner.search.state import run_of
    from tuner.service.opening import default_output, require_training
    from tuner.service.reporting import not_arrived
    from tuner.service.training import train_configuration

    opened = opened_job(job)
    require_training(opened)
    counts, space = opened.cluster.node_counts, opened.job.space
    if nodes is None:
        if len(counts) > 1:
            listed = ", ".join(map(str, counts))
            raise JobError(f"{job}: --nodes is missing: the job allows {listed} nodes; choose one of them")
        nodes = counts[0]
    if strategy is None:
        strategy = space.strategy[0] if space and len(space.strategy) == 1 else "all_reduce"
    try:
        configuration = configuration_with_knobs(
            Configuration(nodes=nodes, batch_size=batch_size, learning_rate=learning_rate, strategy=strategy),
            tau=tau,
            beta=beta,
            outer_learning_rate=outer_learning_rate,
            outer_momentum=outer_momentum,
        )
    except ValueError as error:
        raise JobError(f"{job}: {error}") from error
    folder = output or default_output(opened.job)
    with study_store(storage, job) as store, shown_progress() as listen:
        state = train_configuration(opened, store, configuration, folder, listen)
    trained = run_of(state, configuration)
    if trained is None or trained.seconds_to_target is None:
        raise not_arrived(configuration, state)
    rows: list[dict[str, Any]] = [
        {"what": "training seconds to target", "value": round(trained.seconds_to_target, 3)},
        {"what": "samples to target", "value": trained.samples_to_target},
        {"what": "trained model", "value": trained_model(trained)},
    ]
    print_rows(rows, output_format)
