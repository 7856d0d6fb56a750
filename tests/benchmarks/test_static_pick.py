"""The benchmark of static picks: what is offered, what may be seen, and what it reaches on the tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.batch_problems import tuned
from benchmarks.pollux_tables import Run, Timings, read_runs, read_timings
from benchmarks.static_pick import (
    RECORDINGS,
    candidates,
    expected_pick,
    goodput_pick,
    judge,
    largest_pick,
    samples_model,
)
from benchmarks.topology_steps import draw_probes, fit_steps

PLACEMENTS = ((1,), (4,), (4, 4), (4, 4, 4, 4))
LOCAL = (16.0, 32.0, 64.0, 128.0)

recorded = pytest.mark.skipif(
    not (RECORDINGS / "pollux-throughput.csv").is_file(), reason=f"no recorded tables at {RECORDINGS}"
)


def exchange(placement: tuple[int, ...]) -> float:
    return 0.0 if sum(placement) == 1 else 0.02 if len(placement) == 1 else 0.05


def seconds(placement: tuple[int, ...], local: float) -> float:
    return 0.02 + 0.001 * local + exchange(placement)


def made_timings() -> Timings:
    rows = [(placement, local) for placement in PLACEMENTS for local in LOCAL]
    return Timings(
        placements=tuple(placement for placement, _ in rows),
        local_batch_sizes=np.array([local for _, local in rows]),
        step_seconds=np.array([seconds(*row) for row in rows]),
        sync_seconds=np.array([exchange(placement) for placement, _ in rows]),
    )


def made_runs() -> dict[int, Run]:
    """A noise scale that grows from 50 by 50 an epoch; accuracy follows progress."""
    epochs = np.arange(1.0, 101.0)
    scales = 50 * epochs
    runs = {}
    for batch in (64, 256, 1024):
        steps = np.cumsum(1000 * (scales + batch) / (scales + 64) * 64 / batch)
        runs[batch] = Run(
            batch_size=batch,
            steps=steps,
            progress=64_000 * epochs,
            metric=0.95 - 0.3 / epochs,
            noise_scales=scales,
        )
    return runs


def test_candidates_are_batches_on_placements_that_measured_them() -> None:
    offered = candidates("cifar10", made_runs(), made_timings())
    locals_ = offered.batch_sizes / [sum(placement) for placement in offered.placements]
    assert np.all((locals_ >= 16) & (locals_ <= 128))
    assert {int(b) for b in offered.batch_sizes} == {64, 256, 1024}
    assert offered.against_best(int(np.argmin(offered.seconds))) == 1.0
    for placement, local, step in zip(offered.placements, locals_, offered.step_seconds, strict=True):
        assert step == pytest.approx(seconds(placement, local), rel=1e-6)


def test_a_batch_that_never_reached_the_target_is_infinitely_slow() -> None:
    runs = made_runs()
    runs[1024] = replace(runs[1024], metric=np.full(100, 0.5))
    offered = candidates("cifar10", runs, made_timings())
    assert np.all(np.isinf(offered.seconds) == (offered.batch_sizes == 1024))


def test_noise_that_grows_is_foreseen_where_a_constant_one_picks_too_small_a_batch() -> None:
    runs = made_runs()
    offered = candidates("cifar10", runs, made_timings())
    ours = expected_pick(offered, offered.step_seconds, samples_model(runs[64], 1024))
    constant = goodput_pick(offered, offered.step_seconds, runs[64])
    assert offered.batch_sizes[ours] > offered.batch_sizes[constant]
    assert offered.against_best(ours) < 1.1 < offered.against_best(constant)


def test_only_the_first_epoch_and_the_branch_s_epoch_are_seen() -> None:
    run = made_runs()[64]
    garbled = run.noise_scales.copy()
    garbled[1:24] = garbled[25:] = 1e9
    other = replace(run, noise_scales=garbled)
    asked = [tuned(64), tuned(1024)]
    for shares in ((), (0.25,)):
        seen, unseen = (samples_model(r, 1024, shares).log_samples(asked)[0] for r in (run, other))
        np.testing.assert_array_equal(seen, unseen)


def test_the_largest_batch_is_put_where_its_step_is_fastest() -> None:
    offered = candidates("cifar10", made_runs(), made_timings())
    picked = largest_pick(offered, offered.step_seconds)
    assert offered.batch_sizes[picked] == 1024
    assert offered.placements[picked] == (4, 4, 4, 4)


def test_steps_are_fitted_from_few_probes_and_predict_those_between() -> None:
    timings = made_timings()
    model = fit_steps("cifar10", timings, np.array([0, 3, 4, 7, 8, 11, 12, 15]))
    between = [i for i in range(16) if i % 4 in (1, 2)]
    placements = [timings.placements[i] for i in between]
    batches = timings.local_batch_sizes[between] * [sum(placement) for placement in placements]
    # The ring's law is not the made one's constant exchange; a straight line in the batch is its own.
    np.testing.assert_allclose(
        model.step_seconds(placements, batches), timings.step_seconds[between], rtol=0.15
    )


def test_probes_stay_within_their_nodes_and_are_not_repeated() -> None:
    timings = made_timings()
    drawn = draw_probes(timings, 5, 2, np.random.default_rng(0))
    assert len(set(drawn.tolist())) == 5
    assert all(len(timings.placements[i]) <= 2 for i in drawn)


@recorded
def test_every_app_is_within_half_of_the_best_and_ahead_of_goodput() -> None:
    runs = read_runs(RECORDINGS / "pollux-convergence.csv")
    timings = read_timings(RECORDINGS / "pollux-throughput.csv")
    for app in runs:
        row = judge(app, runs[app], timings[app], 16, 3)
        assert row["time_to_target_against_best"] <= 1.5
        assert row["time_to_target_against_best"] < row["goodput_against_best"]
