"""Fits the models of step time and of samples to target, and forecasts the training time of all candidates.

A candidate is a configuration that may be recommended. Samples to target is the number of training samples
that a run processes until its metric reaches the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from search_spaces import STRATEGIES, Configuration, SearchSpace, traits_of
from tuner.analytic.laws import Array
from tuner.analytic.predictor import Chances, Forecast, Predictor
from tuner.analytic.samples_model import RatePrior, counted_batch, fit_samples
from tuner.analytic.step_time_model import SecondsModel, fit_seconds
from tuner.domain.cluster import Cluster
from tuner.domain.workload import AdamWSettings
from tuner.search.calibration import NO_CALIBRATION, Calibration
from tuner.search.improvement import keeps_within, proven, recommended, risks
from tuner.search.law_priors import NO_PAST, PastLaws
from tuner.search.prospects import NEVER, Prospects, RunStatus, prospects_of, reach_of_list, regret_bound
from tuner.search.runs import run_key
from tuner.search.score_times import score_times
from tuner.search.slope_beliefs import SlopeModels
from tuner.search.slope_priors import TEXTBOOK
from tuner.search.state import SearchState, run_of

#: Prior standard deviations of the logarithm of the best learning rate. The first is used if the user has
#: present settings, whose learning rate is the prior mean. The second is used if not; the prior mean is then
#: the middle of the space.
_RATE_SD_WITH_BASELINE, _RATE_SD_WITHOUT = 1.6, 2.0
#: A configuration counts as unable to reach the target if its probability of reaching it within the goal's
#: deadline and dollars is at most this value.
LEAST_PROBABILITY = 0.02
#: If the space has more feasible configurations than this, the candidates are a random subset of this size.
MOST_LEVELS = 800
#: All runs are expected to end at the same length if at least `_ENDS_ALIKE` runs ended by themselves, and the
#: logarithms of their lengths differ by at most `_ALIKE` from that of the longest of them.
_ALIKE, _ENDS_ALIKE = 0.05, 2


@dataclass(frozen=True, kw_only=True)
class Beliefs:
    """Forecasts of the time and cost to reach the target, for all candidate configurations.

    Candidates are the configurations that may be recommended; `num` is their number.

    Args:
        predictor: The fitted models, from which the forecasts were computed.
        forecast: Posterior samples of time and samples to target, drawn jointly for all candidates.
        prospects: The forecasts in the form that search policies use: quantiles of the time to target, and
            the progress of started runs.
        price: Cost of one training second of each candidate, in the goal's unit (seconds or dollars),
            `(num,)`.
        expected: Expected cost of one training of each candidate from the start to the target, in the goal's
            unit, `(num,)`. It is infinite if the candidate is not expected to reach the target within the
            goal's limits.
        recommended: The candidate with the smallest expected cost; None if its run ended without reaching the
            target.
        regret_bound: Upper bound on the cost of the recommended candidate, divided by the smallest cost of
            all candidates. The bound holds with 90% probability.
    """

    predictor: Predictor
    forecast: Forecast
    prospects: Prospects
    price: Array
    expected: Array
    recommended: Configuration | None
    regret_bound: float

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """The candidate configurations, in the order of the entries of all arrays of this class."""
        return self.forecast.configurations


def seconds_ratio(state: SearchState, to: Configuration, of: Configuration) -> float:
    """Predicts the seconds per sample of configuration `to`, divided by those of configuration `of`.

    The prediction comes from the model of step time, fitted to the measurements of the search.

    Args:
        state: State of the search, with the measurements.
        to: The configuration in the numerator.
        of: The configuration in the denominator.
    """
    means, _ = _law_of_seconds(state, [to, of], NO_PAST).log_seconds_per_sample([to, of])
    return math.exp(float(means[0] - means[1]))


def _law_of_seconds(
    state: SearchState, configurations: Sequence[Configuration], past: PastLaws
) -> SecondsModel:
    strategies = sorted({c.strategy for c in configurations})
    return fit_seconds(
        state.slices, state.cluster, state.parameter_bytes, strategies=strategies, past=past.seconds
    )


def candidates(state: SearchState, rng: np.random.Generator) -> list[Configuration]:
    """Lists the configurations that the search may recommend.

    - If the job replays a recording, they are the recorded configurations and those of the started runs.
    - Otherwise, they are the feasible configurations of the search space (a random subset if there are too
      many), the present settings of the user, and the configurations of the started runs. If the learning
      curve of a started run does not depend on the number of nodes, its configuration is listed with every
      number of nodes.
    - Configurations whose last training failed because of the configuration are left out. Present settings
      that would run out of memory are left out too. So are the learning curves in `SearchState.left_out`.

    Args:
        state: State of the search.
        rng: Random generator, which chooses the subset if there are too many configurations.
    """
    if state.job.recording() is not None:
        recorded = {*state.space.candidates(), *(run.configuration for run in state.runs.values())}
        return sorted(recorded - state.left_out)
    levels = weighed_levels(state.space, state.cluster, rng)
    more = [run.configuration for run in state.runs.values()]
    baseline = state.job.baseline_configuration()
    fits = baseline is not None and not any(c.reason_against(baseline) for c in state.space.conditions)
    if baseline is not None and fits:
        more.append(baseline)
    # A started run can resume on any number of nodes if its learning curve does not depend on this number.
    for run in state.runs.values():
        if not traits_of(run.configuration.strategy).statistics_depend_on_nodes:
            more.extend(run.configuration.replaced(nodes=n) for n in state.cluster.node_counts)
    feasible = [c for c in more if c.nodes in state.cluster.node_counts or c == baseline]
    given_up, left_out = state.given_up, state.left_out
    found = [c for c in dict.fromkeys([*levels, *feasible]) if c not in given_up]
    return [c for c in found if run_key(state.job, c) not in left_out] if left_out else found


def weighed_levels(space: SearchSpace, cluster: Cluster, rng: np.random.Generator) -> list[Configuration]:
    """Returns the feasible configurations of a search space, each training only once.

    If there are more than `MOST_LEVELS`, the result is a random subset of this size.

    Args:
        space: The search space.
        cluster: The cluster. On a single rank, configurations with different strategies may be the same
            training.
        rng: Random generator, which chooses the subset.
    """
    levels = distinct(space.candidates(), cluster)
    return levels if len(levels) <= MOST_LEVELS else _thinned(levels, rng)


def distinct(levels: Sequence[Configuration], cluster: Cluster) -> list[Configuration]:
    """Removes configurations that describe the same training as another configuration of the list.

    On a single rank, no parameters are exchanged. All communication strategies then train in the same way,
    whatever the values of their parameters (such as `tau`); exceptions are strategies with an outer optimizer
    step. Of such equal configurations, only one stays in the list: the first one whose learning curve does
    not depend on the number of nodes, such as all-reduce; if there is none, the first one.

    Args:
        levels: The configurations to compare.
        cluster: The cluster, which gives the number of ranks.
    """
    unique: dict[Configuration, Configuration] = {}
    for level in levels:
        key = level
        traits = traits_of(level.strategy)
        if cluster.num_ranks(level.nodes) == 1 and not traits.has_outer_step:
            key = level.without("strategy", *traits.knobs)
            known = unique.get(key)
            if known is not None and traits.statistics_depend_on_nodes:
                continue
        unique[key] = level
    return list(unique.values())


def _thinned(levels: Sequence[Configuration], rng: np.random.Generator) -> list[Configuration]:
    """Draws a random subset of `MOST_LEVELS` configurations.

    With several strategies, the result contains equally many configurations for every pair of a strategy and
    a number of nodes, or all configurations of a pair that has fewer.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for i, level in enumerate(levels):
        groups.setdefault((level.strategy, level.nodes), []).append(i)
    if len({strategy for strategy, _ in groups}) == 1:
        chosen = rng.choice(len(levels), size=MOST_LEVELS, replace=False)
        return [levels[i] for i in np.sort(chosen)]
    found: list[int] = []
    smallest_first = sorted(groups.values(), key=len)
    for place, members in enumerate(smallest_first):
        share = (MOST_LEVELS - len(found)) // (len(smallest_first) - place)
        size = min(share, len(members))
        found.extend(members[i] for i in rng.choice(len(members), size=size, replace=False))
    return [levels[i] for i in sorted(found)]


def believe(
    state: SearchState,
    configurations: Sequence[Configuration],
    rng: np.random.Generator,
    past: PastLaws = NO_PAST,
    slopes: SlopeModels | None = None,
    calibration: Calibration = NO_CALIBRATION,
) -> Beliefs:
    """Fits all models to the measurements of a search, and forecasts the time to target of the candidates.

    - Samples to target are predicted by two models: a formula with fitted parameters (if it covers all axes
      of the search space), and a linear regression of logarithms. The weight of each model depends on how
      well it predicts every run from the other runs.
    - Step time is predicted by a formula with fitted parameters, or by a linear regression if the job replays
      recorded runs.

    Args:
        state: State of the search.
        configurations: The candidates, whose time to target is forecast.
        rng: Random generator of the posterior samples.
        past: Values of the fitted parameters in past studies, which serve as priors.
        slopes: The linear regressions from an earlier call, to save time; None to make new ones with the
            textbook prior.
        calibration: Factor that corrects the widths of the forecast intervals, from errors of earlier
            studies.
    """
    kinds = [run_key(state.job, configuration) for configuration in configurations]
    slopes = slopes or SlopeModels(tuple(dict.fromkeys([*kinds, *state.runs])), state.cluster, TEXTBOOK)
    predictor = _predictor(state, configurations, slopes, past)
    forecast = _up_to_the_script_s_end(state, predictor.forecast(configurations, kinds, rng))
    status = _status(state, predictor, forecast, kinds)
    forecast = calibration.stretched(forecast, status.seconds)
    found = [run_of(state, configuration) for configuration in configurations]
    # A run without a score reaches the target at its first score at the earliest.
    unscored = np.array([run is None or not run.measurement.trained_curve for run in found])
    least = np.where(unscored, np.log(np.maximum(status.earliest, 1e-12)), -np.inf)
    forecast = replace(forecast, log_seconds=np.maximum(forecast.log_seconds, least))
    may_lead = np.array([run is not None and run.rise_samples is not None for run in found])
    is_listed = state.job.recording() is not None
    reach = reach_of_list(status) if is_listed else float(1.0 - status.never.min(initial=1.0))
    return beliefs_of(state, predictor, forecast, prospects_of(forecast, status, may_lead, reach))


def _predictor(
    state: SearchState, configurations: Sequence[Configuration], slopes: SlopeModels, past: PastLaws
) -> Predictor:
    """Fits the models of step time and of samples to target to the measurements of a search."""
    evidence, runs = state.evidence()
    by_slopes, devices = slopes.samples(state), state.cluster.devices_per_node
    law, weight, is_listed = None, 1.0, state.job.recording() is not None
    if not is_listed or _laws_know(slopes.kinds):
        law = fit_samples(
            evidence,
            rate_prior(state),
            devices_per_node=devices,
            strategies=sorted({c.strategy for c in configurations}),
            emulation_differs=state.cluster.at_hand is not None,
            past=past.samples,
            shapes=past.shapes,
        )
        found = law.left_out_log_densities()
        densities = {k: found[r.index] for k, r in runs.items() if r.index in found}
        is_seen = len(by_slopes.model.seen.rows) > 0
        weight = slopes.weight_against(by_slopes, densities) if is_seen else 0.0
    if is_listed or law is None:
        return Predictor(
            seconds=slopes.seconds(state),
            samples=by_slopes,
            chances=slopes.chances(state),
            runs=runs,
            other=law,
            weight_of_other=1.0 - weight,
            devices_per_node=devices,
        )
    arrivals = law.arrivals
    return Predictor(
        seconds=_law_of_seconds(state, configurations, past),
        samples=law,
        chances=Chances(
            of_runs={key: float(arrivals.unreachable[run.index]) for key, run in runs.items()},
            of_others=arrivals.unreachable_elsewhere,
            edge=law.edge,
        ),
        runs=runs,
        other=by_slopes,
        weight_of_other=weight,
        devices_per_node=devices,
    )


def _laws_know(configurations: Sequence[Configuration]) -> bool:
    """Whether the formulas of step time and samples to target cover all configurations.

    They do if each configuration has a batch size, a learning rate, and a known communication strategy.
    """
    return all(
        "batch_size" in c and "learning_rate" in c and c.strategy in STRATEGIES for c in configurations
    )


def _status(
    state: SearchState, predictor: Predictor, forecast: Forecast, kinds: Sequence[Configuration]
) -> RunStatus:
    """Computes how far the training of each candidate has come.

    If the run of a candidate was trained on other nodes, its seconds are converted to the candidate's nodes.

    Args:
        state: State of the search.
        predictor: The fitted models, with the started runs.
        forecast: Posterior samples of the candidates.
        kinds: For each candidate, the key (`run_key`) under which its run is found.
    """
    per_sample, configurations = forecast.seconds_per_sample, forecast.configurations
    num = len(configurations)
    done, samples = np.zeros(num), np.zeros(num)
    arrived, ended = np.full(num, np.inf), np.zeros(num, dtype=bool)
    for i, (configuration, kind) in enumerate(zip(configurations, kinds, strict=True)):
        own = predictor.runs.get(kind)
        if own is not None:
            is_own = own.configuration == configuration and own.is_timed
            done[i] = max(own.training_seconds if is_own else own.samples * per_sample[i], 1e-9)
            samples[i], ended[i] = own.samples, own.ended
            if is_own and own.seconds_to_target is not None:
                arrived[i] = own.seconds_to_target
    due = [state.next_score_samples(c, int(seen)) for c, seen in zip(configurations, samples, strict=True)]
    if None in due:
        left = score_times(state, configurations, per_sample)
    else:
        left = (np.array(due, dtype=float) - samples) * per_sample
    # `reach_of_list` tests whether a probability equals `never_of_others`, so a recorded list needs exact
    # values. For other jobs, the share of posterior samples is good enough.
    is_listed = state.job.recording() is not None
    return RunStatus(
        seconds=done,
        arrived=arrived,
        ended=ended,
        never=predictor.chances_of(kinds) if is_listed else 1.0 - forecast.probability_of_reaching(),
        never_of_others=predictor.chances.of_others,
        earliest=done + left,
    )


def beliefs_of(state: SearchState, predictor: Predictor, forecast: Forecast, prospects: Prospects) -> Beliefs:
    """Adds prices, expected costs and the recommended candidate to the forecasts.

    Args:
        state: State of the search.
        predictor: The fitted models.
        forecast: Posterior samples of time and samples to target of all candidates.
        prospects: Quantiles of the time to target of every candidate, and the progress of its run.
    """
    price = prices(state, prospects.configurations)
    longest = log_longest(state, prospects)
    choice = proven(prospects, price, longest, recommended(prospects, price, longest))
    expected = np.exp(np.minimum(risks(prospects, price), NEVER))
    within = keeps_within(prospects, longest) > LEAST_PROBABILITY
    return Beliefs(
        predictor=predictor,
        forecast=forecast,
        prospects=prospects,
        price=price,
        expected=np.where(within & ~prospects.status.ended, expected, np.inf),
        recommended=None if prospects.status.ended[choice] else prospects.configurations[choice],
        regret_bound=regret_bound(forecast, price, choice),
    )


def log_longest(state: SearchState, prospects: Prospects) -> Array:
    """Computes how long each candidate may train at most, as a logarithm of seconds.

    The length of a training is limited by the deadline and the dollars of the goal, and by the end of the
    user's script. For example, if two runs ended by themselves after 10 epochs, and no run has trained
    longer, all runs are expected to end after this number of samples. If there is no common number of
    samples, a common number of seconds is used.

    Args:
        state: State of the search.
        prospects: Forecasts of the candidates, which convert samples to seconds.

    Returns:
        The logarithms, `(num,)`; infinite if there is no limit.
    """
    goal = state.job.goal
    longest = np.full(
        len(prospects.configurations), math.inf if goal.deadline is None else math.log(goal.deadline)
    )
    if goal.max_dollars is not None:
        dollars = np.array([state.cluster.dollars_per_second(c) for c in prospects.configurations])
        with np.errstate(divide="ignore"):
            longest = np.minimum(longest, math.log(goal.max_dollars) - np.log(dollars))
    runs = [run for run in state.runs.values() if run.measurement.samples > 0]
    ended = np.array([run.ended_by_itself for run in runs], dtype=bool)
    # Most scripts end after a number of samples. So look for a common number of seconds only if there is no
    # common number of samples.
    for values, base in (
        ([float(run.measurement.samples) for run in runs], np.log(prospects.seconds_per_sample)),
        ([run.measurement.training_seconds for run in runs], np.zeros(len(longest))),
    ):
        logs = np.log(np.maximum(values, 1e-9))
        latest = logs[ended].max(initial=-math.inf)
        has_limit = np.count_nonzero(logs[ended] > latest - _ALIKE) >= _ENDS_ALIKE
        if has_limit and not (logs[~ended] > latest + _ALIKE).any():
            return np.asarray(np.minimum(longest, latest + _ALIKE + base), dtype=float)
    return np.asarray(longest, dtype=float)


def _up_to_the_script_s_end(state: SearchState, forecast: Forecast) -> Forecast:
    """Marks posterior samples as never reaching the target if the user's script ends before.

    The script ends before if the posterior sample needs more training samples than the script processes.
    """
    ends = np.array(state.script_ends(forecast.configurations))
    if not np.isfinite(ends).any():
        return forecast
    return replace(forecast, never=forecast.never | (forecast.samples > ends))


def prices(state: SearchState, configurations: Sequence[Configuration]) -> Array:
    """Returns the cost of one second of training with each configuration, `(num,)`.

    The unit is that of the goal. If the goal is to minimize dollars, the costs are in dollars. If it is to
    minimize seconds, they are in seconds, so all costs are 1.

    Args:
        state: State of the search.
        configurations: The configurations, whose number and type of nodes determine the price.
    """
    if state.job.goal.minimize == "seconds":
        return np.ones(len(configurations))
    return np.array([state.cluster.dollars_per_second(c) for c in configurations])


def rate_prior(state: SearchState) -> RatePrior:
    """Returns the prior distribution of the best learning rate, before any run was measured.

    Its center is the learning rate of the user's present settings. Without present settings, its center is
    the middle of the search space.

    Args:
        state: State of the search, which gives the search space and the present settings.
    """
    job = state.job
    optimizer = job.workload.optimizer if job.workload is not None else None
    exponent = 0.5 if isinstance(optimizer, AdamWSettings) else 1.0
    # A recording may have no learning rate or no batch size.
    rates, batches = (
        [float(v) for v in state.space.axes[name].levels()] if name in state.space.axes else [1.0]
        for name in ("learning_rate", "batch_size")
    )
    baseline = job.baseline_configuration()
    if baseline is not None:
        log_rate, sd = math.log(baseline.learning_rate), _RATE_SD_WITH_BASELINE
        batch_size = counted_batch(baseline, state.cluster.devices_per_node)
    else:
        log_rate, sd = 0.5 * (math.log(min(rates)) + math.log(max(rates))), _RATE_SD_WITHOUT
        batch_size = math.sqrt(min(batches) * max(batches))
    return RatePrior(
        log_rate=log_rate,
        sd=sd,
        batch_size=batch_size,
        exponent=exponent,
        epoch_samples=float(state.epoch_samples),
        largest_batch_size=max(*batches, batch_size),
    )
