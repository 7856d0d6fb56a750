"""Prospects: times to target as policies weigh them, and the chance that any run arrives."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

from search_spaces import Configuration
from tests.tuner.analytic.made_predictors import made_prospects
from tuner.analytic.predictor import Forecast
from tuner.analytic.quasi_random import NUM_DRAWS
from tuner.search.prospects import Prospects, RunStatus, prospects_of, reach_of_list, squared_correlation


def status_of(num: int, **more: object) -> RunStatus:
    plain = RunStatus(
        seconds=np.zeros(num),
        arrived=np.full(num, np.inf),
        ended=np.zeros(num, dtype=bool),
        never=np.zeros(num),
        never_of_others=0.0,
        earliest=np.zeros(num),
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def drawn(log_seconds: np.ndarray, status: RunStatus) -> Prospects:
    """Prospects of candidates on 1, 2, ... nodes."""
    num = log_seconds.shape[1]
    forecast = Forecast(
        configurations=tuple(Configuration(nodes=i + 1) for i in range(num)),
        log_seconds=log_seconds,
        log_samples=log_seconds,
        never=np.zeros(log_seconds.shape, dtype=bool),
        log_speed=np.zeros(log_seconds.shape),
        seconds_per_sample=np.ones(num),
        log_seconds_sd=np.zeros(num),
    )
    return prospects_of(forecast, status, np.ones(num, dtype=np.bool_), 1.0)


def normals(num: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((NUM_DRAWS, num))


def test_mean_and_spread_are_those_of_the_draws() -> None:
    logs = 2.0 + 0.5 * normals(2)
    found = drawn(logs, status_of(2))
    assert found.mean_log == pytest.approx(logs.mean(axis=0), abs=0.02)
    assert np.sqrt(found.variance_log) == pytest.approx(logs.std(axis=0), rel=0.1)


def test_nothing_arrives_before_its_next_score_and_what_arrived_is_known() -> None:
    logs = 2.0 + 0.5 * normals(2)
    status = status_of(2, earliest=np.array([20.0, 0.0]), arrived=np.array([np.inf, 3.0]))
    found = drawn(logs, status)
    assert (np.exp(found.log_seconds[0]) >= 20.0 - 1e-9).all()
    assert np.exp(found.log_seconds[1]) == pytest.approx(np.full(found.log_seconds.shape[1], 3.0))


def test_what_two_have_in_common_is_separate_from_what_each_has_alone() -> None:
    common, own, other = normals(3).T
    found = drawn(np.stack([common, common + 0.1 * own, other], axis=1), status_of(3))
    shared = found.shared_with(0)
    assert shared[0] == 0.0
    assert shared[1] > 0.95
    assert shared[2] < 0.05


def test_less_what_was_trained_the_rest_is_to_go() -> None:
    found = made_prospects([3.0, 3.0], [0.01, 0.01], elapsed={1: 10.0})
    assert found.less(0.0) is found
    left = np.exp(found.less(1.0).mean_log)
    assert left == pytest.approx([math.exp(3.0), math.exp(3.0) - 10.0], rel=0.01)


def test_the_chance_that_any_run_arrives_falls_with_those_that_never_do() -> None:
    """Of ten candidates; a Beta(1/2, 1/2) over the share that never arrives is integrated."""
    reaches = []
    for num_stuck in (0, 2, 8):
        never = dict.fromkeys(range(num_stuck), 0.99)
        stuck = 0.99 * num_stuck
        found = made_prospects([3.0] * 10, [0.3] * 10, elapsed=dict.fromkeys(never, 1.0), never=never)
        chance = (0.5 + stuck) / (1 + num_stuck)
        status = replace(found.status, never_of_others=chance)
        status = replace(status, never=np.where(status.never > 0.9, 0.99, chance))
        shares = beta(stuck + 0.5, 0.5).ppf((np.arange(20_000) + 0.5) / 20_000)
        expected = 1.0 - float((shares ** (10 - num_stuck)).mean()) * 0.99**num_stuck
        reaches.append(reach_of_list(status))
        assert reaches[-1] == pytest.approx(expected, abs=0.01)
    assert reaches == sorted(reaches, reverse=True)


def test_what_two_draws_have_in_common_is_never_more_than_all() -> None:
    draws = normals(64) * np.logspace(-3, 3, 64)
    assert squared_correlation(draws, draws).max() <= 1.0
    assert squared_correlation(draws, 3.0 * draws + 1e3).max() <= 1.0
