"""Write the report files at the end of a search; and the use case `report`, which writes them again."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np

from search_spaces import Configuration
from tuner.advice.recommend import Ending, checked_predictions, landscape, recommend
from tuner.domain.errors import InfeasibleError, ProbeError
from tuner.domain.measurement import Outcome
from tuner.domain.recommendation import Recommendation
from tuner.ledger import Ledger, StudyRecord
from tuner.report import ReportContent, write_report
from tuner.search.beliefs import Beliefs, believe, candidates
from tuner.search.law_priors import PastLaws, laws_of_fits
from tuner.search.listed_policy import ListedPolicy, is_listed
from tuner.search.policy import Stop, StopKind
from tuner.search.state import SearchState, read_state, run_of
from tuner.service.opening import OpenedJob, StudyStore, checked_epoch_samples, prepare_output
from tuner.service.views import require_study


def make_ending(
    opened: OpenedJob,
    ledger: Ledger,
    study: StudyRecord,
    state: SearchState,
    beliefs: Beliefs | None,
    stop: Stop,
) -> Ending:
    """Where a search ended; the models are fitted here if the policy returned no beliefs.

    Raises:
        ProbeError: Nothing was measured, since probes failed.
        InfeasibleError: Nothing was measured for another reason.
    """
    if beliefs is None and state.runs:
        others = [fit for fit in ledger.past_fits(study.fingerprint) if fit.study_id != study.study_id]
        beliefs = _fitted(state, opened.job.seed, laws_of_fits(others, study.fingerprint))
    if beliefs is None:
        raise nothing_measured(stop, state, opened.path)
    return Ending(
        state=state,
        beliefs=beliefs,
        stop=stop,
        predictions=ledger.predictions(study.study_id),
        study_name=study.name,
        job_path=opened.path,
        made_at=time.time(),
    )


def _fitted(state: SearchState, seed: int, past: PastLaws) -> Beliefs | None:
    """What is believed of a state with runs; None where every configuration failed."""
    if is_listed(state):
        return ListedPolicy(seed=seed).believe(state)
    rng = np.random.default_rng(seed)
    found = candidates(state, rng)
    return believe(state, found, rng, past) if found else None


def write_ending(ending: Ending, recommendation: Recommendation, folder: Path) -> dict[str, Path]:
    """Writes the report's files; returns file name to path."""
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


def report_job(opened: OpenedJob, store: StudyStore, output: Path) -> dict[str, Path]:
    """Writes the report of a job's study from what it knows now, probing nothing.

    Raises:
        JobError: There is no study of this job.
        InfeasibleError: Nothing can be recommended from what is known.
    """
    study = require_study(store.ledger, opened)
    folder = prepare_output(output)
    epoch_samples = checked_epoch_samples(opened)
    probes = store.ledger.probes(study.study_id)
    state = read_state(opened.job, opened.cluster, probes, epoch_samples)
    given = store.ledger.recommendations(study.study_id)
    arrived = any(run.arrived for run in state.runs.values()) and state.further_trainings == 0
    words = given[-1].recommendation["stopped_because"] if given else "the search has not ended yet"
    stop = Stop(kind=StopKind.ARRIVED if arrived else StopKind.BUDGET, reason=words)
    ending = make_ending(opened, store.ledger, study, state, None, stop)
    recommendation = recommend(ending)
    if recommendation is None:
        raise no_answer(ending)
    return write_ending(ending, recommendation, folder)


def nothing_measured(stop: Stop, state: SearchState, job_path: Path) -> ProbeError | InfeasibleError:
    """The error for a search that ended before any run was scored."""
    if stop.kind is StopKind.FAULTS:
        return ProbeError(
            f"{stop.reason}, so nothing is recommended. {_last_fault(state)} "
            f"{_where_to_read(state, job_path)}"
        )
    return InfeasibleError(f"nothing was measured: {stop.reason}; allow more in [budget], or widen [space]")


def no_answer(ending: Ending) -> ProbeError | InfeasibleError:
    """The error for a search after which nothing can be recommended."""
    if ending.stop.kind is StopKind.FAULTS:
        return nothing_measured(ending.stop, ending.state, ending.job_path)
    short = _ended_short(ending.state)
    if short is not None:
        return InfeasibleError(f"{short}: ask it for more epochs (or steps)")
    limits = ending.state.job.goal
    bounded = limits.deadline is not None or limits.max_dollars is not None
    remedy = "allow a later deadline or more dollars, " if bounded else ""
    return InfeasibleError(
        f"the target is out of reach: {ending.stop.reason}; {remedy}lower goal.target, widen [space], "
        "or allow more in [budget]"
    )


def _ended_short(state: SearchState) -> str | None:
    """That the script ends by itself before the target; None where that is not why nothing reached it."""
    broken = (Outcome.DIVERGED, Outcome.FAILED, Outcome.TIMED_OUT)
    runs = [run for run in state.runs.values() if run.probe.outcome not in broken]
    ended = [run for run in runs if run.ended_by_itself]
    if not state.job.runs_command or not ended:
        return None
    is_known = all(math.isfinite(end) for end in state.script_ends([ended[0].configuration]))
    if len(ended) < len(runs) and not is_known:
        return None
    samples = sorted({run.measurement.samples for run in ended})
    shown = f"{samples[0]}" if len(samples) == 1 else f"{samples[0]} to {samples[-1]}"
    return f"the script ended by itself after {shown} samples, before the target"


def not_arrived(configuration: Configuration, state: SearchState) -> ProbeError | InfeasibleError:
    """The error for a training that ended without reaching the target."""
    run = run_of(state, configuration)
    if state.probes and state.probes[-1].outcome.is_fault:
        return ProbeError(f"the training of {configuration} failed. {_last_fault(state)}")
    if run is None:
        return InfeasibleError(f"{configuration} cannot be trained: a rank ran out of memory")
    seen = f"after {run.measurement.samples} samples, {run.measurement.training_seconds:.1f} s of training"
    if run.ended_by_itself and state.job.runs_command:
        return InfeasibleError(
            f"{configuration} did not reach the target: the script ended by itself {seen}: ask it for more "
            "epochs (or steps)"
        )
    return InfeasibleError(
        f"{configuration} did not reach the target: it ended as {run.probe.outcome.value} {seen}"
    )


def _last_fault(state: SearchState) -> str:
    """What the last probe that failed said."""
    errors = [p.measurement.error for p in state.probes if p.outcome.is_fault and p.measurement is not None]
    lines = (errors[-1] or "").strip().splitlines() if errors else []
    return f"The last one said: {lines[-1] if lines else 'nothing'}."


def _where_to_read(state: SearchState, job_path: Path) -> str:
    numbers = [p.trial_number for p in state.probes if p.outcome.is_fault and p.trial_number is not None]
    explained = f"`paceline explain {job_path} {numbers[-1]}` shows all it said; " if numbers else ""
    return f"{explained}once the cause is fixed, the same command resumes"
