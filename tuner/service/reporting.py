"""Writes the report of a study, at the end of a search and for `paceline report`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search_spaces import Configuration
from tuner.advice.how_to_train import trained_model
from tuner.advice.no_answer import last_fault, no_answer
from tuner.advice.recommend import (
    Ending,
    checked_predictions,
    goal_words,
    landscape,
    recommend,
    tuning_cost,
)
from tuner.analytic.mixed_posterior import IMPORTED_RUNS
from tuner.analytic.samples_model import SamplesModel
from tuner.analytic.step_time_model import SecondsModel
from tuner.domain.errors import InfeasibleError, ProbeError
from tuner.domain.ledger import FitRecord, Ledger, StudyRecord
from tuner.domain.recommendation import Recommendation
from tuner.report import ReportContent, UnansweredContent, write_report, write_unanswered
from tuner.search.beliefs import Beliefs
from tuner.search.believer import Believer
from tuner.search.calibration import calibration_record, kind_of, learnt_calibration
from tuner.search.imported_runs import laws_of_imports, merged_pasts
from tuner.search.interrupts import INTERRUPTED_STOP
from tuner.search.law_priors import laws_of_fits
from tuner.search.loop import SearchResult
from tuner.search.policy import Stop, StopKind
from tuner.search.slope_priors import TEXTBOOK, learnt_from_fits
from tuner.search.state import SearchState, read_state, run_of
from tuner.service.confirming import stored_confirmation
from tuner.service.imports import imported_evidence, imported_runs
from tuner.service.opening import OpenedJob, StudyStore, checked_epoch_samples, prepare_output
from tuner.service.outcomes import compared_outcomes
from tuner.service.overrides import search_overrides
from tuner.service.views import require_study

#: Why a search ended, if the database has no recommendation of it.
_NOT_STORED = "the search ended without a recommendation, or has not ended yet"


def make_ending(
    opened: OpenedJob,
    ledger: Ledger,
    study: StudyRecord,
    result: SearchResult,
    also: Sequence[Configuration] = (),
) -> Ending | None:
    """Collects the data for a recommendation: state of the search, forecasts and imported runs.

    The models are fitted again in two cases: the result has no forecasts, or its forecasts include
    configurations that have failed later.

    Args:
        opened: The job.
        ledger: The database of studies and imported runs.
        study: The study of the job.
        result: The result of its search.
        also: Configurations to forecast in addition to the candidates of the search.

    Returns:
        The data; None if the study has no run from which a forecast can be made.
    """
    state, beliefs = result.state, result.beliefs
    if beliefs is not None and not state.given_up.isdisjoint(beliefs.configurations):
        beliefs = None
    believer = believer_of(opened, ledger, study, state.epoch_samples)
    if beliefs is None and state.runs:
        beliefs = believer.believe(state, also)
    if beliefs is None:
        return None
    return Ending(
        state=state,
        beliefs=beliefs,
        stop=result.stop,
        predictions=ledger.predictions(study.study_id),
        study_name=study.name,
        job_path=opened.path,
        created_at=time.time(),
        imported=imported_evidence(imported_runs(ledger, opened), _weights_of_imports(beliefs)),
        refit=believer.refit,
    )


def _weights_of_imports(beliefs: Beliefs) -> dict[str, float]:
    """Returns the weight of the prior from imported runs, by the name of the model that uses this prior."""
    models = {"samples to target": beliefs.predictor.samples, "seconds a step": beliefs.predictor.seconds}
    return {
        name: model.posterior.weights_by_name()[IMPORTED_RUNS]
        for name, model in models.items()
        if isinstance(model, SamplesModel | SecondsModel) and IMPORTED_RUNS in model.posterior.names
    }


def believer_of(opened: OpenedJob, ledger: Ledger, study: StudyRecord, epoch_samples: int) -> Believer:
    """Creates the object that fits the models of a study, with priors from other studies and imported runs.

    Args:
        opened: The job.
        ledger: The database of studies and imported runs.
        study: The study of the job.
        epoch_samples: Number of samples in the training set.
    """
    others = _other_fits(opened, ledger, study)
    found = laws_of_fits(others, study.fingerprint)
    imported = laws_of_imports(opened.job, opened.cluster, imported_runs(ledger, opened), epoch_samples)
    return Believer(
        seed=opened.job.seed,
        prior=learnt_from_fits(others) or TEXTBOOK,
        past=merged_pasts(found, imported),
        calibration=learnt_calibration(others, kind_of(opened.job)),
    )


def _other_fits(opened: OpenedJob, ledger: Ledger, study: StudyRecord) -> list[FitRecord]:
    """Returns the stored parameter fits of other studies, from which priors are made."""
    if not opened.past_studies:
        return []
    return [fit for fit in ledger.past_fits(study.fingerprint) if fit.study_id != study.study_id]


def remember_calibration(opened: OpenedJob, ledger: Ledger, study: StudyRecord, ending: Ending) -> None:
    """Stores the errors of a study's early forecasts if a run with such a forecast reached the target.

    A forecast of the time to target is early if at most a quarter of the run was known when it was made.
    Later studies use the errors to widen or narrow their intervals.
    """
    applied = learnt_calibration(_other_fits(opened, ledger, study), kind_of(ending.state.job))
    record = calibration_record(study, ending.state, checked_predictions(ending), ending.created_at, applied)
    if record is not None:
        ledger.add_fit(record)


def write_ending(ending: Ending, recommendation: Recommendation, folder: Path) -> dict[str, Path]:
    """Writes the files of the report. Returns a mapping from the name of each file to its path."""
    predictor = ending.beliefs.predictor
    content = ReportContent(
        job=ending.state.job,
        job_path=ending.job_path,
        recommendation=recommendation,
        probes=ending.state.probes,
        landscape=landscape(ending),
        checked=checked_predictions(ending),
        fit_summaries={
            "seconds a step": predictor.seconds.summary(),
            "samples to target": predictor.samples.summary(),
        },
    )
    return write_report(content, folder)


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """A report that was written.

    Args:
        files: Maps the name of each file of the report to its path.
        error: Why there is no recommendation; None if there is one.
    """

    files: dict[str, Path]
    error: ProbeError | InfeasibleError | None = None


def report_job(opened: OpenedJob, store: StudyStore, output: Path) -> dict[str, Path]:
    """Writes the report of a job's study again from the database, without starting a probe.

    Returns:
        A mapping from the name of each file of the report to its path.

    Raises:
        JobError: The job has no study.
        InfeasibleError: The measurements do not support a recommendation.
        ProbeError: Too many probes failed for a recommendation.
    """
    written = write_job_report(opened, store, output)
    if written.error is not None:
        raise written.error
    return written.files


def write_job_report(opened: OpenedJob, store: StudyStore, output: Path) -> WrittenReport:
    """Writes the report of a job's study again, with or without a recommendation.

    Raises:
        JobError: The job has no study.
    """
    study = require_study(store.ledger, opened)
    folder = prepare_output(output)
    epoch_samples = checked_epoch_samples(opened)
    result = stored_result(opened, store.ledger, study, epoch_samples)
    ending = make_ending(opened, store.ledger, study, result)
    recommendation = None if ending is None else recommend(ending)
    if ending is None or recommendation is None:
        return _unanswered_report(result, study, opened.path, folder)
    confirmation = stored_confirmation(store.ledger, opened, recommendation)
    outcomes = (f"A later training: {one.words}." for one in compared_outcomes(store, study))
    evidence = (*recommendation.evidence, *outcomes)
    # What the options of `paceline run` replaced is known from the recommendation that it stored.
    given = store.ledger.recommendations(study.study_id)
    stored = Recommendation.from_dict(given[-1].recommendation).overrides if given else ()
    overrides = stored or tuple(search_overrides(ending.state, ending.beliefs))
    recommendation = replace(
        recommendation, confirmation=confirmation, evidence=evidence, overrides=overrides
    )
    return WrittenReport(files=write_ending(ending, recommendation, folder))


def stored_result(opened: OpenedJob, ledger: Ledger, study: StudyRecord, epoch_samples: int) -> SearchResult:
    """Returns the result of a search from the database, without forecasts.

    Args:
        opened: The job.
        ledger: The database of studies.
        study: The study of the job.
        epoch_samples: Number of samples in the training set.
    """
    state = read_state(opened.job, opened.cluster, ledger.probes(study.study_id), epoch_samples)
    given = ledger.recommendations(study.study_id)
    arrived = any(run.arrived for run in state.runs.values()) and state.further_trainings == 0
    last: Mapping[str, Any] = (
        given[-1].recommendation if given else {"stop_reason": _NOT_STORED, "ended_by_budget": True}
    )
    words = last["stop_reason"]
    if last.get("stop_kind"):
        ended = StopKind(last["stop_kind"])
    else:
        # Stored by an older version.
        ended = StopKind.BUDGET if last.get("ended_by_budget") else StopKind.NO_GAIN
    stop = Stop(kind=StopKind.ARRIVED if arrived else ended, reason=words)
    if words == INTERRUPTED_STOP.reason and not arrived:
        stop = INTERRUPTED_STOP
    return SearchResult(state=state, beliefs=None, stop=stop)


def write_no_answer(
    result: SearchResult, study: StudyRecord, job_path: Path, folder: Path
) -> ProbeError | InfeasibleError:
    """Writes the report of a search that found no recommendation. Returns the error to raise."""
    error = _unanswered_report(result, study, job_path, folder).error
    assert error is not None
    return error


def _unanswered_report(
    result: SearchResult, study: StudyRecord, job_path: Path, folder: Path
) -> WrittenReport:
    """Writes the report of a search that found no recommendation."""
    state, stop = result.state, result.stop
    found = no_answer(state, stop, job_path)
    content = UnansweredContent(
        job=state.job,
        study_name=study.name,
        created_at=time.time(),
        goal=goal_words(state),
        reason=found.reason,
        changes=found.changes,
        warnings=found.warnings,
        stop_reason=stop.reason,
        probes=state.probes,
        tuning=tuning_cost(state),
    )
    files = write_unanswered(content, folder)
    return WrittenReport(files=files, error=found.error(files["report.html"]))


def training_rows(configuration: Configuration, state: SearchState) -> list[dict[str, Any]]:
    """Returns the result of a training as rows: seconds and samples to target, path of the trained model.

    Args:
        configuration: The configuration that was trained.
        state: State of the study of this training.

    Raises:
        InfeasibleError: The training ended before it reached the target.
        ProbeError: The training failed.
    """
    run = run_of(state, configuration)
    if run is None or run.seconds_to_target is None:
        raise not_arrived(configuration, state)
    return [
        {"name": "training seconds to target", "value": round(run.seconds_to_target, 3)},
        {"name": "samples to target", "value": run.samples_to_target},
        {"name": "trained model", "value": trained_model(run)},
    ]


def not_arrived(configuration: Configuration, state: SearchState) -> ProbeError | InfeasibleError:
    """Returns the error to raise for a training that ended before it reached the target."""
    run = run_of(state, configuration)
    if state.probes and state.probes[-1].outcome.is_fault:
        return ProbeError(f"the training of {configuration} failed. {last_fault(state)}")
    if run is None:
        return InfeasibleError(
            f"{configuration} cannot be trained because a rank ran out of memory; choose a smaller batch "
            "size or more nodes"
        )
    seen = f"after {run.measurement.samples} samples, {run.measurement.training_seconds:.1f} s of training"
    if run.ended_by_itself and state.job.runs_command:
        return InfeasibleError(
            f"{configuration} did not reach the target: the script ended by itself {seen}. Let it train for "
            "more epochs or steps"
        )
    return InfeasibleError(
        f"{configuration} did not reach the target: it ended as {run.probe.outcome.value} {seen}"
    )
