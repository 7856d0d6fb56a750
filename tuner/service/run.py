"""The use case `run`: search, verify, recommend, confirm, report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.advice.recommend import Ending, recommend
from tuner.domain.format import format_seconds
from tuner.domain.recommendation import Recommendation
from tuner.job import BudgetSection
from tuner.launchers import end_orphans
from tuner.ledger import Ledger, RecommendationRecord, StudyRecord
from tuner.probes import Prober
from tuner.search.context import SearchContext
from tuner.search.events import Listener, SearchEvent, ignore
from tuner.search.limits import JOB_FAULT
from tuner.search.loop import Search
from tuner.search.model_policy import ModelPolicy
from tuner.search.optuna_policy import OptunaPolicy
from tuner.search.optuna_trials import StudyTrials
from tuner.search.policy import Policy, Stop, StopKind
from tuner.search.train_policy import VERIFY_FACTOR, TrainPolicy
from tuner.service.confirming import confirm, require_confirmable, stored_confirmation
from tuner.service.imports import imports_left_behind
from tuner.service.launchers import job_prober
from tuner.service.opening import (
    OpenedJob,
    StudyStore,
    checked_epoch_samples,
    open_study,
    own_name,
    prepare_output,
)
from tuner.service.plan import crowding_words, plan_lines
from tuner.service.reporting import (
    believer_of,
    make_ending,
    remember_calibration,
    write_ending,
    write_no_answer,
)
from tuner.service.training import SamplerName, optuna_study


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a job is run.

    Args:
        output: Folder for reports and probes.
        sampler: `model`, or one of Optuna's: `tpe`, `gp`, `random`.
        fresh: Whether to start a new study.
        verify: Whether the recommendation is trained to the target where it was not yet.
        parallel: Maximum number of concurrent slices, if the cluster has nodes for them.
        confirm: Number of new seeds with which the recommendation and the present settings are trained and
            compared; 0 for none.
    """

    output: Path
    sampler: SamplerName = "model"
    fresh: bool = False
    verify: bool = False
    parallel: int = 1
    confirm: int = 0


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of a run.

    Args:
        recommendation: The answer.
        stop: Why the search ended.
        files: File name to path of what was written.
        study: Its study.
    """

    recommendation: Recommendation
    stop: Stop
    files: dict[str, Path]
    study: StudyRecord


def run_job(
    opened: OpenedJob,
    store: StudyStore,
    options: RunOptions,
    listen: Listener = ignore,
    *,
    make_prober: Callable[[OpenedJob], Prober] = job_prober,
) -> RunResult:
    """Tunes a job end to end; called again, it resumes.

    Args:
        opened: The job.
        store: Where its study is stored.
        options: How it is run.
        listen: Receives events.
        make_prober: Creates the prober; it is closed at the end.

    Raises:
        JobError: The workload cannot be built, or the job has nothing to confirm its answer against.
        InfeasibleError: The target is out of reach, or nothing is feasible.
        ProbeError: Too many probes failed.
        StorageError: Study or output cannot be read or written.
    """
    if options.confirm > 0:
        require_confirmable(opened)
    options = replace(options, output=prepare_output(options.output))
    prober = make_prober(opened)
    try:
        ending, result = _run(opened, store, options, listen, prober)
    finally:
        prober.close()
    if options.confirm == 0:
        return result
    with store.guarded():
        confirm(
            opened,
            store,
            ending.state,
            result.recommendation,
            num_seeds=options.confirm,
            folder=options.output,
            listen=listen,
            make_prober=make_prober,
        )
        confirmation = stored_confirmation(store.ledger, opened, result.recommendation)
        if confirmation == result.recommendation.confirmation:
            return result
        recommendation = replace(result.recommendation, confirmation=confirmation)
        return _given(store.ledger, result.study, ending, recommendation, options.output)


def _run(
    opened: OpenedJob, store: StudyStore, options: RunOptions, listen: Listener, prober: Prober
) -> tuple[Ending, RunResult]:
    if opened.job.recording() is None:
        listen(SearchEvent(kind="plan", text="checking the workload and its data"))
    epoch_samples = checked_epoch_samples(opened)
    study = open_study(store.ledger, opened, options.output, fresh=options.fresh, listen=listen)
    if (words := imports_left_behind(store.ledger, opened)) is not None:
        listen(SearchEvent(kind="warning", text=words))
    for folder in sorted(options.output.glob("probes/*/*")):
        end_orphans(folder)
        prober.end_orphans(folder)
    with store.guarded():
        context = SearchContext(
            job=opened.job,
            cluster=opened.cluster,
            study=study,
            ledger=store.ledger,
            trials=StudyTrials(optuna_study(opened, store, study, options.sampler), opened.job),
            folder=options.output,
            epoch_samples=epoch_samples,
            owner=own_name(),
            parallel=options.parallel,
            listen=listen,
        )
        return _searched(opened, store, options, context, prober)


def _searched(
    opened: OpenedJob, store: StudyStore, options: RunOptions, context: SearchContext, prober: Prober
) -> tuple[Ending, RunResult]:
    policy = _policy(opened, options, context)
    search = Search(context, prober, policy)
    spent = search.state().elapsed_seconds
    for line in plan_lines(
        opened,
        storage=store.url,
        output=str(context.folder),
        spent_seconds=spent,
        parallel=options.parallel,
    ):
        context.listen(SearchEvent(kind="plan", text=line))
    crowd = crowding_words(opened, options.parallel)
    if crowd is not None:
        context.listen(SearchEvent(kind="warning", text=crowd))
    stop, decision = search.run()
    ending = make_ending(opened, context.ledger, context.study, search.state(), decision.beliefs, stop)
    recommendation = None if ending is None else recommend(ending)
    if recommendation is not None and options.verify and recommendation.verified is None:
        expected = recommendation.choice.seconds.median
        context.listen(SearchEvent(kind="plan", text=_verify_words(expected)))
        train = TrainPolicy(
            recommendation.choice.configuration,
            expected_seconds=expected if math.isfinite(expected) else None,
        )
        unbound = context.job.model_copy(update={"budget": BudgetSection()})
        verification, _ = Search(replace(context, parallel=1, job=unbound), prober, train).run()
        if verification.kind is not StopKind.ARRIVED:
            context.listen(SearchEvent(kind="warning", text=f"not verified: {verification.reason}"))
        ending = make_ending(opened, context.ledger, context.study, search.state(), None, stop)
        recommendation = None if ending is None else recommend(ending)
    broken_down = stop.kind is StopKind.FAULTS and (
        ending is None or not ending.state.has_scores or stop.reason == JOB_FAULT
    )
    if ending is None or recommendation is None or broken_down:
        raise write_no_answer(search.state(), stop, context.study, opened.path, context.folder)
    recommendation = replace(
        recommendation, confirmation=stored_confirmation(context.ledger, opened, recommendation)
    )
    return ending, _given(context.ledger, context.study, ending, recommendation, context.folder)


def _given(
    ledger: Ledger, study: StudyRecord, ending: Ending, recommendation: Recommendation, folder: Path
) -> RunResult:
    """Stores a recommendation and how right the forecasts were, and writes the report."""
    remember_calibration(ledger, study, ending)
    ledger.add_recommendation(
        RecommendationRecord(
            study_id=study.study_id,
            made_at=recommendation.made_at,
            recommendation=recommendation.to_dict(),
        )
    )
    files = write_ending(ending, recommendation, folder)
    return RunResult(recommendation=recommendation, stop=ending.stop, files=files, study=study)


def _verify_words(expected_seconds: float) -> str:
    """What the training that `--verify` asks for is limited by."""
    limit = "without a limit"
    if math.isfinite(expected_seconds):
        limit = (
            f"for at most {format_seconds(VERIFY_FACTOR * expected_seconds)}, {VERIFY_FACTOR:g} times the "
            "predicted time"
        )
    return f"--verify: trains the recommendation to the target, {limit}; [budget] does not limit it"


def _policy(opened: OpenedJob, options: RunOptions, context: SearchContext) -> Policy:
    if options.sampler != "model":
        return OptunaPolicy()
    return ModelPolicy(believer_of(opened, context.ledger, context.study, context.epoch_samples))
