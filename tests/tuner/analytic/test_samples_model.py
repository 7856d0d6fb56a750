from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from search_spaces import Configuration
from tests.tuner.analytic.made_measurements import configuration, diverged, rate_prior, run, stuck
from tuner.analytic.laws import log_best_rate, log_samples_at_best_rate, rate_penalty
from tuner.analytic.rate_edge import RunEvidence
from tuner.analytic.samples_model import NOISE_FLOOR, SamplesModel, fit_samples

NOISE_SCALE, LOG_SAMPLES, LOG_RATE = 150.0, math.log(20_000.0), math.log(0.4)


def true_samples(what: Configuration) -> float:
    batch = np.array([what.batch_size])
    best = log_best_rate(batch, log_rate=LOG_RATE, noise_scale=NOISE_SCALE, exponent=1.0)
    floor = log_samples_at_best_rate(batch, log_samples=LOG_SAMPLES, noise_scale=NOISE_SCALE)
    ratio = math.log(what.learning_rate) - best
    return float(np.exp(floor + rate_penalty(ratio, slope_below=0.9, slope_above=1.6, width=1.2))[0])


def runs_at(pairs: list[tuple[int, float]], *, share: float = 0.5, noise: float = 0.008) -> list[RunEvidence]:
    found = []
    for seed, (batch, rate) in enumerate(pairs):
        what = configuration(1, batch, rate)
        found.append(run(what, true_samples(what), share=share, noise=noise, seed=seed))
    return found


GRID = [(b, r) for b in (32, 128, 512) for r in (0.01, 0.04, 0.15)]


def believed(model: SamplesModel, what: Configuration) -> tuple[float, float]:
    """Mean and standard deviation of log samples to target."""
    mean, covariance = model.log_samples([what], [None])
    return float(mean[0]), math.sqrt(covariance[0, 0])


def edge(model: SamplesModel) -> float:
    """Expected logarithm of the rate at which training breaks down."""
    return float(model.edge.grid @ model.edge.weights)


def test_the_basin_is_recovered_from_unfinished_runs() -> None:
    model = fit_samples(runs_at(GRID), rate_prior())
    for what in (configuration(1, 64, 0.05), configuration(1, 256, 0.1), configuration(1, 64, 0.02)):
        mean, sd = believed(model, what)
        assert mean == pytest.approx(math.log(true_samples(what)), abs=0.35)
        assert sd < 0.4


def test_the_best_rate_is_found_among_candidates() -> None:
    model = fit_samples(runs_at(GRID), rate_prior())
    rates = np.geomspace(1e-3, 1.0, 25)
    found = [configuration(1, 128, float(r)) for r in rates]
    chosen = found[int(np.argmin(model.log_samples(found)[0]))]
    best = min(found, key=true_samples)
    # Within a factor that costs less than a fifth more samples.
    assert true_samples(chosen) < 1.2 * true_samples(best)


def test_a_batch_beyond_those_run_is_predicted_within_its_interval() -> None:
    model = fit_samples(
        runs_at([(b, r) for b, r in GRID if b < 512]), rate_prior(largest_batch_size=NOISE_SCALE)
    )
    what = configuration(1, 512, 0.15)
    mean, sd = believed(model, what)
    assert abs(mean - math.log(true_samples(what))) < 2 * math.hypot(sd, 0.1)


def test_intervals_cover_where_runs_arrive() -> None:
    """Runs with seeds of their own: each configuration's truth is off the law by a tenth."""
    rng = np.random.default_rng(3)
    inside, trials = 0, 40
    for trial in range(trials):
        reported = []
        pairs = [GRID[i] for i in rng.choice(len(GRID), size=5, replace=False)]
        for i, (batch, rate) in enumerate(pairs):
            what = configuration(1, batch, rate)
            truth = true_samples(what) * float(np.exp(0.1 * rng.standard_normal()))
            reported.append(run(what, truth, share=0.4, seed=100 * trial + i))
        asked = configuration(1, 128, 0.08)
        mean, sd = believed(fit_samples(reported, rate_prior(largest_batch_size=NOISE_SCALE)), asked)
        truth = math.log(true_samples(asked)) + 0.1 * rng.standard_normal()
        inside += abs(mean - truth) < 1.645 * math.hypot(sd, 0.1)
    # A 90% interval, over 40 trials; wider than it says is the safe side.
    assert inside / trials >= 0.8


def test_a_run_that_arrived_is_known_exactly() -> None:
    what = configuration()
    model = fit_samples([run(what, 30_000.0, share=1.05, arrived=True)], rate_prior())
    np.testing.assert_allclose(model.arrivals.median, [math.log(30_000.0)])
    assert (model.arrivals.own.std(axis=0)[0], model.arrivals.unreachable[0]) == (0.0, 0.0)
    # Another seed of the same configuration would differ by a tenth.
    assert believed(model, what)[0] == pytest.approx(math.log(30_000.0), abs=0.05)


def test_a_run_that_broke_down_lowers_the_edge() -> None:
    good = runs_at([(64, 0.02), (64, 0.05)])
    before = fit_samples(good, rate_prior())
    after = fit_samples([*good, diverged(configuration(1, 64, 0.3))], rate_prior())
    assert edge(after) < edge(before) - 0.3


def test_a_run_that_went_well_at_a_large_rate_raises_the_edge() -> None:
    low = fit_samples(runs_at([(64, 0.02)]), rate_prior())
    high = fit_samples(runs_at([(64, 0.02), (64, 1.0)]), rate_prior())
    assert edge(high) > edge(low)


def test_a_run_stuck_where_smaller_rates_got_away_counts_as_broken_down() -> None:
    good = runs_at([(64, 0.02), (64, 0.05)])
    as_diverged = fit_samples([*good, diverged(configuration(1, 64, 0.5))], rate_prior())
    as_stuck = fit_samples([*good, stuck(configuration(1, 64, 0.5))], rate_prior())
    assert edge(as_stuck) == pytest.approx(edge(as_diverged), abs=0.05)
    # What broke down is no evidence of a slow basin.
    before = believed(fit_samples(good, rate_prior()), configuration(1, 64, 0.1))
    after = believed(as_stuck, configuration(1, 64, 0.1))
    assert after[0] == pytest.approx(before[0], abs=0.1)


def test_a_slow_start_at_the_smallest_rate_is_no_break_down() -> None:
    good = runs_at([(64, 0.02), (64, 0.05)])
    slow = stuck(configuration(1, 64, 1e-4))
    assert edge(fit_samples([*good, slow], rate_prior())) > edge(
        fit_samples([*good, diverged(configuration(1, 64, 1e-4))], rate_prior())
    )
    # It is evidence that the rate is far too small.
    reported = believed(fit_samples([*good, slow], rate_prior()), configuration(1, 64, 1e-4))
    assert reported[0] > math.log(5_000.0) + 2


def test_draws_of_the_edge_follow_its_probabilities() -> None:
    model = fit_samples([*runs_at([(64, 0.02)]), diverged(configuration(1, 64, 0.5))], rate_prior())
    draws = model.edge.draws(np.linspace(0.001, 0.999, 999))
    assert np.all(np.diff(draws) >= 0)
    assert draws.mean() == pytest.approx(edge(model), abs=0.1)


def test_a_measured_noise_scale_decides_how_large_batches_are_expected_to_do() -> None:
    reported = runs_at([(32, 0.02)])
    costs = []
    for scale in (20.0, 20_000.0):
        model = fit_samples(reported, rate_prior(largest_batch_size=scale))
        costs.append(
            believed(model, configuration(1, 1024, 0.1))[0] - believed(model, configuration(1, 32, 0.02))[0]
        )
    assert costs[0] > costs[1] + 1.0


def test_before_any_run_the_user_s_rate_is_about_the_best_and_all_is_unsure() -> None:
    model = fit_samples([], rate_prior(math.log(0.02)))
    found = [configuration(1, 64, float(r)) for r in np.geomspace(1e-4, 1.0, 25)]
    mean, covariance = model.log_samples(found)
    assert 0.005 < found[int(np.argmin(mean))].learning_rate < 0.08
    assert np.sqrt(np.diag(covariance)).min() > 1.0
    words = " ".join(model.summary())
    assert "do not determine these parameters yet" in words
    assert "noise scale" in words
    # What no run determined is not stated as a finding.
    assert "small batches take" in words
    assert "far below" not in words
    assert "learning rate of large batches" not in words


def test_adam_s_best_rate_follows_the_root_of_the_batch() -> None:
    def rate_ratio(exponent: float) -> float:
        model = fit_samples([], rate_prior(math.log(1e-3), largest_batch_size=1e6, exponent=exponent))
        best = []
        for batch in (64, 1024):
            found = [configuration(1, batch, float(r)) for r in np.geomspace(1e-5, 1.0, 101)]
            best.append(found[int(np.argmin(model.log_samples(found)[0]))].learning_rate)
        return best[1] / best[0]

    assert rate_ratio(1.0) == pytest.approx(16.0, rel=0.15)
    assert rate_ratio(0.5) == pytest.approx(4.0, rel=0.15)


def test_a_run_without_a_scoring_says_nothing_of_samples() -> None:
    silent = RunEvidence(configuration=configuration(), samples=np.zeros(0), progress=np.zeros(0))
    model = fit_samples([silent], rate_prior())
    assert np.all(np.isinf(model.arrivals.median))
    assert len(model.posterior.parts[0].inputs) == 0


def tuned(batch: int) -> Configuration:
    """A configuration without a rate: its script chooses the best one for the batch."""
    return Configuration(nodes=1, batch_size=batch, strategy="all_reduce")


def samples_by_u(batch: float) -> float:
    """A U with its minimum near batch 186."""
    return 20_000.0 * (1 + batch / 800 + (64 / batch) ** 2)


def runs_along_the_u(batches: tuple[int, ...]) -> list[RunEvidence]:
    return [run(tuned(batch), samples_by_u(batch), share=1.05, arrived=True) for batch in batches]


def test_a_minimum_in_the_batch_is_learnt_where_runs_show_one() -> None:
    model = fit_samples(runs_along_the_u((16, 32, 64, 128, 256, 512)), rate_prior())
    floor, sd = model.parameters()[NOISE_FLOOR]
    assert abs(floor - math.log(64)) < 2 * sd < 0.8
    batches = np.unique(np.geomspace(16, 2048, 60).astype(int))
    mean, _ = model.log_samples([tuned(int(batch)) for batch in batches])
    assert 90 < batches[int(np.argmin(mean))] < 380
    assert any("needs the fewest" in line for line in model.summary())
    for batch in (24, 1024):
        mean, sd = believed(model, tuned(batch))
        assert abs(mean - math.log(samples_by_u(batch))) < 2 * math.hypot(sd, 0.1)


def test_small_batches_that_stay_cheap_leave_no_floor_above_them() -> None:
    flat = [run(tuned(b), 20_000.0 * (1 + b / 800), share=1.05, arrived=True) for b in (4, 16, 64, 256)]
    model = fit_samples(flat, rate_prior())
    mean, _ = model.log_samples([tuned(4), tuned(64)])
    assert mean[0] == pytest.approx(mean[1], abs=0.25)
    assert math.exp(model.parameters()[NOISE_FLOOR][0]) < 4


def test_without_data_a_floor_hardly_matters_at_the_batches_that_users_state() -> None:
    """The law is the old one, S (1 + B / B_noise), up to the width of the floor's prior."""
    model = fit_samples([], rate_prior())
    theta = {name: mean for name, (mean, _) in model.parameters().items()}
    # `rate_prior` is around batch 64.
    batches = np.array([16, 64, 256, 1024])
    mean, covariance = model.log_samples([tuned(int(batch)) for batch in batches])
    scale = math.exp(theta["log noise scale"])
    old = log_samples_at_best_rate(batches.astype(float), log_samples=theta["log samples"], noise_scale=scale)
    np.testing.assert_allclose(mean[1:], old[1:], atol=0.01)
    assert 0 < mean[0] - old[0] < 0.1
    assert np.all(np.abs(mean - old) < 0.1 * np.sqrt(np.diag(covariance)))
    assert NOISE_FLOOR in model.posterior.at_prior()


def test_a_noise_scale_that_nothing_determines_is_expected_at_the_largest_batch_of_the_space() -> None:
    unknown = fit_samples([], rate_prior()).parameters()["log noise scale"]
    offered = fit_samples([], replace(rate_prior(), largest_batch_size=2048.0))
    found = offered.parameters()["log noise scale"]
    assert found[0] == pytest.approx(math.log(2048))
    assert found[0] > unknown[0]
    assert found[1] == unknown[1] > 1.0


def test_configurations_without_a_rate_pay_no_penalty_for_one() -> None:
    for log_rate in (math.log(1e-4), math.log(10.0)):
        model = fit_samples([], rate_prior(log_rate))
        mean, _ = model.log_samples([tuned(64), configuration(1, 64, 1.0)])
        assert mean[0] == pytest.approx(math.log(60_000.0) + math.log(1.25), abs=0.02)
        assert mean[1] > mean[0] + 0.5
