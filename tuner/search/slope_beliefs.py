"""Slope models of any axes, fitted to a search's state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from search_spaces import Configuration
from tuner.analytic.curve_template import passage_of
from tuner.analytic.features import SAMPLES, SECONDS, Features, Quantity, Slope, features_of, prior_of
from tuner.analytic.laws import Array
from tuner.analytic.plateau import FEWEST_SCORES, RECORDED, chance_of_never
from tuner.analytic.predictor import Chances
from tuner.analytic.slope_fit import SlopeFit
from tuner.analytic.slopes import Observations, fit_slopes
from tuner.analytic.started_runs import StartedRun, observed_by
from tuner.domain.cluster import Cluster
from tuner.search.runs import Run
from tuner.search.slope_priors import SlopeBeliefs, Slopes
from tuner.search.start_value import progress_of
from tuner.search.state import SearchState

#: Probability of the slopes beside the law before a run: one to two.
_SLOPES_BEFOREHAND = 1 / 3
#: What a first short probe leaves uncertain of log samples to target, about.
BELIEVED_SAMPLES_SD = 0.5


class SlopeModels:
    """Fits both quantities by slopes; what does not change between decisions is cached.

    Args:
        kinds: What runs are known by (`run_key`), in the order in which everything is given.
        cluster: What they run on.
        prior: The prior slopes.
    """

    def __init__(self, kinds: Sequence[Configuration], cluster: Cluster, prior: SlopeBeliefs) -> None:
        self.kinds = tuple(kinds)
        self.features = features_of(
            self.kinds,
            cores={name: machine.cores for name, machine in cluster.machines.items()},
            devices_per_node=cluster.devices_per_node,
        )
        self.rows = {kind: i for i, kind in enumerate(self.kinds)}
        self._samples = _Believed(self.features, prior, SAMPLES, prior.samples)
        self._seconds = _Believed(self.features, prior, SECONDS, prior.seconds)

    def samples(self, state: SearchState) -> SlopeFit:
        """Samples to target, given all runs with a score."""
        return self._samples.fit(self._observed(state), self.rows)

    def seconds(self, state: SearchState) -> SlopeFit:
        """Seconds a sample, given all runs whose steps were timed."""
        timed = {
            self.rows[key]: math.log(run.measurement.batch_seconds / run.configuration.batch_size)
            for key, run in sorted(state.runs.items())
            if run.measurement.batch_seconds
        }
        seen = SECONDS.observed(np.array(list(timed), dtype=np.intp), np.array(list(timed.values()), float))
        return self._seconds.fit(seen, self.rows)

    def weight_against(self, fitted: SlopeFit, others: Mapping[Configuration, float]) -> float:
        """Probability of the slopes beside another forecaster, by how well each predicted the runs.

        Each run is predicted from the others (`SlopeModel.left_out_log_densities`); one alone says nothing.

        Args:
            fitted: The posterior of `fit`, without any that is believed.
            others: The other forecaster's log density of each run, by `run_key`.
        """
        seen = fitted.model.seen
        own = dict(
            zip((self.kinds[row] for row in seen.rows), fitted.model.left_out_log_densities(), strict=True)
        )
        both = [kind for kind in own if kind in others]
        ahead = sum(own[kind] - others[kind] for kind in both) if len(both) > 1 else 0.0
        odds = _SLOPES_BEFOREHAND / (1.0 - _SLOPES_BEFOREHAND) * math.exp(min(max(ahead, -50.0), 50.0))
        return odds / (1.0 + odds)

    def chances(self, state: SearchState) -> Chances:
        """Chances never to arrive, where a list ends each run.

        A run with too few scores for a chance of its own, and one without any, are as likely to arrive as the
        others, and as `plateau.RECORDED` says, which counts as one run.
        """
        found: dict[Configuration, float] = {}
        for key, run in state.runs.items():
            if not run.measurement.finite_curve:
                continue
            if run.arrived or run.has_ended:
                found[key] = float(run.has_ended)
            elif len(run.measurement.finite_curve) >= FEWEST_SCORES:
                found[key] = chance_of_never(*_progress(state, run), RECORDED)
        return Chances(of_runs=found, of_others=(RECORDED.unknown + sum(found.values())) / (1 + len(found)))

    def _observed(self, state: SearchState) -> Observations:
        """Observations from the started runs' curves."""
        curves = {self.rows[key]: run for key, run in state.runs.items() if run.measurement.finite_curve}
        started = [
            StartedRun(
                row=row,
                passage=passage_of(*_progress(state, run)),
                samples_to_target=run.samples_to_target,
                ended=run.has_ended,
            )
            for row, run in sorted(curves.items())
        ]
        return observed_by(started)


def _progress(state: SearchState, run: Run) -> tuple[Array, Array]:
    """Samples and progress at each score of a run, `(num_points,)` each."""
    points, sign = run.measurement.finite_curve, 1.0 if state.job.goal.maximize else -1.0
    values = np.array([sign * point.value for point in points])
    samples = np.array([float(point.samples) for point in points])
    start = sign * (state.start_value or 0.0)
    return samples, progress_of(values, start, sign * state.job.goal.target)


class _Believed:
    """One quantity's columns and priors.

    Args:
        features: Of the candidates.
        prior: The prior slopes.
        quantity: What is fitted.
        believed: What the prior says of its slopes.
    """

    def __init__(self, features: Features, prior: SlopeBeliefs, quantity: Quantity, believed: Slopes) -> None:
        self._design = features.design(quantity.slopes)
        self._names = tuple(features.names_of(quantity.slopes))
        self._prior = prior
        self._quantity = quantity
        self._believed: dict[str, Slope] = {**quantity.slopes, **believed}

    def fit(self, seen: Observations, rows: Mapping[Configuration, int]) -> SlopeFit:
        """The quantity's posterior.

        Args:
            seen: What was observed; may be empty.
            rows: The candidates' rows.
        """
        level = float(seen.values.mean()) if len(seen.values) else 0.0
        quantity = self._quantity
        names, prior = self._names, self._prior
        # The neutral prior, and the one combined with it.
        priors = [prior_of("neutral", names, self._believed, level=level)]
        if prior.name != "neutral":
            priors.append(prior_of(prior.name, names, self._believed, level=level, sign=prior.sign))
        model = fit_slopes(
            self._design,
            priors,
            seen,
            residual_sds=quantity.residual_sds,
            own_sd=quantity.own_sd,
        )
        return SlopeFit(quantity=quantity.name, names=self._names, model=model, rows=rows)
