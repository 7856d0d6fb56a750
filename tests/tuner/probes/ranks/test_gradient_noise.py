import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.tuner.probes.conformance import ended
from tests.tuner.probes.tiny_jobs import FOLDER, configuration, tiny_job
from tests.tuner.probes.tiny_workloads import Blobs, Linear
from tuner.domain.measurement import Purpose
from tuner.launchers import LocalLauncher
from tuner.probes import Until
from tuner.probes.ranks.gradient_noise import (
    NUM_PARTS,
    NoiseTally,
    OneRankNoise,
    noise_and_squared_gradient,
    part_size,
)
from tuner.probes.training import TrainingProber

CPU = torch.device("cpu")


def truth() -> tuple[float, float]:
    """S and |G|^2 of the linear problem."""
    points = Linear().points().double().numpy()
    return float(points.var(axis=0, ddof=1).sum()), float((points.mean(axis=0) ** 2).sum())


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=6), data=st.data())
def test_both_are_exact_in_expectation_whatever_the_shares(sizes: list[int], data: st.DataObject) -> None:
    batch_size = sum(sizes)
    noise = data.draw(st.floats(0, 1e3))
    squared = data.draw(st.floats(0, 1e3))
    weighted_small = sum(b / batch_size * (squared + noise / b) for b in sizes)
    large = squared + noise / batch_size
    found = noise_and_squared_gradient(weighted_small, large, batch_size=batch_size, num_parts=len(sizes))
    assert found == pytest.approx((noise, squared), rel=1e-9, abs=1e-9 * (noise + squared + 1))


def test_estimates_from_uneven_shards_of_drawn_gradients_average_to_the_truth() -> None:
    rng = np.random.default_rng(4)
    points = Linear().points().double().numpy()
    sizes = [4, 3, 3]
    tally = NoiseTally()
    for _ in range(4000):
        parts = np.split(points[rng.choice(len(points), 10)], np.cumsum(sizes)[:-1])
        mean = np.concatenate(parts).mean(axis=0)
        small = sum(len(part) / 10 * float((part.mean(axis=0) ** 2).sum()) for part in parts)
        tally.add(small, float((mean**2).sum()))
    found = tally.take(tally.sums[0], samples=0, batch_size=10, num_parts=3)
    noise, squared = truth()
    # 4000 estimates of S scatter by about a quarter each, those of |G|^2 by about its own size.
    assert found.noise == pytest.approx(noise, rel=0.03)
    assert found.squared_gradient == pytest.approx(squared, rel=0.1)
    assert found.num_estimates == 4000
    assert tally.sums == (0.0, 0.0, 0)


def ticking(step: float) -> Iterator[float]:
    return itertools.count(0.0, step)


def one_rank_noise(model: nn.Module, workload: Linear | Blobs, *, tick_seconds: float) -> OneRankNoise:
    ticks = ticking(tick_seconds)
    return OneRankNoise(
        workload=workload,
        model=model,
        data=workload.training_data(),
        device=CPU,
        seed=0,
        part_size=8,
        now=lambda: next(ticks),
    )


def test_one_rank_recovers_the_truth_from_micro_batches() -> None:
    workload = Linear()
    watch = one_rank_noise(workload.model(), workload, tick_seconds=0.0)
    found = [watch.measure(samples, slice_seconds=1.0, seconds_a_sample=0.0) for samples in range(60)]
    noise, squared = truth()
    assert np.mean([f.noise for f in found if f]) == pytest.approx(noise, rel=0.05)
    assert np.mean([f.squared_gradient for f in found if f]) == pytest.approx(squared, rel=0.1)


def test_one_rank_leaves_model_gradients_buffers_and_generators_alone() -> None:
    workload = Blobs(dropout=0.5, batch_norm=True)
    torch.manual_seed(0)
    model = workload.model()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    state = torch.get_rng_state()
    watch = one_rank_noise(model, workload, tick_seconds=0.0)
    assert watch.measure(100, slice_seconds=1.0, seconds_a_sample=0.0) is not None
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("slice_seconds", [0.0, 10.0, 100.0, 1000.0])
def test_one_rank_takes_less_than_a_tenth_of_the_training_time(slice_seconds: float) -> None:
    workload = Linear()
    # Each estimate takes a second by this clock, and is foreseen to.
    watch = one_rank_noise(workload.model(), workload, tick_seconds=1.0)
    price = 1.0 / (8 * NUM_PARTS)
    spent = 0
    for point in range(20):
        found = watch.measure(point, slice_seconds=slice_seconds, seconds_a_sample=price)
        spent += found.num_estimates if found else 0
    assert spent <= 0.1 * slice_seconds
    assert (spent > 0) == (slice_seconds > 20)


def test_parts_follow_the_batch_within_data_and_memory() -> None:
    assert part_size(16, 10_000, None) == 8
    assert part_size(256, 10_000, None) == 32
    assert part_size(4096, 10_000, None) == 64
    assert part_size(4096, 10_000, 16) == 16
    assert part_size(256, 100, None) == 12
    assert part_size(256, 15, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 3])
def test_training_probe_recovers_the_truth_by_either_way(
    warm_ranks: LocalLauncher, tmp_path: Path, nodes: int
) -> None:
    job = tiny_job("Linear", metric="loss", target=-1e30, probe={"score_growth": 1.3})
    prober = TrainingProber(job, FOLDER, warm_ranks)
    what = configuration(nodes=nodes, batch_size=20, learning_rate=1e-4)
    until = Until(samples=20_000)
    measurement = ended(prober, prober.start(what, Purpose.STATISTICS, until, tmp_path))
    assert measurement.noise, measurement
    weights = [statistic.num_estimates for statistic in measurement.noise]
    noise, squared = truth()
    found_noise = np.average([s.noise for s in measurement.noise], weights=weights)
    found_squared = np.average([s.squared_gradient for s in measurement.noise], weights=weights)
    if nodes > 1:
        # One step in eight is an estimate, the first among them: all but the few since the last mark.
        assert sum(weights) == -(-(measurement.noise[-1].samples // 20) // 8)
    # Three standard errors of a hundred estimates; wide for one rank, where a second affords few.
    assert found_noise == pytest.approx(noise, rel=0.15 if nodes > 1 else 0.4)
    if nodes > 1:
        assert found_squared == pytest.approx(squared, rel=0.6)
    assert math.isfinite(found_squared)
