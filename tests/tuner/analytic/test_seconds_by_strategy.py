"""The model of seconds over several strategies: what a timing of one tells of the others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from search_spaces import STRATEGIES, Configuration, traits_of, with_knobs
from tests.tuner.analytic.made_measurements import configuration, timed
from tuner.analytic.step_rows import steps_of
from tuner.analytic.step_time_laws import Network
from tuner.analytic.step_time_model import SecondsModel, fit_seconds
from tuner.analytic.strategy_laws import batch_seconds
from tuner.domain.cluster import Cluster, RankDelay
from tuner.domain.measurement import Measurement, RankTiming, Spread

ASYNCHRONOUS = Cluster(node_counts=(1, 2, 4, 8), nodes_share_host=False)
LATE = replace(ASYNCHRONOUS, delays=(RankDelay(ranks=(1,), low=0.0, high=0.3),))
PARAMETER_BYTES = 4_000_000
ALL = tuple(STRATEGIES)
TRUTH = Network(
    num_bytes=PARAMETER_BYTES,
    latency=1e-3,
    bytes_per_second=5e8,
    point_to_point=2.0,
    jitter=0.05,
    overlap=1.3,
)


def asked(strategy: str, nodes: int, batch: int = 256, **knobs: float) -> Configuration:
    what = Configuration(nodes=nodes, batch_size=batch, learning_rate=0.1, strategy=strategy, **knobs)
    return with_knobs(what)


def true_seconds(what: Configuration, cluster: Cluster) -> float:
    traits, ranks = traits_of(what.strategy), np.array([float(what.nodes)])
    compute = np.array([0.004 + 4e-4 * what.batch_size / what.nodes])
    tau = np.array([float(traits.tau_of(what))])
    return float(batch_seconds(traits, compute, ranks, tau, replace(TRUTH, delays=cluster.delays))[0])


def probes(configurations: list[Configuration], cluster: Cluster, seed: int = 0) -> list[Measurement]:
    rng = np.random.default_rng(seed)
    return [
        timed(c, true_seconds(c, cluster) * float(np.exp(0.03 * rng.standard_normal())))
        for c in configurations
    ]


def predicted(model: SecondsModel, what: Configuration) -> tuple[float, float]:
    """Predicted seconds for one global batch and the standard deviation of their logarithm."""
    mean, covariance = model.log_seconds_per_sample([what])
    return math.exp(mean[0]) * what.batch_size, math.sqrt(covariance[0, 0])


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("cluster", [ASYNCHRONOUS, LATE], ids=["quiet", "a rank late"])
def test_a_strategy_on_more_nodes_is_predicted_within_its_interval(strategy: str, cluster: Cluster) -> None:
    reported = [asked(s, n, b) for s in ("all_reduce", strategy) for n in (1, 2, 4) for b in (64, 512)]
    model = fit_seconds(probes(reported, cluster), cluster, PARAMETER_BYTES, strategies=ALL)
    for batch in (128, 1024):
        step, sd = predicted(model, asked(strategy, 8, batch))
        error = math.log(step / true_seconds(asked(strategy, 8, batch), cluster))
        assert abs(error) < 1.96 * math.hypot(sd, model.between_moments_sd)
        assert sd < 0.6


def test_timings_of_all_reduce_show_what_gossip_computes() -> None:
    before = fit_seconds([], ASYNCHRONOUS, PARAMETER_BYTES, strategies=ALL)
    reported = [asked("all_reduce", n, b) for n in (1, 2) for b in (64, 512)]
    after = fit_seconds(probes(reported, ASYNCHRONOUS), ASYNCHRONOUS, PARAMETER_BYTES, strategies=ALL)
    what = asked("gossip_pull", 4, 512)
    assert predicted(before, what)[1] > 1.0
    step, sd = predicted(after, what)
    assert sd < 0.25
    assert step == pytest.approx(true_seconds(what, ASYNCHRONOUS), rel=0.2)


def test_a_delay_known_from_the_job_is_predicted_before_any_rank_was_slow() -> None:
    """Timed on one node alone, where the delayed rank is not."""
    reported = [asked("all_reduce", 1, b) for b in (64, 256, 1024)]
    model = fit_seconds(probes(reported, LATE), LATE, PARAMETER_BYTES, strategies=ALL)
    waits, free = predicted(model, asked("all_reduce", 4))[0], predicted(model, asked("gossip_pull", 4))[0]
    assert waits == pytest.approx(true_seconds(asked("all_reduce", 4), LATE), rel=0.15)
    assert free < 0.35 * waits


def test_a_timing_of_one_strategy_is_no_timing_of_another_at_the_same_point() -> None:
    reported = probes([asked("all_reduce", 4)] * 6, ASYNCHRONOUS)
    model = fit_seconds(reported, ASYNCHRONOUS, PARAMETER_BYTES, strategies=ALL)
    assert predicted(model, asked("all_reduce", 4))[1] < 0.6 * predicted(model, asked("gossip_pull", 4))[1]


def test_residuals_of_two_strategies_are_partly_alike() -> None:
    model = fit_seconds([], ASYNCHRONOUS, PARAMETER_BYTES, strategies=ALL)
    what = [asked("all_reduce", 4), asked("gossip_push", 4)]
    inputs = steps_of(what, ASYNCHRONOUS).inputs()
    residual = model.posterior.parts[0].residual.covariance(inputs, inputs)
    assert 0.5 <= residual[0, 1] / residual[0, 0] <= 0.7


def test_on_one_rank_a_timing_of_any_strategy_is_one_of_all() -> None:
    reported = probes([asked("gossip_pull", 1, b) for b in (64, 256)], ASYNCHRONOUS)
    model = fit_seconds(reported, ASYNCHRONOUS, PARAMETER_BYTES, strategies=ALL)
    found = [predicted(model, asked(s, 1, 256)) for s in ("all_reduce", "gossip_pull", "local_sgd")]
    assert found[0] == pytest.approx(found[1])
    assert found[0] == pytest.approx(found[2])


def test_rates_of_ranks_are_what_is_learnt_where_nobody_waits() -> None:
    """One rank at 0.1 s, one at 0.3 s a step: 0.15 s for a global batch, not the slower rank's 0.3."""
    what = asked("gossip_pull", 2, 64)
    step = [Spread(median=s, p10=s, p90=s, mean=s, std=0.05 * s, count=40) for s in (0.1, 0.3)]
    ranks = tuple(
        RankTiming(rank=r, batch_size=32, compute=s, sync=s, input=s, step=s) for r, s in enumerate(step)
    )
    measured = replace(timed(what, 0.1), ranks=ranks)
    model = fit_seconds([measured] * 6, ASYNCHRONOUS, PARAMETER_BYTES)
    assert predicted(model, what)[0] == pytest.approx(0.15, rel=0.1)


def test_with_all_reduce_alone_no_further_unknown_is_named() -> None:
    reported = probes([asked("all_reduce", n, 256) for n in (1, 2)], ASYNCHRONOUS)
    alone = fit_seconds(reported, ASYNCHRONOUS, PARAMETER_BYTES, strategies=["all_reduce"])
    concurrently = fit_seconds(reported, ASYNCHRONOUS, PARAMETER_BYTES, strategies=ALL)
    assert "point-to-point" not in " ".join(alone.summary())
    assert "point-to-point" in " ".join(concurrently.summary())
    # What is unknown of others changes nothing for all-reduce.
    here = configuration(4, 256)
    assert predicted(alone, here) == pytest.approx(predicted(concurrently, here), rel=1e-6)


def test_the_point_to_point_bandwidth_is_recovered() -> None:
    big = 400_000_000
    truth = replace(TRUTH, num_bytes=big, point_to_point=3.0)
    reported = []
    for strategy in ("all_reduce", "gossip_pull", "elastic_averaging"):
        for nodes in (1, 2, 4, 8):
            what = asked(strategy, nodes, 256, **({} if strategy == "all_reduce" else {"tau": 1}))
            compute = np.array([0.004 + 4e-4 * 256 / nodes])
            seconds = batch_seconds(
                traits_of(strategy), compute, np.array([float(nodes)]), np.array([1.0]), truth
            )
            reported.append(timed(what, float(seconds[0])))
    model = fit_seconds(reported, ASYNCHRONOUS, big)
    names = [p.name for p in model.posterior.parameters]
    place = names.index("log bandwidth ratio (point-to-point/collective)")
    assert model.posterior.theta[place] == pytest.approx(math.log(3.0), abs=0.25)
    assert model.posterior.theta_sd[place] < 0.3
