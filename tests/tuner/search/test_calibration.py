"""Forecasts that were too sure make later ones wider, and only those of the same kind of job."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Configuration
from tests.levels import examples
from tests.tuner.search.scripted import small_world
from tuner.analytic.laws import NINETY_PERCENT
from tuner.analytic.predictor import Forecast
from tuner.domain.ledger import FitRecord, PredictedAgainstMeasured, PredictionRecord
from tuner.search.calibration import (
    NO_CALIBRATION,
    Calibration,
    calibration_record,
    kind_of,
    learnt_calibration,
)

ONE = Configuration(nodes=1)


def forecast_of(total: np.ndarray, never: np.ndarray | None = None) -> Forecast:
    num = total.shape[1]
    return Forecast(
        configurations=tuple(Configuration(nodes=i + 1) for i in range(num)),
        log_seconds=np.log(total),
        log_samples=np.log(total),
        never=never if never is not None else np.zeros(total.shape, dtype=bool),
        log_speed=np.zeros(total.shape),
        seconds_per_sample=np.ones(num),
        log_seconds_sd=np.zeros(num),
    )


def checked(
    measured: float, *, sd: float = 0.5, share: float = 0.1, nodes: int = 1
) -> PredictedAgainstMeasured:
    """A prediction of 100 s with an interval of this spread, and what was measured."""
    half = NINETY_PERCENT * sd
    prediction = PredictionRecord(
        study_id=1,
        configuration=Configuration(nodes=nodes),
        created_at=0.0,
        quantiles={0.05: 100 * math.exp(-half), 0.5: 100.0, 0.95: 100 * math.exp(half)},
        dollars={0.05: 0.0, 0.5: 0.0, 0.95: 0.0},
        probability_of_reaching=1.0,
        num_slices=3,
        seconds_observed=0.0,
    )
    return PredictedAgainstMeasured(prediction=prediction, measured_seconds=measured, share_observed=share)


def recorded(tmp_path: Path, *found: PredictedAgainstMeasured) -> FitRecord | None:
    world = small_world(tmp_path)
    return calibration_record(world.study, world.state(), found, now=5.0)


def test_without_anything_measured_nothing_is_stretched() -> None:
    forecast = forecast_of(np.exp(np.random.default_rng(0).standard_normal((256, 3))))
    assert NO_CALIBRATION.scale == 1.0
    assert NO_CALIBRATION.stretched(forecast, np.zeros(3)) is forecast
    assert learnt_calibration([], "workload") == NO_CALIBRATION


@examples(30)
@given(sum_squared=st.floats(0.0, 400.0), num_runs=st.integers(1, 40))
def test_a_stretched_forecast_keeps_its_median_and_what_has_passed(sum_squared: float, num_runs: int) -> None:
    calibration = Calibration(num_runs=num_runs, sum_squared=sum_squared)
    total = 10.0 + np.exp(np.random.default_rng(1).standard_normal((257, 2)))
    never = np.zeros(total.shape, dtype=bool)
    never[:40, 1] = True
    found = calibration.stretched(forecast_of(total, never), np.full(2, 10.0))
    assert 0.6 <= calibration.scale <= 3.0
    np.testing.assert_allclose(np.median(found.total[:, 0]), np.median(total[:, 0]))
    assert (found.total > 10.0).all()
    assert np.isinf(found.total[:40, 1]).all()
    spreads = [np.std(np.log(f[:, 0])) for f in (found.total - 10.0, total - 10.0)]
    assert spreads[0] == pytest.approx(calibration.scale * spreads[1])


def test_runs_that_have_arrived_stay_as_they_were_measured() -> None:
    forecast = forecast_of(np.full((256, 1), 7.0))
    calibration = Calibration(num_runs=9, sum_squared=90.0)
    assert calibration.stretched(forecast, np.array([7.0])).total == pytest.approx(7.0)


def test_a_study_stores_its_mean_squared_error_each_run_once(tmp_path: Path) -> None:
    exact, one_sd, two_sd = (100 * math.exp(0.5 * z) for z in (0.0, 1.0, -2.0))
    record = recorded(
        tmp_path,
        checked(exact, nodes=1),
        checked(one_sd, nodes=2),
        checked(one_sd, nodes=2),
        checked(two_sd, nodes=4),
        checked(1e9, nodes=8, share=0.5),  # made late
    )
    assert record is not None
    assert (record.model, record.num_slices, record.summary["kind"]) == ("calibration", 3, "workload")
    assert record.parameters["mean squared error"][0] == pytest.approx((0.0 + 1.0 + 4.0) / 3)


def test_what_has_no_finite_interval_or_comes_late_says_nothing(tmp_path: Path) -> None:
    endless = checked(300.0)
    quantiles = {**endless.prediction.quantiles, 0.95: math.inf}
    endless = replace(endless, prediction=replace(endless.prediction, quantiles=quantiles))
    assert recorded(tmp_path, endless, checked(100.0, share=0.9)) is None


def test_studies_of_the_same_kind_are_summed(tmp_path: Path) -> None:
    wrong = recorded(tmp_path, *(checked(100 * math.exp(1.5), nodes=n) for n in (1, 2, 4)))
    assert wrong is not None
    other = replace(wrong, study_id=2, summary={"kind": "command"})
    found = learnt_calibration([wrong, replace(wrong, study_id=3), other], "workload")
    assert found == Calibration(num_runs=6, sum_squared=pytest.approx(54.0))
    assert found.scale > 1.5
    assert learnt_calibration([wrong], "recorded") == NO_CALIBRATION


def test_a_job_that_trains_a_workload_is_of_that_kind(tmp_path: Path) -> None:
    assert kind_of(small_world(tmp_path).job) == "workload"


def test_studies_that_are_stretched_learn_the_whole_error(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    rng, stored = np.random.default_rng(0), []
    for _ in range(100):
        applied = learnt_calibration(stored, "workload")
        # Intervals say 0.25 where the error is 0.5, before they are stretched by what was learnt.
        found = [
            checked(100 * math.exp(0.5 * rng.standard_normal()), sd=0.25 * applied.scale, nodes=n)
            for n in (1, 2, 4)
        ]
        record = calibration_record(world.study, world.state(), found, now=5.0, applied=applied)
        assert record is not None
        stored.append(record)
    assert learnt_calibration(stored, "workload").scale == pytest.approx(2.0, rel=0.15)
