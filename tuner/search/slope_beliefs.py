"""Slope models of any axes, fitted to a search's state: seconds of a list, samples of every job."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from search_spaces import Configuration
from tuner.analytic.curve_template import passage_of
from tuner.analytic.features import SAMPLES, SECONDS, Features, Quantity, Slope, features_of, prior_of
from tuner.analytic.laws import Array
from tuner.analytic.plateau import FEWEST_SCORES, RECORDED, chance_of_never
from tuner.analytic.slope_predictor import RunStatus, SlopeFit, SlopePredictor
from tuner.analytic.slopes import Observations, fit_slopes
from tuner.analytic.started_runs import StartedRun, observed_by
from tuner.domain.cluster import Cluster
from tuner.search.runs import Run
from tuner.search.score_times import score_times
from tuner.search.slope_priors import SlopeBeliefs, Slopes
from tuner.search.start_value import progress_of
from tuner.search.state import SearchState

#: Probability of the slopes beside the law before a run: one to two.
_SLOPES_BEFOREHAND = 1 / 3
#: What a first short probe leaves uncertain of log seconds a sample, and of log samples to target, about.
_BELIEVED_SECONDS_SD, BELIEVED_SAMPLES_SD = 0.05, 0.5


class SampleSlopes:
    """Fits log samples to target by slopes; what does not change between decisions is cached.

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

    def fit(self, state: SearchState, believed: Collection[int] = ()) -> SlopeFit:
        """The posterior given all runs with a score.

        Args:
            state: What was measured.
            believed: Rows that count as if they had shown what is expected of them.
        """
        seen = self._observed(state)
        found = self._samples.fit(seen)
        if not believed:
            return found
        seen = _believing(seen, sorted(believed), found.model.mean, BELIEVED_SAMPLES_SD)
        return self._samples.fit(seen)

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

    def never(self, state: SearchState) -> tuple[Array, float]:
        """Chance that each kind never arrives, `(num,)`, and that of one without a score.

        A run with too few scores for a chance of its own, and one without any, are as likely to arrive as the
        others, and as `plateau.RECORDED` says, which counts as one run.
        """
        scored = {self.rows[key]: run for key, run in state.runs.items() if run.measurement.finite_curve}
        chances: dict[int, float] = {}
        for row, run in scored.items():
            if run.arrived or run.has_ended:
                chances[row] = float(run.has_ended)
            elif len(run.measurement.finite_curve) >= FEWEST_SCORES:
                chances[row] = chance_of_never(*_progress(state, run), RECORDED)
        of_others = (RECORDED.unknown + sum(chances.values())) / (1 + len(chances))
        return np.array([chances.get(row, of_others) for row in range(len(self.kinds))]), of_others

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


class SlopeModels:
    """Fits seconds and samples to states of one search over a list of configurations.

    Args:
        configurations: The candidates, in the order in which everything is given.
        cluster: What they run on.
        prior: The prior slopes.
    """

    def __init__(
        self, configurations: Sequence[Configuration], cluster: Cluster, prior: SlopeBeliefs
    ) -> None:
        self.configurations = tuple(configurations)
        self.samples = SampleSlopes(self.configurations, cluster, prior)
        self.features = self.samples.features
        self._seconds = _Believed(self.features, prior, SECONDS, prior.seconds)

    def predict(self, state: SearchState, believed: Collection[Configuration] = ()) -> SlopePredictor:
        """Both posteriors, given all that was measured.

        Args:
            state: What was measured.
            believed: Candidates that are being probed: each counts as if it had shown what is expected of
                it (kriging believer; Ginsbourger et al. 2010). That moves no mean, and takes from the
                variances what these probes are going to take. One that has shown something is left as it is.
        """
        place = self.samples.rows
        runs = {place[run.configuration]: run for run in state.runs.values()}
        rows = sorted(place[configuration] for configuration in believed)
        timed = _step_times(runs)
        seconds = self._seconds.fit(timed)
        if believed:
            seconds = self._seconds.fit(_believing(timed, rows, seconds.model.mean, _BELIEVED_SECONDS_SD))
        num = len(self.configurations)
        elapsed, arrived, ended = np.zeros(num), np.full(num, np.inf), np.zeros(num, dtype=bool)
        for row, run in runs.items():
            elapsed[row] = max(run.measurement.training_seconds, 1e-9)
            arrived[row] = run.seconds_to_target if run.seconds_to_target is not None else np.inf
            ended[row] = run.has_ended
        never, of_others = self.samples.never(state)
        times = score_times(state, self.configurations, np.exp(seconds.model.mean))
        return SlopePredictor(
            configurations=self.configurations,
            seconds=seconds,
            samples=self.samples.fit(state, rows),
            status=RunStatus(
                seconds=elapsed,
                arrived=arrived,
                ended=ended,
                never=never,
                never_of_others=of_others,
                earliest=np.where(elapsed > 0.0, elapsed + times.next, times.first),
            ),
        )


def _progress(state: SearchState, run: Run) -> tuple[Array, Array]:
    """Samples and progress at each score of a run, `(num_points,)` each."""
    points, sign = run.measurement.finite_curve, 1.0 if state.job.goal.maximize else -1.0
    values = np.array([sign * point.value for point in points])
    samples = np.array([float(point.samples) for point in points])
    start = sign * (state.start_value or 0.0)
    return samples, progress_of(values, start, sign * state.job.goal.target)


def _believing(seen: Observations, rows: Sequence[int], mean: Array, sd: float) -> Observations:
    """Observations with those rows added, as they are expected, that are not among them."""
    added = np.array([row for row in rows if row not in seen.rows], dtype=np.intp)
    return Observations(
        rows=np.concatenate([seen.rows, added]),
        values=np.concatenate([seen.values, mean[added]]),
        noise_sd=np.concatenate([seen.noise_sd, np.full(len(added), sd)]),
        common_sd=np.concatenate([seen.common_sd, np.zeros(len(added))]),
    )


def _step_times(runs: dict[int, Run]) -> Observations:
    """Log seconds a sample of every run whose steps were timed."""
    found = {
        row: math.log(run.measurement.batch_seconds / run.configuration.batch_size)
        for row, run in sorted(runs.items())
        if run.measurement.batch_seconds
    }
    return SECONDS.observed(np.array(list(found), dtype=np.intp), np.array(list(found.values()), dtype=float))


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

    def fit(self, seen: Observations) -> SlopeFit:
        """The quantity's posterior.

        Args:
            seen: What was observed; may be empty.
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
        return SlopeFit(quantity=quantity.name, names=self._names, model=model)
