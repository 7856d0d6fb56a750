"""Forecasts of the measured curves toward the target, as points that a chart can draw."""

from __future__ import annotations

import math

import numpy as np

from search_spaces import Configuration
from tuner.analytic.curve_template import LEVELS as STEPS
from tuner.analytic.curve_template import Passage, passage_of, template_of
from tuner.analytic.laws import Array
from tuner.domain.analysis import CurveForecast, ForecastPoint
from tuner.domain.estimate import Estimate
from tuner.domain.measurement import Outcome
from tuner.search.beliefs import Beliefs
from tuner.search.prediction_log import LEVELS
from tuner.search.runs import Run
from tuner.search.state import SearchState, run_of

#: Maximum number of curves, and number of points of a forecast.
MOST_CURVES, _NUM_POINTS = 30, 7
#: Share of the remaining e-folds of samples that a run below the first level of progress needs to get there.
_TO_FIRST_LEVEL = 0.15


def run_result(run: Run) -> str:
    """Returns `reached`, `missed` (ended before the target, or got worse) or `open`."""
    if run.arrived:
        return "reached"
    ended = run.has_ended or run.turned_back is not None or run.probe.outcome is Outcome.DIVERGED
    return "missed" if ended else "open"


def curve_forecasts(state: SearchState, beliefs: Beliefs, choice: Configuration) -> tuple[CurveForecast, ...]:
    """Returns the measured curves with their forecasts, at most `MOST_CURVES`.

    The curve of the recommended configuration comes first, then runs that reached the target, then those that
    processed the most samples. The number of samples to target is that of the forecasts of the search. The
    learning-curve template, which all runs have in common, gives the way from the best score to the target.

    Args:
        state: State of the search.
        beliefs: Forecasts of all candidates.
        choice: The recommended configuration.
    """
    evidence, states = state.evidence()
    passages = {
        key: passage_of(evidence[found.index].samples, evidence[found.index].progress)
        for key, found in states.items()
        if len(evidence[found.index].samples) and not evidence[found.index].diverged
    }
    if not passages:
        return ()
    template = template_of(list(passages.values()))
    folds = np.concatenate([[0.0], np.cumsum(template.weights @ template.folds)])
    own, goal = run_of(state, choice), state.job.goal
    places = {c: i for i, c in enumerate(beliefs.configurations)}
    ranked = sorted(
        passages,
        key=lambda key: (state.runs[key] is not own, not state.runs[key].arrived, -passages[key].log_seen),
    )
    found = []
    for key in ranked[:MOST_CURVES]:
        run, place = state.runs[key], places.get(state.runs[key].configuration)
        result = run_result(run)
        points: tuple[ForecastPoint, ...] = ()
        probability = float(result == "reached")
        if result == "open" and place is not None:
            chance = 1.0 - float(beliefs.forecast.never[:, place].mean())
            probability = min(max(chance, LEVELS[0]), LEVELS[-1])
            best = goal.sign * max(
                goal.sign * p.value for p in run.measurement.trained_curve if math.isfinite(p.value)
            )
            points = _points(state, passages[key], beliefs.forecast.samples[:, place], folds, best)
        found.append(
            CurveForecast(
                probe_id=run.probe.probe_id,
                trial_number=run.probe.trial_number,
                configuration=run.configuration,
                samples_observed=round(math.exp(passages[key].log_seen)),
                result=result,
                probability_of_reaching=probability,
                points=points,
            )
        )
    return tuple(found)


def _points(
    state: SearchState, passage: Passage, samples: Array, folds: Array, best: float
) -> tuple[ForecastPoint, ...]:
    """Returns the forecast of one curve, from its best score so far to the target.

    Args:
        state: State of the search.
        passage: Progress of the run.
        samples: Posterior samples of the number of samples to target, `(num_draws,)`.
        folds: E-folds of samples from the first level of progress to each level, `(num_levels,)`.
        best: Best score of the run, with which the forecast starts.
    """
    finite = np.sort(samples[np.isfinite(samples)])
    start, goal = state.start_value or 0.0, state.job.goal
    if not len(finite) or passage.progress >= 1.0:
        return ()
    ends = [math.log(float(finite[int(level * len(finite))])) for level in LEVELS]
    first = float(STEPS[0])
    levels = np.linspace(passage.progress, 1.0, _NUM_POINTS)
    total = float(folds[-1])
    done = np.interp(levels, STEPS, folds)
    low = _TO_FIRST_LEVEL * total * (levels - first) / max(first - passage.progress, 1e-9)
    done = np.where(levels < first, low, done)
    shares = (done - done[0]) / max(float(done[-1] - done[0]), 1e-9)
    found: list[ForecastPoint] = []
    for level, share in zip(levels.tolist(), shares.tolist(), strict=True):
        lower, median, upper = (
            math.exp(passage.log_seen + share * max(end - passage.log_seen, 0.0)) for end in ends
        )
        value = start + level * (goal.target - start) if found else best
        found.append(ForecastPoint(value=value, samples=Estimate(lower=lower, median=median, upper=upper)))
    return tuple(found)
