"""How predictions of runs that were not probed are judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.predictions import row_of, summary
from benchmarks.predictions_recorded import check_recording
from benchmarks.replay_problem import problem
from search_spaces import Configuration
from tests.recorded_grid import write_grid
from tuner.advice.prediction import Prediction
from tuner.domain.recommendation import Alternative, Estimate


def prediction(lower: float, upper: float) -> Prediction:
    forecast = Alternative(
        configuration=Configuration(nodes=1),
        seconds=Estimate(lower=lower, median=(lower * upper) ** 0.5, upper=upper),
        dollars=None,
        probability_of_reaching=0.9,
    )
    return Prediction(
        study_name="s",
        goal="g",
        forecast=forecast,
        chances={},
        startup_seconds=None,
        evidence=(),
        remarks=(),
    )


@pytest.mark.parametrize(
    ("measured", "inside"), [(1.9, False), (2.0, True), (8.0, True), (8.1, False), (None, False)]
)
def test_an_interval_holds_the_time_between_its_ends(measured: float | None, inside: bool) -> None:
    row = row_of(prediction(2.0, 8.0), measured, 15.0)
    assert row["inside"] is inside
    assert row["width"] == 4.0


def test_a_training_that_reached_the_cap_is_inside_if_the_interval_ends_later() -> None:
    rows = [row_of(prediction(2.0, 16.0), None, 15.0), row_of(prediction(2.0, 8.0), None, 15.0)]
    assert summary(rows) == {"predictions": 2, "inside": 1, "censored": 2, "median_width": 6.0}


@pytest.mark.slow
def test_recorded_runs_that_were_not_probed_are_predicted(tmp_path: Path) -> None:
    path = tmp_path / "grid.jsonl.gz"
    write_grid(path, prices=False)
    posed = problem(path, "seconds", 1)
    rows = check_recording(posed, 0)
    assert rows
    assert all(row["lower"] < row["upper"] for row in rows)
