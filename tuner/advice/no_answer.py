"""Why a search ended without a recommendation, and what to change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuner.advice.script_warnings import remarks_of, script_warnings
from tuner.analytic.learning_curve import FURTHER_SHARE, others_never
from tuner.analytic.plateau import FEWEST_SCORES
from tuner.domain.errors import InfeasibleError, ProbeError
from tuner.domain.format import format_count, format_value
from tuner.domain.measurement import Outcome
from tuner.search.policy import Stop, StopKind
from tuner.search.runs import Run
from tuner.search.start_value import progress_of
from tuner.search.state import SearchState

#: So many remarks are part of the message; the report has all of them.
_MOST_REMARKS = 5
#: The runs that turned back say it for those that have not come as far yet with this probability.
_SURELY_TURNED_BACK = 0.9


@dataclass(frozen=True, kw_only=True)
class NoAnswer:
    """A search that ended without a recommendation.

    Args:
        reason: Why nothing is recommended, one clause.
        changes: What to change, a clause each.
        warnings: Sentences on what was noticed about the script.
        probes_failed: Whether probes failed, so that this, and not the training, is the reason.
    """

    reason: str
    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    probes_failed: bool

    def error(self, report: Path | None = None) -> ProbeError | InfeasibleError:
        """The error that ends the command: reason, what to change, what was noticed.

        Args:
            report: Where the report of what was tried lies.
        """
        words = self.reason + ("; " + ", or ".join(self.changes) if self.changes else "")
        if report is not None:
            words += f"; what was tried and read: {report}"
        lines = [words, *(f"  noticed: {warning}" for warning in self.warnings[:_MOST_REMARKS])]
        if len(self.warnings) > _MOST_REMARKS:
            lines.append(f"  {len(self.warnings) - _MOST_REMARKS} more are in the report")
        kind = ProbeError if self.probes_failed else InfeasibleError
        return kind("\n".join(lines))


def has_score(state: SearchState) -> bool:
    """Whether any score of a trained model was read in this study."""
    return any(
        point.samples > 0 and math.isfinite(point.value)
        for measurement in state.slices
        for point in measurement.curve
    )


def shows_no_gain(state: SearchState) -> bool:
    """Whether every run with a score had several, and none has left its start."""
    scored = [run for run in state.runs.values() if run.measurement.trained_curve]
    return bool(scored) and not any(
        run.arrived or run.rise_samples is not None or len(run.measurement.trained_curve) < FEWEST_SCORES
        for run in scored
    )


def has_turned_back(state: SearchState) -> bool:
    """Whether the runs say that the target is out of reach, since they have been getting worse.

    All with a score do, or three or more that ended at about one level, and no other run has come further;
    none has arrived.
    """
    turned, others = _turned_and_others(state)
    if not turned or not others:
        return bool(turned)
    sign = state.job.goal.sign
    best = np.array([sign * run.turned_back.best for run in turned if run.turned_back])
    levels = progress_of(best, sign * (state.start_value or 0.0), sign * state.job.goal.target)
    return others_never(levels.tolist()) > _SURELY_TURNED_BACK and _came_furthest(state)


def _whole_runs(state: SearchState) -> list[Run]:
    """Runs with a score that neither diverged nor failed; collapsed ones only where there are no others."""
    broken = (Outcome.DIVERGED, Outcome.FAILED, Outcome.TIMED_OUT)
    evidence, known = state.evidence()
    whole = {
        key: run
        for key, run in state.runs.items()
        if run.measurement.trained_curve and run.probe.outcome not in broken
    }
    speaking = [
        run
        for key, run in whole.items()
        if not (run.turned_back and evidence[known[key].index].has_collapsed)
    ]
    return speaking or list(whole.values())


def _turned_and_others(state: SearchState) -> tuple[list[Run], list[Run]]:
    """Runs with a score that turned back, and all others with one."""
    scored = _whole_runs(state)
    turned = [run for run in scored if run.turned_back is not None]
    return turned, [run for run in scored if run.turned_back is None]


def _came_furthest(state: SearchState) -> bool:
    """Whether no other run has come clearly further than those that turned back."""
    turned, others = _turned_and_others(state)
    sign = state.job.goal.sign

    def best(runs: list[Run]) -> float:
        values = [sign * point.value for run in runs for point in run.measurement.trained_curve]
        return max(values, default=-math.inf)

    furthest = best(turned)
    lacked = max(sign * state.job.goal.target - furthest, 0.0)
    return bool(turned) and best(others) <= furthest + FURTHER_SHARE * lacked


def no_answer(state: SearchState, stop: Stop, job_path: Path) -> NoAnswer:
    """Why nothing is recommended of a state in which a search ended."""
    probes_failed = stop.kind is StopKind.FAULTS
    if probes_failed:
        reason = f"{stop.reason}, so nothing is recommended. {last_fault(state)} "
        reason += _where_to_read(state, job_path)
        return NoAnswer(reason=reason, changes=(), warnings=remarks_of(state), probes_failed=True)
    if not has_score(state):
        reason, changes = _without_score(state, stop, job_path)
        probes_failed = state.num_faults > 0
    else:
        reason, changes = _unreachable(state, stop)
    return NoAnswer(
        reason=reason, changes=changes, warnings=script_warnings(state), probes_failed=probes_failed
    )


def last_fault(state: SearchState) -> str:
    """What the last probe that failed said."""
    errors = [p.measurement.error for p in state.probes if p.outcome.is_fault and p.measurement is not None]
    lines = (errors[-1] or "").strip().splitlines() if errors else []
    return f"The last one said: {lines[-1] if lines else 'nothing'}."


def _where_to_read(state: SearchState, job_path: Path) -> str:
    numbers = [p.trial_number for p in state.probes if p.outcome.is_fault and p.trial_number is not None]
    explained = f"`paceline explain {job_path} {numbers[-1]}` shows all it said; " if numbers else ""
    return f"{explained}once the cause is fixed, the same command resumes"


def _without_score(state: SearchState, stop: Stop, job_path: Path) -> tuple[str, tuple[str, ...]]:
    """Nothing can be said of a training of which nothing was scored."""
    if not state.slices:
        return f"nothing was measured: {stop.reason}", ("allow more in [budget]", "widen [space]")
    diverged = sum(probe.outcome is Outcome.DIVERGED for probe in state.probes)
    if diverged and not state.num_faults:
        reason = (
            f"the target is out of reach: {diverged} of {len(state.probes)} probes diverged before a score"
        )
        return reason, ("allow lower learning rates in [space]",)
    reason = f"no score was read, so nothing is recommended: {stop.reason}"
    if state.num_faults:
        reason += f". {last_fault(state)} {_where_to_read(state, job_path)}"
    if not state.job.runs_command:
        return reason, ("allow more in [budget]", "score sooner (probe.first_score_samples)")
    matched = "see with `paceline check` which lines of the script match workload.metrics"
    return reason, (matched, "allow more in [budget] if its first score comes later")


def _unreachable(state: SearchState, stop: Stop) -> tuple[str, tuple[str, ...]]:
    runs = _whole_runs(state)
    if has_turned_back(state):
        return _turned_back_words(state, runs), (
            "set goal.target to what the script can reach",
            "widen [space]",
        )
    ended = [run for run in runs if run.ended_by_itself]
    is_known = bool(ended) and math.isfinite(state.script_ends([ended[0].configuration])[0])
    if ended and (len(ended) == len(runs) or is_known) and state.job.recording() is None:
        return _ended_words(state, ended)
    limits = state.job.goal
    bounded = limits.deadline is not None or limits.max_dollars is not None
    remedy = ("allow a later deadline or more dollars",) if bounded else ()
    best = format_value(_best_value(state))
    if stop.kind is StopKind.BUDGET:
        reason = (
            f"no configuration will probably reach the target {limits.target:g}, as far as seen, so nothing "
            f"is recommended: {stop.reason}; the best value was {best}"
        )
        return reason, (*remedy, "allow more in [budget]", _easier_target(state), "widen [space]")
    reason = f"the target is out of reach: {stop.reason}; the best value was {best}"
    return reason, (*remedy, _easier_target(state), "widen [space]")


def _best_value(state: SearchState) -> float:
    """The best score of a trained model that was read."""
    values = [point.value for run in state.runs.values() for point in run.measurement.finite_curve]
    return (max if state.job.goal.maximize else min)(values, default=math.nan)


def _easier_target(state: SearchState) -> str:
    return "lower goal.target" if state.job.goal.maximize else "raise goal.target"


def _turned_back_words(state: SearchState, runs: list[Run]) -> str:
    sign = state.job.goal.sign
    best = sorted((run.turned_back.best for run in runs if run.turned_back), key=lambda value: sign * value)
    where = format_value(best[-1])
    if len(best) > 1 and format_value(best[0]) != where:
        where = f"{where} to {format_value(best[0])}"
    ends = [run.turned_back for run in runs if run.turned_back]
    counted = "1 run" if len(best) == 1 else f"{len(best)} runs"
    has = "has" if len(best) == 1 else "have"
    if all(end.levelled_off for end in ends):
        what, since = "levelled off", f"{has} gained next to nothing since"
    elif any(end.levelled_off for end in ends):
        what, since = "turned back or levelled off", f"{has} gained nothing since"
    else:
        what, since = "turned back", f"{has} been getting worse since"
    others = (
        f", and none of {len(runs) - len(best)} others came clearly further before it was stopped"
        if len(runs) > len(best)
        else ""
    )
    return (
        f"{counted} {what} at {where} and {since}{others}: the target "
        f"{state.job.goal.target:g} is out of reach as far as seen"
    )


def _ended_words(state: SearchState, runs: list[Run]) -> tuple[str, tuple[str, ...]]:
    """Every run came to its own end before the target."""
    longest = max(runs, key=lambda run: run.measurement.samples)
    best = format_value(_best_value(state))
    samples = format_count(longest.measurement.samples)
    if state.terms.ends_itself:
        what, change = "the script ended by itself", "let it train for more epochs"
    else:
        what, change = "the schedule ended", "raise workload.schedule.horizon_samples"
    return f"{what} after {samples} samples, before the target; the best value was {best}", (
        change,
        _easier_target(state),
    )
