"""Seconds a step on any placement: recovered, extrapolated, and honest about what was not timed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.step_placements import all_reduce_steps, placements_of, spread_evenly, steps_at
from tests.levels import examples
from tuner.analytic.all_reduce_cost import Link, Sharing, topology_ring_seconds
from tuner.analytic.laws import expected_maximum
from tuner.analytic.mixed_posterior import MixedPosterior
from tuner.analytic.step_fit import TimedSteps, fit_steps
from tuner.analytic.step_rows import Steps
from tuner.domain.cluster import Cluster

Array = npt.NDArray[np.float64]
Fitted = tuple[MixedPosterior, float]

CLUSTER = Cluster(node_counts=(1, 16), devices_per_node=4, nodes_share_host=False)
NUM_BYTES = 100_000_000
FIXED, PER_SAMPLE, OVERLAP, JITTER = 0.02, 2e-3, 2.5, 0.03
BETWEEN = Link(latency_seconds=1e-3, bytes_per_second=8e8)
WITHIN = Link(latency_seconds=3e-5, bytes_per_second=6e9)
NEAR = [(1,), (2,), (4,), (1, 1), (1, 2), (2, 2), (4, 4), (1, 1, 1), (2, 2, 2, 2), (1, 3, 2, 4)]
FAR = [spread_evenly(ranks, nodes) for nodes, ranks in ((6, 12), (8, 32), (16, 16), (16, 64))]


def steps_on(counts: list[tuple[int, ...]], batches: tuple[float, ...]) -> Steps:
    repeated = [placement for placement in counts for _ in batches]
    return all_reduce_steps(placements_of(repeated), np.array(list(batches) * len(counts)))


def made(steps: Steps, *, noise: float = 0.0) -> tuple[Array, Array]:
    """Seconds of steps and of waits by a law like ours, with noise in the exchange."""
    own = FIXED + PER_SAMPLE * steps.batch_size_per_rank
    slowest = own * (1 + JITTER * expected_maximum(steps.placements.num_ranks))
    exchange = topology_ring_seconds(
        steps.placements,
        NUM_BYTES,
        within=WITHIN,
        between=BETWEEN,
        sharing=Sharing(variation=0.1, peer_gain=0.3),
    )
    exchange = exchange * np.exp(noise * np.random.default_rng(0).normal(size=len(own)))
    seconds = (slowest**OVERLAP + exchange**OVERLAP) ** (1 / OVERLAP)
    return seconds, seconds - own


def fitted(
    steps: Steps, *, noise: float = 0.0, waits: bool = True, parameter_bytes: int = NUM_BYTES
) -> Fitted:
    seconds, wait_seconds = made(steps, noise=noise)
    timed = TimedSteps(
        steps=steps,
        seconds=seconds,
        own_sd=np.zeros(len(steps)),
        wait_seconds=wait_seconds if waits else np.full(len(steps), math.nan),
    )
    return fit_steps(timed, CLUSTER, parameter_bytes)


def predicted(model: Fitted, steps: Steps) -> tuple[Array, Array]:
    """Mean and standard deviation of the logarithm of one more timing."""
    posterior, between_moments_sd = model
    mean, covariance = posterior.predict(steps.inputs())
    return mean, np.sqrt(np.diag(covariance) + between_moments_sd**2)


def test_the_parameters_that_made_the_steps_are_recovered() -> None:
    found = fitted(steps_on([*NEAR, (1,) * 8], (16.0, 64.0, 256.0)))[0].parameter_values()
    assert math.exp(found["log compute (seconds per sample)"][0]) == pytest.approx(PER_SAMPLE, rel=0.1)
    assert math.exp(found["log bandwidth (bytes/s)"][0]) == pytest.approx(8e8, rel=0.25)
    assert math.exp(found["log overlap exponent"][0]) == pytest.approx(OVERLAP, rel=0.15)


@pytest.mark.parametrize("waits", [True, False])
def test_up_to_four_nodes_predict_sixteen(waits: bool) -> None:
    model = fitted(steps_on(NEAR, (32.0, 128.0)), noise=0.1, waits=waits)
    far = steps_on(FAR, (24.0, 200.0))
    mean, sd = predicted(model, far)
    measured, _ = made(far)
    assert np.mean(np.abs(np.exp(mean) / measured - 1)) < 0.1
    assert np.all(np.abs(np.log(measured) - mean) < 2 * sd)


def test_a_single_node_leaves_the_network_at_its_prior() -> None:
    model = fitted(steps_on([(1,), (2,), (4,)], (32.0, 128.0)))
    assert {"log hop latency (seconds)", "log bandwidth (bytes/s)"} <= set(model[0].at_prior())
    _, unknown = predicted(model, steps_on([(1, 1)], (16.0,)))
    _, known = predicted(fitted(steps_on(NEAR, (32.0, 128.0))), steps_on([(1, 1)], (16.0,)))
    assert unknown[0] > 2 * known[0]


@pytest.mark.parametrize("factor", [0.45, 1.0, 4.4])  # ResNet-18, ResNet-50, BERT base
def test_where_bytes_are_unstated_one_node_leaves_usual_sizes_possible(factor: float) -> None:
    alone, far = steps_on([(1,), (2,), (4,)], (16.0, 64.0)), steps_on([(4,) * 16], (16.0,))
    unknown, known = (
        predicted(fitted(alone, waits=False, parameter_bytes=size), far) for size in (0, NUM_BYTES)
    )
    assert unknown[1] > known[1]
    exchange = topology_ring_seconds(
        far.placements, factor * NUM_BYTES, within=WITHIN, between=BETWEEN, sharing=Sharing()
    )
    own = FIXED + PER_SAMPLE * far.batch_size_per_rank
    seconds = (own**OVERLAP + exchange**OVERLAP) ** (1 / OVERLAP)
    assert np.abs(np.log(seconds) - unknown[0]) < 1.645 * unknown[1]


def test_where_bytes_are_unstated_timings_on_up_to_four_nodes_predict_sixteen() -> None:
    near, far = steps_on(NEAR, (16.0, 64.0)), steps_on(FAR, (16.0, 64.0))
    (stated, _), (unstated, sd) = (
        predicted(fitted(near, parameter_bytes=size), far) for size in (NUM_BYTES, 0)
    )
    assert np.abs(np.expm1(unstated - np.log(made(far)[0]))).mean() < 0.15
    assert np.abs(unstated - stated).max() < 0.2
    assert sd.max() < 0.5


def test_intervals_widen_with_the_distance_from_the_timed_nodes() -> None:
    model = fitted(steps_on([(1,), (4,), (1, 1), (2, 2), (4, 4)], (16.0, 64.0)))
    _, sd = predicted(model, steps_on([(4,) * nodes for nodes in (2, 4, 8, 16)], (16.0,)))
    assert np.all(np.diff(sd) > 0)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_two_nodes_leave_sixteen_less_sure_than_four_nodes_do(noise: float) -> None:
    asked = steps_on(FAR, (16.0, 64.0))
    few = [(1,), (4,), (1, 1), (1, 2), (2, 2), (4, 4)]
    _, from_two = predicted(fitted(steps_on(few, (16.0, 64.0)), noise=noise), asked)
    more = [(1,), (4,), (2, 2), (1, 1, 1), (1, 3, 2, 4), (4, 4, 4, 4)]
    _, from_four = predicted(fitted(steps_on(more, (16.0, 64.0)), noise=noise), asked)
    assert np.all(from_two > 1.1 * from_four)


def test_steps_that_scatter_more_leave_wider_intervals() -> None:
    asked = steps_on(FAR, (16.0,))
    _, calm = predicted(fitted(steps_on(NEAR, (16.0, 64.0))), asked)
    _, wild = predicted(fitted(steps_on(NEAR, (16.0, 64.0)), noise=0.3), asked)
    assert np.all(wild > 1.3 * calm)


def test_repeated_timings_count_like_one_with_less_noise() -> None:
    steps = steps_on([(1,), (2, 2), (4, 4)], (32.0,))
    seconds, _ = made(steps)
    unknown = np.full(3, math.nan)
    often = np.repeat(np.arange(3), 50)
    once, repeated = (
        fit_steps(
            TimedSteps(
                steps=steps_at(steps, rows),
                seconds=seconds[rows],
                own_sd=np.zeros(len(rows)),
                wait_seconds=unknown[rows],
            ),
            CLUSTER,
            NUM_BYTES,
        )
        for rows in (np.arange(3), often)
    )
    assert len(repeated[0].parts[0].inputs) == len(once[0].parts[0].inputs) == 3
    assert repeated[1] < once[1]
    assert np.all(predicted(repeated, steps)[1] < predicted(once, steps)[1])


@examples(6)
@given(
    chosen=st.lists(st.tuples(st.sampled_from(NEAR), st.sampled_from([16.0, 64.0, 256.0])), min_size=1),
    noise=st.floats(0.0, 0.4),
)
def test_any_steps_give_finite_predictions_that_grow_with_the_batch(
    chosen: list[tuple[tuple[int, ...], float]], noise: float
) -> None:
    placements = placements_of([placement for placement, _ in chosen[:12]])
    steps = all_reduce_steps(placements, np.array([batch for _, batch in chosen[:12]]))
    mean, sd = predicted(fitted(steps, noise=noise), steps_on([(4,) * 16], (8.0, 64.0, 512.0)))
    assert np.all(np.isfinite(mean))
    assert np.all(sd > 0)
    # The residual may bend by a little what noisy steps hardly determine.
    assert np.all(np.diff(mean) > -0.01)
