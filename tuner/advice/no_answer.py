"""Explains why a search ended without a recommendation, and what the user can change."""

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

#: Maximum number of warnings in the error message. The report shows all warnings.
_MOST_REMARKS = 5
#: If the scores of some runs got worse or levelled off, the target counts as out of reach if the probability
#: that the other runs miss it is larger than this.
_SURELY_TURNED_BACK = 0.9


@dataclass(frozen=True, kw_only=True)
class NoAnswer:
    """The explanation of a search that ended without a recommendation.

    Args:
        reason: The reason why there is no recommendation, as one clause.
        changes: Changes of the job or script that may help, such as `widen [space]`.
        warnings: Warnings about the user's script, one sentence each.
        probes_failed: Whether failed probes (short trainings) are the reason.
    """

    reason: str
    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    probes_failed: bool

    def error(self, report: Path | None = None) -> ProbeError | InfeasibleError:
        """Returns the error that ends the command. Its message has the reason, the changes and the warnings.

        Args:
            report: Path of the report, which is added to the message; None if there is no report.
        """
        words = self.reason + ("; " + ", or ".join(self.changes) if self.changes else "")
        if report is not None:
            words += f"; see the report: {report}"
        lines = [words, *(f"  warning: {warning}" for warning in self.warnings[:_MOST_REMARKS])]
        if len(self.warnings) > _MOST_REMARKS:
            lines.append(f"  the report shows {len(self.warnings) - _MOST_REMARKS} more warnings")
        kind = ProbeError if self.probes_failed else InfeasibleError
        return kind("\n".join(lines))


def has_score(state: SearchState) -> bool:
    """Whether any model was evaluated after at least one training step, with a finite result."""
    return any(
        point.samples > 0 and math.isfinite(point.value)
        for measurement in state.slices
        for point in measurement.curve
    )


def shows_no_gain(state: SearchState) -> bool:
    """Whether no run has improved clearly since its first evaluation, although each was evaluated often.

    Each run must have at least `FEWEST_SCORES` scores.
    """
    scored = [run for run in state.runs.values() if run.measurement.trained_curve]
    return bool(scored) and not any(
        run.arrived or run.rise_samples is not None or len(run.measurement.trained_curve) < FEWEST_SCORES
        for run in scored
    )


def has_turned_back(state: SearchState) -> bool:
    """Whether the target is out of reach because runs stopped improving before they reached it.

    A run has stopped improving if its scores have become worse or have levelled off (`Run.turned_back`). The
    target is out of reach in two cases:

    - All runs with a score have stopped improving.
    - Some runs have stopped improving. The other runs very probably miss the target too, and none of them has
      come clearly closer to the target than those that have stopped improving.

    Args:
        state: State of the search.
    """
    turned, others = _turned_and_others(state)
    if not turned or not others:
        return bool(turned)
    sign = state.job.goal.sign
    best = np.array([sign * run.turned_back.best for run in turned if run.turned_back])
    levels = progress_of(best, sign * (state.start_value or 0.0), sign * state.job.goal.target)
    return others_never(levels.tolist()) > _SURELY_TURNED_BACK and _came_furthest(state)


def _whole_runs(state: SearchState) -> list[Run]:
    """Returns the runs with a score that neither diverged nor failed.

    Runs that have lost most of their progress to the target are left out, unless there are only such runs.
    """
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
    """Returns two lists of runs with a score: those that have stopped improving, and the others."""
    scored = _whole_runs(state)
    turned = [run for run in scored if run.turned_back is not None]
    return turned, [run for run in scored if run.turned_back is None]


def _came_furthest(state: SearchState) -> bool:
    """Whether the runs that stopped improving came about as close to the target as the other runs.

    They may also have come closer.
    """
    turned, others = _turned_and_others(state)
    sign = state.job.goal.sign

    def best(runs: list[Run]) -> float:
        values = [sign * point.value for run in runs for point in run.measurement.trained_curve]
        return max(values, default=-math.inf)

    furthest = best(turned)
    lacked = max(sign * state.job.goal.target - furthest, 0.0)
    return bool(turned) and best(others) <= furthest + FURTHER_SHARE * lacked


def no_answer(state: SearchState, stop: Stop, job_path: Path) -> NoAnswer:
    """Explains why a search gives no recommendation, and what the user can change.

    Args:
        state: State at the end of the search.
        stop: The last action of the search, with the cause of its end.
        job_path: Path of the job file, for the commands in the explanation.
    """
    if stop.kind is StopKind.INTERRUPTED:
        reason = f"there is no recommendation yet: {stop.reason}"
        return NoAnswer(reason=reason, changes=(), warnings=script_warnings(state), probes_failed=False)
    probes_failed = stop.kind is StopKind.FAULTS
    if probes_failed:
        reason = f"{stop.reason}, so there is no recommendation. {last_fault(state)} "
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
    """Returns a sentence that quotes the last line of the error message of the last failed training."""
    errors = [p.measurement.error for p in state.probes if p.outcome.is_fault and p.measurement is not None]
    lines = (errors[-1] or "").strip().splitlines() if errors else []
    return f"Last error: {lines[-1]}." if lines else "The last failed probe printed no error."


def _where_to_read(state: SearchState, job_path: Path) -> str:
    numbers = [p.trial_number for p in state.probes if p.outcome.is_fault and p.trial_number is not None]
    explained = f"`paceline explain {job_path} {numbers[-1]}` shows its full output; " if numbers else ""
    return f"{explained}once the cause is fixed, the same command resumes the search"


def _without_score(state: SearchState, stop: Stop, job_path: Path) -> tuple[str, tuple[str, ...]]:
    """Explains why a search ended in which no model was evaluated after training."""
    if not state.slices:
        return f"nothing was measured: {stop.reason}", ("raise the limits in [budget]", "widen [space]")
    diverged = sum(probe.outcome is Outcome.DIVERGED for probe in state.probes)
    if diverged and not state.num_faults:
        reason = (
            f"the target is out of reach: {diverged} of {len(state.probes)} probes diverged before a score"
        )
        return reason, ("allow lower learning rates in [space]",)
    reason = f"no score was read, so there is no recommendation: {stop.reason}"
    if state.num_faults:
        reason += f". {last_fault(state)} {_where_to_read(state, job_path)}"
    if not state.job.runs_command:
        return reason, (
            "raise the limits in [budget]",
            "evaluate earlier (decrease probe.first_score_samples)",
        )
    matched = "run `paceline check` to see which lines of the script match workload.metrics"
    return reason, (matched, "raise the limits in [budget] if the first score comes later")


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
            f"no configuration is expected to reach the target {limits.target:g}, so there is no "
            f"recommendation: {stop.reason}; the best value was {best}"
        )
        return reason, (*remedy, "raise the limits in [budget]", _easier_target(state), "widen [space]")
    reason = f"the target is out of reach: {stop.reason}; the best value was {best}"
    return reason, (*remedy, _easier_target(state), "widen [space]")


def _best_value(state: SearchState) -> float:
    """Returns the best metric value of all runs; values of untrained models do not count."""
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
        what, since = "levelled off", f"{has} hardly improved since"
    elif any(end.levelled_off for end in ends):
        what, since = "peaked or levelled off", f"{has} not improved since"
    else:
        what, since = "peaked", f"{has} been getting worse since"
    others = (
        f", and none of the {len(runs) - len(best)} other runs was clearly better"
        if len(runs) > len(best)
        else ""
    )
    return (
        f"{counted} {what} at {where} and {since}{others}: the target "
        f"{state.job.goal.target:g} seems out of reach"
    )


def _ended_words(state: SearchState, runs: list[Run]) -> tuple[str, tuple[str, ...]]:
    """Explains that scripts or learning-rate schedules ended before the target was reached."""
    longest = max(runs, key=lambda run: run.measurement.samples)
    best = format_value(_best_value(state))
    samples = format_count(longest.measurement.samples)
    if state.terms.ends_itself:
        what, change = "the script ended", "let the script train for more epochs"
    else:
        what, change = "the schedule ended", "raise workload.schedule.horizon_samples"
    return f"{what} after {samples} samples, before the target; the best value was {best}", (
        change,
        _easier_target(state),
    )
