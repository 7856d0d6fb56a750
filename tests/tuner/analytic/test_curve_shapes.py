"""Curve shapes: what a curve seen in part tells of its samples to target, alone and among others."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tuner.analytic.made_curves import power_tail
from tuner.analytic.curve_shapes import (
    SHAPES,
    ShapeTable,
    extrapolate_runs,
    population_of,
    run_posterior,
    shape_table,
)
from tuner.recording import samples_at
from tuner.recording_file import load_recording

Array = npt.NDArray[np.float64]
RECORDING = Path(__file__).resolve().parents[4] / "shared" / "recordings" / "trimtuner-cnn.jsonl.gz"

BROAD = population_of([])
NOISE = 0.01

curves = st.lists(st.floats(-0.03, 1.0), min_size=1, max_size=20).map(np.array)


def seen(
    share: float,
    *,
    height: float = 1.1,
    rise: float = 1.0,
    tail: float = 1.0,
    to_target: float = 5_000.0,
    points: int = 10,
    rng: np.random.Generator | None = None,
) -> ShapeTable:
    """What the first part of a curve tells, from a fiftieth of its samples to target on."""
    samples = np.geomspace(min(0.02, share / 2), share, points) * to_target
    progress = power_tail(samples, to_target, height, rise, tail)
    if rng is not None:
        progress = progress + NOISE * rng.standard_normal(points)
    return shape_table(samples, np.clip(progress, -0.03, 1.0))


def drawn_shapes(num: int, rng: np.random.Generator) -> Array:
    """Arriving shapes as often as the broad prior has them."""
    shares = np.where(SHAPES[:, 0] > 1.0, BROAD, 0.0)
    return np.asarray(SHAPES[rng.choice(len(SHAPES), size=num, p=shares / shares.sum())])


@settings(max_examples=40)
@given(progress=curves, factor=st.floats(0.01, 1000.0))
def test_any_curve_gives_a_posterior_that_moves_with_what_a_sample_is(progress: Array, factor: float) -> None:
    samples = np.geomspace(10.0, 3_000.0, len(progress))
    mean, sd, never = run_posterior(shape_table(samples, progress), BROAD)
    assert math.isfinite(mean)
    assert mean > math.log(samples[0])
    assert sd >= 0.0
    assert -1e-12 <= never <= 1.0
    moved = run_posterior(shape_table(factor * samples, progress), BROAD)
    assert moved == pytest.approx((mean + math.log(factor), sd, never), abs=1e-6)


@settings(max_examples=40)
@given(progress=curves, levels=st.tuples(st.floats(0.1, 1.5), st.floats(0.1, 1.5)))
def test_a_higher_level_is_no_likelier_to_be_reached(progress: Array, levels: tuple[float, float]) -> None:
    table = shape_table(np.geomspace(10.0, 3_000.0, len(progress)), progress)
    low, high = (run_posterior(table, BROAD, level)[2] for level in sorted(levels))
    assert low <= high + 1e-12


def test_a_level_is_reached_where_the_curve_has_it() -> None:
    table = seen(0.9, height=1.1, points=12)
    grid = np.geomspace(0.01, 3.0, 400) * 5_000.0
    truth = np.interp([0.95, 1.03], power_tail(grid, 5_000.0, 1.1), np.log(grid))
    for level, expected in zip((0.95, 1.03), truth, strict=True):
        mean, sd, _ = run_posterior(table, BROAD, level)
        assert mean == pytest.approx(expected, abs=2 * sd + 0.05)


@settings(max_examples=20)
@given(runs=st.lists(curves, max_size=4))
def test_shares_of_a_population_add_up_to_one_whatever_the_order_of_its_runs(runs: list[Array]) -> None:
    tables = [shape_table(np.geomspace(10.0, 500.0, len(progress)), progress) for progress in runs]
    shares = population_of(tables)
    assert shares.shape == (len(SHAPES),)
    assert shares.min() >= 0.0
    assert shares.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(population_of(tables[::-1]), shares, atol=1e-12)


def test_a_curve_of_a_known_shape_is_extrapolated_within_its_stated_spread() -> None:
    rng = np.random.default_rng(0)
    scores = []
    for height, rise, tail in drawn_shapes(90, rng):
        # As far ahead as is believed beforehand: evenly, up to 5.5 e-folds.
        share = math.exp(-rng.uniform(0.1, 5.5))
        table = seen(share, height=height, rise=rise, tail=tail, rng=rng)
        mean, sd, _ = run_posterior(table, BROAD)
        # The distances ahead that are weighed lie 0.08 apart.
        scores.append((mean - math.log(5_000.0)) / math.hypot(sd, 0.05))
    # 90% of a normal, with three standard deviations of the count.
    assert 0.8 < np.mean(np.abs(scores) < 1.645) <= 0.99
    assert abs(np.mean(scores)) < 0.3


def test_a_third_of_a_curve_foretells_the_rest_within_a_factor() -> None:
    rng = np.random.default_rng(1)
    errors = [
        run_posterior(seen(1 / 3, height=h, rise=u, tail=q, rng=rng), BROAD)[0] - math.log(5_000.0)
        for h, u, q in drawn_shapes(60, rng)
    ]
    # A curve's first third leaves its tail open: what is ahead is told to within a factor of two.
    assert np.median(np.abs(errors)) < math.log(2.0)


def test_the_more_of_a_curve_is_seen_the_surer_is_its_end() -> None:
    rng = np.random.default_rng(2)
    shapes = drawn_shapes(24, rng)
    spreads, misses = [], []
    for share in (0.1, 0.3, 0.6, 0.9):
        found = [
            run_posterior(seen(share, height=h, rise=u, tail=q, rng=rng), BROAD)[:2] for h, u, q in shapes
        ]
        spreads.append(np.mean([sd for _, sd in found]))
        misses.append(np.mean([abs(mean - math.log(5_000.0)) for mean, _ in found]))
    assert spreads == sorted(spreads, reverse=True)
    assert misses[-1] < 0.5 * misses[0]
    assert spreads[-1] < 0.5 * spreads[0]


def test_a_curve_that_flattened_below_the_target_is_probably_never_arriving() -> None:
    for height in (0.15, 0.4, 0.7):
        early, late = (run_posterior(seen(share, height=height), BROAD)[2] for share in (0.05, 2.0))
        assert late > 0.9
        assert late > early


def test_a_curve_at_chance_either_never_arrives_or_is_far_from_it() -> None:
    samples = np.geomspace(100.0, 5_000.0, 20)
    flat = shape_table(samples, np.zeros(20))
    mean, _, never = run_posterior(flat, BROAD)
    before = float(BROAD[SHAPES[:, 0] <= 1.0].sum())
    assert never > before
    assert mean > flat.log_seen + 3.0
    # A rise that waits is none of those that the other runs show.
    others = population_of([seen(0.99, rise=0.75) for _ in range(10)] + [seen(3.0, height=0.03)] * 3)
    assert run_posterior(flat, others)[2] > never


def test_a_curve_near_the_target_that_still_rises_arrives() -> None:
    assert run_posterior(seen(0.95, height=1.2), BROAD)[2] < 0.02


def test_shapes_of_many_alike_runs_narrow_the_extrapolation_of_another() -> None:
    rng = np.random.default_rng(3)
    own = seen(0.25, height=1.2, to_target=5_000.0, rng=rng)
    alike = [seen(0.98, height=1.2, to_target=t, rng=rng) for t in np.geomspace(1e3, 1e5, 20)]
    _, sd, never = run_posterior(own, BROAD)
    mean_among, sd_among, never_among = run_posterior(own, population_of([*alike, own]))
    assert sd_among < 0.8 * sd
    assert never_among <= never
    assert abs(mean_among - math.log(5_000.0)) < 2 * sd_among + 0.1


def test_what_runs_show_outweighs_the_prior_of_the_population_and_nothing_leaves_it() -> None:
    assert population_of([], BROAD) is BROAD
    rng = np.random.default_rng(6)
    kind = int(np.argmax(np.where(SHAPES[:, 0] == 1.2, BROAD, 0.0)))
    height, rise, tail = SHAPES[kind]
    tables = [seen(0.95, height=height, rise=rise, tail=tail, rng=rng) for _ in range(20)]
    shares = population_of(tables[1:])
    assert shares[kind] > 3 * BROAD[kind]
    assert tables[0].evidence @ shares > 3 * tables[0].evidence @ BROAD
    # A shape that is believed impossible stays so.
    only = np.where(SHAPES[:, 0] < 1.05, BROAD, 0.0)
    assert population_of(tables, only / only.sum())[SHAPES[:, 0] >= 1.05].max() == 0.0


def test_many_scorings_are_no_surer_than_what_they_have_of_their_own() -> None:
    few, many = (seen(0.5, points=n) for n in (16, 400))
    mean_few, sd_few, _ = run_posterior(few, BROAD)
    mean_many, sd_many, _ = run_posterior(many, BROAD)
    assert many.likelihood.shape == few.likelihood.shape
    # Groups of scorings are their means, the last at the last scoring's place, which bends a curve a little.
    assert mean_many == pytest.approx(mean_few, abs=0.35)
    assert many.log_seen == pytest.approx(few.log_seen)
    assert sd_many > 0.5 * sd_few


def test_all_runs_are_extrapolated_as_each_alone() -> None:
    tables = [seen(0.2), seen(0.6, height=0.7), seen(0.9, rise=2.0)]
    found = extrapolate_runs(tables, BROAD)
    alone = [run_posterior(table, BROAD) for table in tables]
    np.testing.assert_allclose(np.stack([found.log_samples, found.sd, found.never], axis=1), alone)
    assert extrapolate_runs([], BROAD).log_samples.shape == (0,)


@pytest.mark.skipif(not RECORDING.is_file(), reason=f"no recording of real runs at {RECORDING}")
def test_the_second_half_of_real_curves_is_foretold_among_each_other() -> None:
    recording = load_recording(RECORDING)
    tables, truths = [], []
    for configuration in recording.configurations():
        run = recording.run(configuration)
        truth = recording.truth_seconds(run)
        curve = run.curve[run.curve[:, 1] > 0]
        if not math.isfinite(truth) or (curve[:, 0] < truth / 2).sum() < 3:
            continue
        curve = curve[curve[:, 0] < truth / 2]
        samples = np.array([samples_at(step, configuration) for step in curve[:, 1]])
        tables.append(shape_table(samples, np.clip((curve[:, 2] - 0.1) / (recording.target - 0.1), -0.03, 1)))
        truths.append(math.log(truth / run.step_seconds * samples_at(1, configuration)))
        if len(tables) == 60:
            break
    assert len(tables) >= 30
    found = extrapolate_runs(tables, population_of(tables))
    errors = found.log_samples - np.array(truths)
    # Half of the curve ahead is 0.7 e-folds.
    assert np.median(np.abs(errors)) < 0.5
