from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from search_spaces import Configuration, traits_of
from tests.tuner.analytic.made_measurements import configuration, diverged, rate_prior, run, timed
from tuner.analytic.predictor import Chances, Forecast, Predictor, RunState
from tuner.analytic.rate_edge import RunEvidence
from tuner.analytic.samples_model import fit_samples
from tuner.analytic.step_time_model import fit_seconds
from tuner.domain.cluster import Cluster

CLUSTER = Cluster(node_counts=(1, 2, 4), cores_per_host=4)
SECONDS_PER_SAMPLE = 5e-4
HERE, THERE = configuration(1, 64, 0.02), configuration(1, 64, 0.05)


def predictor(
    evidence: Sequence[RunEvidence],
    *,
    samples_seen: Sequence[int] | None = None,
    nodes_timed: tuple[int, ...] = (1, 2),
    arrived_seconds: float | None = None,
    ended: Sequence[bool] | None = None,
) -> Predictor:
    """Both models, with a state for each run; steps cost half a millisecond a sample of a rank."""
    probes = [
        timed(configuration(n, b), 0.003 + SECONDS_PER_SAMPLE * b / n)
        for n in nodes_timed
        for b in (16, 64, 256)
    ]
    states = {}
    for index, reported in enumerate(evidence):
        seen = int(reported.samples[-1]) if len(reported.samples) else 0
        if samples_seen is not None:
            seen = samples_seen[index]
        arrived = reported.samples_to_target
        key = traits_of(reported.configuration.strategy).statistics_of(reported.configuration)
        states[key] = RunState(
            configuration=reported.configuration,
            index=index,
            samples=seen,
            training_seconds=seen * (0.003 / 64 + SECONDS_PER_SAMPLE),
            samples_to_target=arrived,
            seconds_to_target=arrived_seconds if arrived is not None else None,
            ended=reported.diverged if ended is None else ended[index],
        )
    samples = fit_samples(evidence, rate_prior())
    arrivals = samples.arrivals
    return Predictor(
        seconds=fit_seconds(probes, CLUSTER, 4_000_000),
        samples=samples,
        chances=Chances(
            of_runs={key: float(arrivals.unreachable[state.index]) for key, state in states.items()},
            of_others=arrivals.unreachable_elsewhere,
            edge=samples.edge,
        ),
        runs=states,
    )


def forecast(made: Predictor, *what: Configuration) -> Forecast:
    statistics = [traits_of(c.strategy).statistics_of(c) for c in what]
    return made.forecast(what, statistics, np.random.default_rng(0))


def median(draws: np.ndarray) -> float:
    return float(np.median(draws))


def test_a_started_run_s_remaining_time_shrinks_with_what_it_saw() -> None:
    remaining = []
    for share in (0.3, 0.6, 0.9):
        made = predictor([run(HERE, 30_000.0, share=share)])
        elapsed = next(iter(made.runs.values())).training_seconds
        remaining.append(median(forecast(made, HERE).total[:, 0] - elapsed))
    assert remaining[0] > remaining[1] > remaining[2] > 0
    # The last tenth of 30,000 samples at about 0.55 ms each, as far as one run shows it.
    assert remaining[2] == pytest.approx(0.1 * 30_000 * 5.5e-4, rel=2.0)


def test_the_whole_of_a_started_run_is_never_less_than_it_took_so_far() -> None:
    made = predictor([run(HERE, 30_000.0, share=0.8)])
    elapsed = next(iter(made.runs.values())).training_seconds
    found = forecast(made, HERE)
    assert np.all(found.total[:, 0] >= elapsed)


def test_an_arrived_run_took_what_it_took() -> None:
    made = predictor([run(HERE, 30_000.0, share=1.05, arrived=True)], arrived_seconds=17.5)
    found = forecast(made, HERE)
    np.testing.assert_allclose(found.total[:, 0], 17.5)
    assert found.probability_of_reaching()[0] == 1.0


def test_another_number_of_nodes_shares_the_samples_of_a_started_run() -> None:
    reported = run(HERE, 30_000.0, share=0.6)
    found = forecast(predictor([reported]), HERE, HERE.replaced(nodes=2), THERE)
    both = np.isfinite(found.total).all(axis=1)
    spreads = np.log(found.total[both]).std(axis=0)
    assert max(spreads[:2]) < spreads[2]
    # The same samples at another price, and in the same draws.
    logs = np.log(found.total[both])
    assert np.corrcoef(logs[:, 0], logs[:, 1])[0, 1] > 0.7


def test_a_run_that_broke_down_is_never_expected_to_arrive() -> None:
    large = configuration(1, 64, 0.5)
    found = forecast(predictor([run(HERE, 30_000.0), diverged(large)]), HERE, large, large.replaced(nodes=2))
    assert list(found.probability_of_reaching()[1:]) == [0.0, 0.0]
    assert np.all(np.isinf(found.total[:, 1:]))
    assert np.all(np.isinf(found.quantile(0.5)[1:]))


def test_rates_above_one_that_broke_down_are_less_likely_to_arrive_than_those_below() -> None:
    made = predictor([run(HERE, 30_000.0), diverged(configuration(1, 64, 0.3))])
    rates = [0.05, 0.1, 0.2, 0.4, 0.9]
    found = forecast(made, *(configuration(1, 64, r) for r in rates))
    reach = found.probability_of_reaching()
    assert np.all(np.diff(reach) <= 0)
    assert reach[-1] < 0.2 < reach[0]


def test_quantiles_are_ordered_and_infinite_draws_are_the_largest() -> None:
    made = predictor([run(HERE, 30_000.0, share=0.3), diverged(configuration(1, 64, 0.3))])
    rates = [0.01, 0.05, 0.1, 0.2]
    found = forecast(made, *(configuration(1, 64, r) for r in rates))
    levels = np.stack([found.quantile(level) for level in (0.0, 0.05, 0.5, 0.95, 1.0)])
    assert np.all(levels[1:] >= levels[:-1])
    uncertain = found.probability_of_reaching() < 0.9
    assert uncertain.any()
    assert np.all(np.isinf(levels[4][uncertain]))


def test_predictions_are_seconds_times_samples() -> None:
    reported = [
        run(configuration(1, b, 0.03), 20_000.0 + 100 * b, share=1.05, arrived=True) for b in (32, 128)
    ]
    made = predictor(reported, arrived_seconds=1.0)
    asked = configuration(1, 64, 0.03)
    found = forecast(made, asked)
    expected = 26_400 * (0.003 / 64 + SECONDS_PER_SAMPLE)
    assert median(found.total[:, 0]) == pytest.approx(expected, rel=0.25)
    lower, upper = found.quantile(0.05)[0], found.quantile(0.95)[0]
    assert lower < expected < upper


def test_configurations_are_forecast_together_so_that_ranks_compare_draw_by_draw() -> None:
    """Two neighbours share samples and moment: their ratio is surer than either."""
    made = predictor([run(HERE, 30_000.0, share=0.5)])
    near, nearer = configuration(1, 64, 0.05), configuration(1, 64, 0.055)
    found = forecast(made, near, nearer)
    both = np.isfinite(found.total).all(axis=1)
    logs = np.log(found.total[both])
    assert np.std(logs[:, 0] - logs[:, 1]) < 0.6 * np.std(logs[:, 0])


def test_the_same_normals_give_the_same_forecast() -> None:
    made = predictor([run(HERE, 30_000.0, share=0.5)])
    np.testing.assert_array_equal(forecast(made, HERE, THERE).total, forecast(made, HERE, THERE).total)


def test_an_unfinished_run_s_median_is_near_its_own_curve_s_end() -> None:
    reported = [run(HERE, 30_000.0, share=0.7), run(THERE, 18_000.0, share=0.7, seed=1)]
    found = forecast(predictor(reported), HERE, THERE)
    for column, truth in enumerate((30_000.0, 18_000.0)):
        seconds = truth * (0.003 / 64 + SECONDS_PER_SAMPLE)
        assert median(found.total[:, column]) == pytest.approx(seconds, rel=0.6)
        assert found.quantile(0.05)[column] < seconds < found.quantile(0.95)[column]
    assert math.isfinite(found.quantile(0.5)[0])
