"""Slope models: linear regressions of log seconds per sample and of log samples to target.

They are fitted to the runs of a search. For example, the regression slope of the batch size is the change of
log samples to target per change of the logarithm of the batch size.
"""

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

#: Prior probability that the slope model is a better model of samples to target than the cost model.
_SLOPES_BEFOREHAND = 1 / 3
#: Approximate standard deviation of log samples to target of a candidate after a first short probe of it.
BELIEVED_SAMPLES_SD = 0.5


class SlopeModels:
    """Fits linear regressions that predict seconds per sample and samples to target (slope models).

    The design matrices and priors are computed once, because they are the same for all decisions of a search.

    Args:
        kinds: One configuration for each different learning curve (`run_key`) of the candidates and the
            started runs. Row i of the design matrices belongs to entry i.
        cluster: The cluster on which the job trains.
        prior: Prior of the regression coefficients.
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
        """Fits the regression of samples to target to all runs with a score, and returns its posterior."""
        return self._samples.fit(self._observed(state), self.rows)

    def seconds(self, state: SearchState) -> SlopeFit:
        """Fits the regression of seconds per sample to all runs with timed steps; returns its posterior."""
        timed = {
            self.rows[key]: math.log(run.measurement.batch_seconds / run.configuration.batch_size)
            for key, run in sorted(state.runs.items())
            if run.measurement.batch_seconds
        }
        seen = SECONDS.observed(np.array(list(timed), dtype=np.intp), np.array(list(timed.values()), float))
        return self._seconds.fit(seen, self.rows)

    def weight_against(self, fitted: SlopeFit, others: Mapping[Configuration, float]) -> float:
        """Computes the probability that the regression of samples to target is better than another model.

        Each model predicts every run from the other runs (`SlopeModel.left_out_log_densities`). The model
        that predicts higher probability densities for the measured values has the higher probability. With a
        single run, the result is the prior probability.

        Args:
            fitted: The fitted regression of samples to target.
            others: Maps the key (`run_key`) of each run to the logarithm of its probability density under the
                other model.
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
        """Estimates for each recorded run how probable it is that the run never reaches the target.

        The probability of a run with too few scores is the mean of those of the runs with enough scores. The
        prior probability `plateau.RECORDED.unknown` counts as one more run in this mean.

        Args:
            state: State of the search.
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
        """Returns the samples to target of all runs with scores, extrapolated if a run is not there yet."""
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
    """Returns how far a run had come at each of its scores: samples processed, and progress to the target.

    Both have shape `(num_points,)`. The progress is 0 for the untrained model and 1 at the target.
    """
    points, sign = run.measurement.finite_curve, 1.0 if state.job.goal.maximize else -1.0
    values = np.array([sign * point.value for point in points])
    samples = np.array([float(point.samples) for point in points])
    start = sign * (state.start_value or 0.0)
    return samples, progress_of(values, start, sign * state.job.goal.target)


class _Believed:
    """The linear regression of one quantity (seconds per sample or samples to target), with its prior.

    Args:
        features: Numbers computed from each configuration, which are the columns of the regression.
        prior: The prior of the regression coefficients, with its name.
        quantity: The quantity to fit.
        believed: Maps the name of each column to the prior of its regression coefficient, for this quantity.
    """

    def __init__(self, features: Features, prior: SlopeBeliefs, quantity: Quantity, believed: Slopes) -> None:
        self._design = features.design(quantity.slopes)
        self._names = tuple(features.names_of(quantity.slopes))
        self._prior = prior
        self._quantity = quantity
        self._believed: dict[str, Slope] = {**quantity.slopes, **believed}

    def fit(self, seen: Observations, rows: Mapping[Configuration, int]) -> SlopeFit:
        """Fits the regression coefficients to measured values and returns their posterior.

        Args:
            seen: Measured values of the quantity; if there are none, the posterior equals the prior.
            rows: Maps each configuration to its row in the design matrix.
        """
        level = float(seen.values.mean()) if len(seen.values) else 0.0
        quantity = self._quantity
        names, prior = self._names, self._prior
        # The model combines the neutral prior with the given prior.
        priors = [prior_of("neutral", names, self._believed, level=level)]
        if prior.name != "neutral":
            priors.append(prior_of(prior.name, names, self._believed, level=level))
        model = fit_slopes(
            self._design,
            priors,
            seen,
            residual_sds=quantity.residual_sds,
            own_sd=quantity.own_sd,
        )
        return SlopeFit(quantity=quantity.name, names=self._names, model=model, rows=rows)
