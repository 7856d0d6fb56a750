"""Seconds a step by placement: recovered, extrapolated, and honest about what was not timed."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.models.placement_seconds import PlacementSeconds, Steps, fit_placement_seconds, placements_of
from tests.levels import examples
from tuner.analytic.placement import Link, Sharing, spread_evenly, topology_ring_seconds

Array = npt.NDArray[np.float64]

TABLE = Path(__file__).resolve().parents[4] / "shared" / "recordings" / "pollux-throughput.csv"
NUM_BYTES = 1e8
FIXED, PER_SAMPLE, OVERLAP, JITTER = 0.02, 2e-3, 2.5, 0.03
BETWEEN = Link(latency_seconds=1e-3, bytes_per_second=8e8)
WITHIN = Link(latency_seconds=3e-5, bytes_per_second=6e9)
NEAR = [(1,), (2,), (4,), (1, 1), (1, 2), (2, 2), (4, 4), (1, 1, 1), (2, 2, 2, 2), (1, 3, 2, 4)]
FAR = [spread_evenly(ranks, nodes) for nodes, ranks in ((6, 12), (8, 32), (16, 16), (16, 64))]


def steps_on(counts: list[tuple[int, ...]], batches: tuple[float, ...], micro: float | None = None) -> Steps:
    repeated = [placement for placement in counts for _ in batches]
    return Steps(
        placements=placements_of(repeated),
        batch_size_per_rank=np.array(list(batches) * len(counts)),
        num_micro_batches=None if micro is None else np.full(len(repeated), micro),
    )


def made(steps: Steps, *, noise: float = 0.0, seed: int = 0) -> tuple[Array, Array]:
    """Seconds of steps and of waits by the law, with noise in the exchange."""
    own = FIXED + PER_SAMPLE * steps.batch_size_per_rank
    slowest = own * (1 + JITTER * steps.placements.slowest_rank)
    exchange = topology_ring_seconds(
        steps.placements, NUM_BYTES, within=WITHIN, between=BETWEEN, sharing=Sharing(variation=0.1)
    )
    exchange = exchange * np.exp(noise * np.random.default_rng(seed).normal(size=len(own)))
    micro = 1.0 if steps.num_micro_batches is None else steps.num_micro_batches
    last = (slowest**OVERLAP + exchange**OVERLAP) ** (1 / OVERLAP)
    seconds = (micro - 1) * slowest + last
    return seconds, seconds - micro * own


def fitted(steps: Steps, *, noise: float = 0.0, seed: int = 0) -> PlacementSeconds:
    seconds, waits = made(steps, noise=noise, seed=seed)
    return fit_placement_seconds(steps, seconds, NUM_BYTES, wait_seconds=waits)


def test_the_parameters_that_made_the_steps_are_recovered() -> None:
    model = fitted(steps_on([*NEAR, (1,) * 8], (16.0, 64.0, 256.0)))
    theta = dict(zip((p.name for p in model.posterior.parameters), model.posterior.theta, strict=True))
    # Scatters of 4% and 15% are assumed, so priors weigh a little although these steps have none.
    assert np.exp(theta["log compute seconds a sample"]) == pytest.approx(PER_SAMPLE, rel=0.1)
    assert np.exp(theta["log bytes a second between nodes"]) == pytest.approx(8e8, rel=0.25)
    assert np.exp(theta["log overlap exponent"]) == pytest.approx(OVERLAP, rel=0.15)


@pytest.mark.parametrize("micro", [None, 4.0])
def test_up_to_four_nodes_predict_sixteen(micro: float | None) -> None:
    model = fitted(steps_on(NEAR, (32.0, 128.0), micro), noise=0.1)
    far = steps_on(FAR, (24.0, 200.0), micro)
    mean, sd = model.log_seconds(far)
    measured, _ = made(far)
    assert np.mean(np.abs(np.exp(mean) / measured - 1)) < 0.1
    assert np.all(np.abs(np.log(measured) - mean) < 2 * sd)


def test_a_single_node_leaves_the_network_at_its_prior_and_names_it() -> None:
    model = fitted(steps_on([(1,), (2,), (4,)], (32.0, 128.0)))
    assert {"log latency seconds between nodes", "log bytes a second between nodes"} <= set(model.at_prior())
    assert any("bytes a second between nodes" in line for line in model.summary())
    _, unknown = model.log_seconds(steps_on([(1, 1)], (16.0,)))
    _, known = fitted(steps_on(NEAR, (32.0, 128.0))).log_seconds(steps_on([(1, 1)], (16.0,)))
    assert unknown[0] > 2 * known[0]


def test_intervals_widen_with_the_distance_from_the_timed_nodes() -> None:
    model = fitted(steps_on([(1,), (4,), (1, 1), (2, 2), (4, 4)], (16.0, 64.0)))
    _, sd = model.log_seconds(steps_on([(4,) * nodes for nodes in (2, 4, 8, 16)], (16.0,)))
    assert np.all(np.diff(sd) > 0)


def test_accumulated_micro_batches_share_one_exchange() -> None:
    model = fitted(steps_on(NEAR, (32.0, 128.0)))
    one, four = (model.log_seconds(steps_on([(1,) * 8], (32.0,), micro))[0][0] for micro in (1.0, 4.0))
    compute = FIXED + PER_SAMPLE * 32.0
    assert np.exp(four) - np.exp(one) == pytest.approx(3 * compute, rel=0.15)


@examples(6)
@given(
    chosen=st.lists(st.tuples(st.sampled_from(NEAR), st.sampled_from([16.0, 64.0, 256.0])), min_size=1),
    noise=st.floats(0.0, 0.4),
)
def test_any_steps_give_finite_predictions_that_grow_with_the_batch(
    chosen: list[tuple[tuple[int, ...], float]], noise: float
) -> None:
    steps = Steps(
        placements=placements_of([placement for placement, _ in chosen[:12]]),
        batch_size_per_rank=np.array([batch for _, batch in chosen[:12]]),
    )
    mean, sd = fitted(steps, noise=noise).log_seconds(steps_on([(4,) * 16], (8.0, 64.0, 512.0)))
    assert np.all(np.isfinite(mean))
    assert np.all(sd > 0)
    assert np.all(np.diff(mean) > 0)


def test_a_fit_without_steps_or_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one timed step"):
        fit_placement_seconds(steps_on([], (32.0,)), np.array([]), NUM_BYTES)
    with pytest.raises(ValueError, match="parameter bytes above 0"):
        fit_placement_seconds(steps_on([(1,)], (32.0,)), np.array([0.1]), 0.0)


@pytest.mark.skipif(not TABLE.is_file(), reason=f"no table of Pollux's throughput at {TABLE}")
@pytest.mark.parametrize(("app", "num_bytes"), [("cifar10", 4.5e7), ("imagenet", 1.02e8)])
def test_twelve_real_steps_on_four_nodes_predict_sixteen(app: str, num_bytes: float) -> None:
    with TABLE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["app"] == app]
    near = [row for row in rows if row["kind"] == "placements"][:: 83 if app == "cifar10" else 61]
    far = [row for row in rows if row["kind"] == "scalability" and row["num_nodes"] == "16"]
    model = fit_placement_seconds(
        Steps(
            placements=placements_of([[int(digit) for digit in row["placement"]] for row in near]),
            batch_size_per_rank=np.array([float(row["local_batch_size"]) for row in near]),
        ),
        np.array([float(row["step_seconds"]) for row in near]),
        num_bytes,
    )
    counts = [spread_evenly(int(row["num_replicas"]), int(row["num_nodes"])) for row in far]
    asked = Steps(
        placements=placements_of(counts),
        batch_size_per_rank=np.array([float(row["local_batch_size"]) for row in far]),
    )
    measured = np.array([float(row["step_seconds"]) for row in far])
    # The same measurements scatter by 8% around their own fit, and waits are not told here.
    assert np.median(np.abs(np.exp(model.log_seconds(asked)[0]) / measured - 1)) < 0.25
