"""The use case `run`: searches, verifies and confirms the recommendation, and writes the report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.advice.recommend import Ending, recommend
from tuner.domain.errors import JobError, TunerError
from tuner.domain.format import format_seconds
from tuner.domain.ledger import Ledger, RecommendationRecord, StudyRecord
from tuner.domain.recommendation import Recommendation
from tuner.job import BudgetSection
from tuner.probes import Prober
from tuner.report import recommendation_text
from tuner.search.context import SearchContext
from tuner.search.events import Listener, SearchEvent, ignore
from tuner.search.exploring import ExploringPolicy
from tuner.search.loop import Search, SearchResult
from tuner.search.model_policy import ModelPolicy
from tuner.search.optuna_policy import OptunaPolicy
from tuner.search.optuna_trials import StudyTrials
from tuner.search.policy import Policy, Stop, StopKind
from tuner.search.state import SearchState, read_state
from tuner.search.stopping import JOB_FAULT
from tuner.search.train_policy import VERIFY_FACTOR, TrainPolicy
from tuner.service.attempt import own_name
from tuner.service.confirming import confirm, require_confirmable, stored_confirmation
from tuner.service.imports import imports_left_behind
from tuner.service.launchers import job_prober
from tuner.service.opening import (
    OpenedJob,
    StudyStore,
    checked_epoch_samples,
    open_study,
    prepare_output,
    resumed_study,
)
from tuner.service.overrides import option_overrides, search_overrides
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
    """Options of `paceline run`.

    Args:
        output: Folder for the report and the files of the probes.
        sampler: `model` for the search of Paceline, or a sampler of Optuna: `tpe`, `gp`, `random`.
        fresh: Whether to start a new study.
        verify: Whether to train the recommendation to the target if the search has not done so.
        parallel: Maximum number of concurrent slices. The number of nodes may limit it further.
        confirm: Number of new seeds with which the recommendation and the baseline are trained, to compare
            their times to target; 0 for no comparison.
        restart_lost: Whether trainings whose checkpoints are not on this host start from the beginning, as
            after a takeover by another host. If not, a missing checkpoint is an error.
        past_studies: Whether the forecasts use what other studies in the database have learnt.
        explore: Whether probes use the rest of the budget after the answer, to make predictions of other
            configurations more certain (`ExploringPolicy`).
    """

    output: Path
    sampler: SamplerName = "model"
    fresh: bool = False
    verify: bool = False
    parallel: int = 1
    confirm: int = 0
    restart_lost: bool = False
    past_studies: bool = True
    explore: bool = False


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The result of `paceline run`.

    Args:
        recommendation: The recommended configuration with its evidence.
        stop: Why the search ended.
        files: Maps the name of each file of the report to its path.
        study: The study of the job.
    """

    recommendation: Recommendation
    stop: Stop
    files: dict[str, Path]
    study: StudyRecord

    @property
    def text(self) -> str:
        """The recommendation as text for a terminal."""
        return recommendation_text(self.recommendation)


class NotStartedError(TunerError):
    """The user has seen the plan, and did not want to start the search."""

    exit_code = 0


def run_job(
    opened: OpenedJob,
    store: StudyStore,
    options: RunOptions,
    listen: Listener = ignore,
    *,
    make_prober: Callable[[OpenedJob], Prober] = job_prober,
    may_start: Callable[[], bool] = lambda: True,
) -> RunResult:
    """Searches, verifies and confirms a recommendation, and writes the report.

    If the search was interrupted, a second call resumes it. After a request of `opened.interruption`, the
    result is the answer from what was measured so far.

    Args:
        opened: The job.
        store: The database of studies.
        options: Options of the run.
        listen: Function that is called with progress events and warnings.
        make_prober: Function that creates the prober, which is closed at the end.
        may_start: Function that is called after the plan was shown, unless a recording is replayed. If it
            returns False, nothing is started or stored.

    Raises:
        NotStartedError: `may_start` returned False.
        JobError: The Workload cannot be built, `confirm` is set and the job has no baseline, or `explore` is
            set and the job has no budget.
        InfeasibleError: No configuration can run, or no configuration is expected to reach the target.
        ProbeError: Too many probes failed.
        StorageError: The study or the output folder cannot be read or written.
        KeyboardInterrupt: The user interrupted the search before a score was read.
    """
    if options.confirm > 0:
        require_confirmable(opened)
    if options.explore:
        _require_explorable(opened, options.sampler)
    options = replace(options, output=prepare_output(options.output))
    opened = replace(opened, past_studies=options.past_studies)
    prober = make_prober(opened)
    try:
        ending, result = _run(opened, store, options, listen, prober, may_start)
    finally:
        prober.close()
    if options.confirm == 0 or opened.interruption.is_requested:
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
        return _given(opened, store.ledger, result.study, ending, recommendation, options.output)


def _run(
    opened: OpenedJob,
    store: StudyStore,
    options: RunOptions,
    listen: Listener,
    prober: Prober,
    may_start: Callable[[], bool],
) -> tuple[Ending, RunResult]:
    """Opens the study, runs the search, verifies the recommendation if asked to, and writes the report."""
    if opened.job.recording() is None:
        listen(SearchEvent(kind="plan", text="checking the workload and its data"))
    epoch_samples = checked_epoch_samples(opened)
    _show_plan(opened, store, options, epoch_samples, listen)
    if opened.job.recording() is None and not may_start():
        raise NotStartedError("nothing was started")
    study = open_study(store.ledger, opened, options.output, fresh=options.fresh, listen=listen)
    if (words := imports_left_behind(store.ledger, opened)) is not None:
        listen(SearchEvent(kind="warning", text=words))
    for folder in sorted(options.output.glob("probes/*/*")):
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
            owner=own_name(opened.attempt),
            parallel=options.parallel,
            restart_lost=options.restart_lost,
            listen=listen,
            watch=opened.watch if opened.attempt is None else opened.attempt.watch,
            interruption=opened.interruption,
            saves=opened.saves,
        )
        search = Search(context, prober, _policy(opened, options, context))
        result = search.run()
        ending = make_ending(opened, store.ledger, study, result)
        recommendation = None if ending is None else recommend(ending)
        is_interrupted = opened.interruption.is_requested
        if is_interrupted and (recommendation is None or not result.state.has_scores):
            write_no_answer(result, study, opened.path, options.output)
            raise KeyboardInterrupt
        is_verified = recommendation is not None and recommendation.verified is not None
        if options.verify and recommendation is not None and not (is_verified or is_interrupted):
            result = replace(result, state=_verify(context, prober, recommendation), beliefs=None)
            ending = make_ending(opened, store.ledger, study, result)
            recommendation = None if ending is None else recommend(ending)
        if ending is None or recommendation is None or _is_broken(result):
            raise write_no_answer(result, study, opened.path, options.output)
        confirmation = stored_confirmation(store.ledger, opened, recommendation)
        replaced = option_overrides(
            opened,
            sampler=options.sampler,
            parallel=options.parallel,
            past_studies=options.past_studies,
        )
        overrides = (*replaced, *search_overrides(ending.state, ending.beliefs))
        recommendation = replace(recommendation, confirmation=confirmation, overrides=overrides)
        return ending, _given(opened, store.ledger, study, ending, recommendation, options.output)


def _is_broken(result: SearchResult) -> bool:
    """Whether the search ended because of failures and has no results that can be used."""
    is_useless = not result.state.has_scores or result.stop.reason == JOB_FAULT
    return result.stop.kind is StopKind.FAULTS and is_useless


def _show_plan(
    opened: OpenedJob, store: StudyStore, options: RunOptions, epoch_samples: int, listen: Listener
) -> None:
    """Sends the plan of the search and its price to the listener, before anything is stored or started."""
    study = None if options.fresh else resumed_study(store.ledger, opened)
    probes = [] if study is None else store.ledger.probes(study.study_id)
    state = read_state(opened.job, opened.cluster, probes, epoch_samples)
    for line in plan_lines(
        opened,
        storage=store.url,
        output=str(options.output),
        spent_seconds=state.elapsed_seconds,
        spent_dollars=state.dollars(),
        parallel=options.parallel,
    ):
        listen(SearchEvent(kind="plan", text=line))
    crowd = crowding_words(opened, options.parallel)
    if crowd is not None:
        listen(SearchEvent(kind="warning", text=crowd))


def _verify(context: SearchContext, prober: Prober, recommendation: Recommendation) -> SearchState:
    """Trains the recommendation to the target, without a budget. Returns the new state of the study."""
    expected = recommendation.choice.seconds.median
    context.listen(SearchEvent(kind="plan", text=_verify_words(expected)))
    train = TrainPolicy(
        recommendation.choice.configuration,
        expected_seconds=expected if math.isfinite(expected) else None,
    )
    unbound = context.job.model_copy(update={"budget": BudgetSection()})
    result = Search(replace(context, parallel=1, job=unbound), prober, train).run()
    if result.stop.kind is not StopKind.ARRIVED:
        context.listen(SearchEvent(kind="warning", text=f"not verified: {result.stop.reason}"))
    return replace(result.state, job=context.job)


def _given(
    opened: OpenedJob,
    ledger: Ledger,
    study: StudyRecord,
    ending: Ending,
    recommendation: Recommendation,
    folder: Path,
) -> RunResult:
    """Stores the recommendation and the errors of the forecasts, and writes the report.

    A run that was killed after it had stored its recommendation stores no second one.
    """
    remember_calibration(opened, ledger, study, ending)
    content = recommendation.to_dict()
    given = ledger.recommendations(study.study_id)
    if not given or {**given[-1].recommendation, "created_at": content["created_at"]} != content:
        ledger.add_recommendation(
            RecommendationRecord(
                study_id=study.study_id, created_at=recommendation.created_at, recommendation=content
            )
        )
    files = write_ending(ending, recommendation, folder)
    return RunResult(recommendation=recommendation, stop=ending.stop, files=files, study=study)


def _verify_words(expected_seconds: float) -> str:
    """Returns a sentence on the training of `--verify` and its time limit."""
    limit = "without a limit"
    if math.isfinite(expected_seconds):
        limit = (
            f"for at most {format_seconds(VERIFY_FACTOR * expected_seconds)} of training, {VERIFY_FACTOR:g} "
            "times the predicted time"
        )
    return f"--verify: training the recommendation to the target, {limit}; [budget] does not apply"


def _policy(opened: OpenedJob, options: RunOptions, context: SearchContext) -> Policy:
    if options.sampler != "model":
        return OptunaPolicy()
    policy: Policy = ModelPolicy(believer_of(opened, context.ledger, context.study, context.epoch_samples))
    return ExploringPolicy(policy) if options.explore else policy


def _require_explorable(opened: OpenedJob, sampler: SamplerName) -> None:
    """Checks that a search can explore.

    Raises:
        JobError: The search has no limit, or its sampler makes no predictions.
    """
    if sampler != "model":
        raise JobError(
            f"--explore needs predictions, but --sampler {sampler} makes none. Use --sampler model"
        )
    budget = opened.job.budget
    if (budget.time, budget.dollars, budget.node_hours, budget.probes) == (None, None, None, None):
        raise JobError(
            f"{opened.path}: --explore uses the whole budget, but the section [budget] has no limit. Set "
            "budget.time, budget.dollars, budget.node_hours or budget.probes"
        )
