"""The use case `train`: trains one configuration to the job's target, without a search."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from search_spaces import Configuration
from tuner.domain.errors import JobError
from tuner.domain.ledger import StudyRecord
from tuner.job import BaselineSection, BudgetSection, Job, configuration_with_knobs
from tuner.probes import Prober
from tuner.search.context import SearchContext
from tuner.search.events import Listener, ignore
from tuner.search.loop import Search, SearchResult
from tuner.search.optuna_trials import StudyTrials
from tuner.search.policy import StopKind
from tuner.search.sampler import baseline_sampler
from tuner.search.state import SearchState
from tuner.search.train_policy import TrainPolicy
from tuner.service.attempt import own_name
from tuner.service.launchers import job_prober
from tuner.service.opening import (
    OpenedJob,
    StudyStore,
    checked_epoch_samples,
    free_leases_of_the_dead,
    prepare_output,
    require_training,
)
from tuner.service.outcome_report import report_training

if TYPE_CHECKING:
    import optuna

SamplerName = Literal["model", "tpe", "gp", "random"]


def chosen_configuration(
    opened: OpenedJob,
    *,
    nodes: int | None,
    batch_size: int,
    learning_rate: float,
    strategy: str | None,
    knobs: Mapping[str, int | float | None],
) -> Configuration:
    """Returns the configuration that the user specifies with command-line options.

    Args:
        opened: The job.
        nodes: Number of nodes; None if the job allows only one number.
        batch_size: Global batch size.
        learning_rate: Peak learning rate.
        strategy: Name of the strategy. None for the only strategy in the space of the job, or for all-reduce
            if the space has several strategies.
        knobs: Maps the name of each parameter of the strategy, such as `tau`, to its value; None for the
            default.

    Raises:
        JobError: The number of nodes is missing, or a value is not valid.
    """
    counts, space = opened.cluster.node_counts, opened.job.space
    if nodes is None and len(counts) > 1:
        listed = ", ".join(map(str, counts))
        raise JobError(
            f"{opened.path}: --nodes is missing: the job allows {listed} nodes; choose one of them"
        )
    if strategy is None:
        strategy = space.strategy[0] if space and len(space.strategy) == 1 else "all_reduce"
    try:
        return configuration_with_knobs(
            Configuration(
                nodes=counts[0] if nodes is None else nodes,
                batch_size=batch_size,
                learning_rate=learning_rate,
                strategy=strategy,
            ),
            **knobs,
        )
    except ValueError as error:
        raise JobError(f"{opened.path}: {error}") from error


def train_configuration(
    opened: OpenedJob,
    store: StudyStore,
    configuration: Configuration,
    output: Path,
    listen: Listener = ignore,
    *,
    limit_seconds: float | None = None,
    make_prober: Callable[[OpenedJob], Prober] = job_prober,
) -> SearchState:
    """Trains one configuration to the job's target, without a search.

    If `PACELINE_REPORT_TO` is set, the real time to target is reported to that server at the end.

    Args:
        opened: The job.
        store: The database in which the training is stored. A second call resumes the stored training.
        configuration: The configuration to train.
        output: Folder for the checkpoints and the trained model.
        listen: Function that is called with progress events and warnings.
        limit_seconds: Maximum training seconds; None for no limit.
        make_prober: Function that creates the prober, which is closed at the end.

    Returns:
        The state of the study after the training; `run_of(state, configuration)` returns the training.

    Raises:
        JobError: The Workload cannot be built, or the configuration is not valid for this job.
        StorageError: The study or the output folder cannot be read or written.
        KeyboardInterrupt: The user interrupted the training before it reached the target.
    """
    require_training(opened)
    job = job_of_one(opened, configuration)
    folder = prepare_output(output)
    epoch_samples = checked_epoch_samples(opened)
    digest = hashlib.sha256(f"{opened.fingerprint} {configuration.key}".encode()).hexdigest()[:16]
    study = store.ledger.open_study(f"{job.name}.train", digest, job.published())
    policy = TrainPolicy(configuration, limit_seconds=limit_seconds)
    ended = run_training(
        opened,
        store,
        study,
        job,
        policy,
        folder=folder,
        epoch_samples=epoch_samples,
        listen=listen,
        make_prober=make_prober,
    )
    if ended.stop.kind is StopKind.INTERRUPTED:
        raise KeyboardInterrupt
    report_training(configuration, ended.state, listen)
    return ended.state


def run_training(
    opened: OpenedJob,
    store: StudyStore,
    study: StudyRecord,
    job: Job,
    policy: TrainPolicy,
    *,
    folder: Path,
    epoch_samples: int,
    listen: Listener,
    make_prober: Callable[[OpenedJob], Prober],
) -> SearchResult:
    """Runs one training in a separate study. A second call resumes this training.

    Args:
        opened: The job that the prober runs.
        store: The database of studies.
        study: The Paceline study that contains only this training.
        job: The job of this training, from `job_of_one`.
        policy: Starts slices of the configuration until it reaches the target or its time limit.
        folder: The output folder, which exists.
        epoch_samples: Number of samples in the training set.
        listen: Function that is called with progress events and warnings.
        make_prober: Function that creates the prober, which is closed at the end.

    Raises:
        StorageError: Another process works on the study, or the study or the folder cannot be read or
            written.
    """
    free_leases_of_the_dead(store.ledger, study, folder, opened.cluster, listen, attempt=opened.attempt)
    with store.guarded():
        context = SearchContext(
            job=job,
            cluster=opened.cluster,
            study=study,
            ledger=store.ledger,
            trials=StudyTrials(optuna_study(opened, store, study), job),
            folder=folder,
            epoch_samples=epoch_samples,
            owner=own_name(opened.attempt),
            listen=listen,
            watch=opened.watch if opened.attempt is None else opened.attempt.watch_training,
            interruption=opened.interruption,
            saves=opened.saves,
        )
        prober = make_prober(opened)
        try:
            for left in sorted(folder.glob("probes/*/*")):
                prober.end_orphans(left)
            return Search(context, prober, policy).run()
        finally:
            prober.close()


def optuna_study(
    opened: OpenedJob, store: StudyStore, study: StudyRecord, sampler: SamplerName = "model"
) -> optuna.Study:
    """Opens the Optuna study that belongs to a Paceline study. Creates it if it does not exist.

    The Optuna study has the same name as the Paceline study, and is in the same database.

    Args:
        opened: The job.
        store: The database of both studies.
        study: The Paceline study.
        sampler: The sampler of Optuna that suggests configurations; `model` if Paceline's search does.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chooser = None
    if sampler != "model":
        chooser = baseline_sampler(sampler, opened.job.search_space(), opened.job.seed)
    return optuna.create_study(
        storage=store.optuna_storage(),
        study_name=study.name,
        direction="minimize",
        sampler=chooser,
        load_if_exists=True,
    )


def job_of_one(opened: OpenedJob, configuration: Configuration) -> Job:
    """Returns a copy of the job that has the configuration as its baseline and no budget.

    Raises:
        JobError: The configuration cannot be trained by this job.
    """
    try:
        baseline = BaselineSection.model_validate(configuration.as_dict())
    except ValidationError as error:
        problems = [f"{p['loc'][0]} = {p['input']!r}: {_plain_words(p['msg'])}" for p in error.errors()]
        raise JobError(f"{opened.path}: cannot train {configuration}: {'; '.join(problems)}") from error
    against = [c.reason_against(configuration) for c in opened.job.search_space().conditions]
    most = max(opened.cluster.node_counts)
    if configuration.nodes > most:
        against.append(f"nodes = {configuration.nodes}: cluster.nodes allows up to {most}")
    found = [reason for reason in against if reason is not None]
    if found:
        raise JobError(f"{opened.path}: cannot train {configuration}: {'; '.join(found)}")
    return opened.job.model_copy(update={"baseline": baseline, "budget": BudgetSection()})


def _plain_words(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ")
