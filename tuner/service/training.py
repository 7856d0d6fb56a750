"""The use case `train`: train one configuration to the job's target, without a search."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from search_spaces import Configuration
from tuner.domain.errors import JobError
from tuner.job import BaselineSection, BudgetSection, Job
from tuner.ledger import StudyRecord
from tuner.probes import Prober
from tuner.search.context import SearchContext
from tuner.search.events import Listener, ignore
from tuner.search.loop import Search, SearchResult
from tuner.search.optuna_trials import StudyTrials
from tuner.search.sampler import baseline_sampler
from tuner.search.state import SearchState
from tuner.search.train_policy import TrainPolicy
from tuner.service.launchers import job_prober
from tuner.service.opening import (
    OpenedJob,
    StudyStore,
    checked_epoch_samples,
    free_leases_of_the_dead,
    own_name,
    prepare_output,
    require_training,
)

if TYPE_CHECKING:
    import optuna

SamplerName = Literal["model", "tpe", "gp", "random"]


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

    Args:
        opened: The job.
        store: Where the training's slices are stored: if interrupted, it resumes from them.
        configuration: What to train.
        output: Folder for its checkpoints and model.
        listen: Receives events.
        limit_seconds: Training seconds after which it is given up; None for none.
        make_prober: Creates the prober; it is closed at the end.

    Returns:
        What is known in the end; `run_of(state, configuration)` is the training.

    Raises:
        JobError: The workload cannot be built, or the configuration is not valid for this job.
        StorageError: Study or output cannot be read or written.
    """
    require_training(opened)
    job = job_of_one(opened, configuration)
    folder = prepare_output(output)
    epoch_samples = checked_epoch_samples(opened)
    digest = hashlib.sha256(f"{opened.fingerprint} {configuration.key}".encode()).hexdigest()[:16]
    study = store.ledger.open_study(f"{job.name}.train", digest, job.model_dump(mode="json"))
    policy = TrainPolicy(configuration, limit_seconds=limit_seconds)
    return run_training(
        opened,
        store,
        study,
        job,
        policy,
        folder=folder,
        epoch_samples=epoch_samples,
        listen=listen,
        make_prober=make_prober,
    ).state


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
    """Carries out one training in a study of its own; called again, it resumes.

    Args:
        opened: The job that the prober runs.
        store: Where the study is stored.
        study: The training's study.
        job: The job of this training alone (`job_of_one`).
        policy: Trains the configuration.
        folder: The output folder; exists.
        epoch_samples: Size of the training set.
        listen: Receives events.
        make_prober: Creates the prober; it is closed at the end.

    Raises:
        StorageError: Another tuner works on the study, or study or folder cannot be read or written.
    """
    free_leases_of_the_dead(store.ledger, study, folder, opened.cluster, listen)
    with store.guarded():
        context = SearchContext(
            job=job,
            cluster=opened.cluster,
            study=study,
            ledger=store.ledger,
            trials=StudyTrials(optuna_study(opened, store, study), job),
            folder=folder,
            epoch_samples=epoch_samples,
            owner=own_name(),
            listen=listen,
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
    """The Optuna study of a study, in the same database; it is created if it is absent.

    Args:
        opened: The job.
        store: The database.
        study: The study; both have the same name.
        sampler: Which of Optuna's samplers suggests configurations; `model` for none of them.
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
    """The job with a configuration as its baseline, which may lie outside of the job's space."""
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
    # Neither a search nor its budget: it trains until it reaches the target.
    return opened.job.model_copy(update={"baseline": baseline, "budget": BudgetSection()})


def _plain_words(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ")
