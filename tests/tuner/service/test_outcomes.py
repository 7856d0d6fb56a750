"""The real time to target of a recommendation changes the intervals of later studies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_spaces import Configuration
from storage import open_storage
from storage.database import Storage
from tuner.analytic.laws import NINETY_PERCENT
from tuner.domain.ledger import PredictionRecord, RecommendationRecord, StudyRecord
from tuner.domain.recommendation import Alternative, Estimate, Recommendation, TuningCost
from tuner.search.calibration import learnt_calibration
from tuner.service.outcomes import NewOutcome, OutcomeError, add_outcome, compared_outcomes

CHOICE = Configuration(nodes=1, batch_size=64, learning_rate=0.1, strategy="all_reduce")
OTHER = Configuration({**CHOICE, "batch_size": 128})


@pytest.fixture
def store(database_url: str) -> Iterator[Storage]:
    with open_storage(database_url) as store:
        yield store


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def study(store: Storage) -> StudyRecord:
    job = {"workload": {"command": "python train.py"}, "probe": {"recording": None}}
    study = store.ledger.open_study("digits", "f", job)
    choice = Alternative(
        configuration=CHOICE,
        seconds=Estimate(lower=50.0, median=100.0, upper=200.0),
        dollars=None,
        probability_of_reaching=0.9,
    )
    tuning = TuningCost(seconds=10.0, dollars=0.0, num_probes=1, seconds_by_purpose={}, seconds_by_part={})
    made = Recommendation(
        job_name="digits",
        study_name=study.name,
        created_at=1.0,
        goal="accuracy >= 0.9, soonest",
        choice=choice,
        runner_up=None,
        baseline=None,
        verified=None,
        provisional=False,
        evidence=(),
        warnings=(),
        stop_reason="",
        tuning=tuning,
        checkpoint=None,
        command="",
    )
    store.ledger.add_recommendation(
        RecommendationRecord(study_id=study.study_id, created_at=1.0, recommendation=made.to_dict())
    )
    return study


def calibration_of_the_next_study(store: Storage, kind: str = "command"):  # type: ignore[no-untyped-def]
    return learnt_calibration(store.ledger.past_fits("another"), kind)


def test_an_outcome_far_from_its_forecast_widens_the_intervals_of_later_studies(
    store: Storage, study: StudyRecord
) -> None:
    assert calibration_of_the_next_study(store).scale == 1.0
    stored = add_outcome(store, study, NewOutcome(seconds=800.0))
    assert stored.words == "predicted 1m 40s (50 s to 3m 20s), real 13m 20s (paceline outcome add)"
    found = calibration_of_the_next_study(store)
    sd = math.log(2.0) / NINETY_PERCENT
    assert found.num_runs == 1
    assert found.sum_squared == pytest.approx(min((math.log(8.0) / sd) ** 2, 25.0))
    assert found.scale > 1.5
    assert calibration_of_the_next_study(store, "workload").scale == 1.0


def test_the_smallest_possible_time_is_only_a_large_error(store: Storage, study: StudyRecord) -> None:
    add_outcome(store, study, NewOutcome(seconds=5e-324))
    assert calibration_of_the_next_study(store).sum_squared == 25.0


def test_outcomes_near_their_forecasts_narrow_the_intervals(store: Storage, study: StudyRecord) -> None:
    for seconds in (98.0, 100.0, 103.0):
        add_outcome(store, study, NewOutcome(seconds=seconds))
    found = calibration_of_the_next_study(store)
    assert (found.num_runs, found.scale < 1.0) == (3, True)


def test_a_repeated_outcome_changes_nothing(store: Storage, study: StudyRecord) -> None:
    first = add_outcome(store, study, NewOutcome(seconds=800.0, key="run-7"))
    calibration = calibration_of_the_next_study(store)
    again = add_outcome(store, study, NewOutcome(seconds=900.0, key="run-7"))
    assert (first.is_new, again.is_new, again.outcome) == (True, False, first.outcome)
    assert calibration_of_the_next_study(store) == calibration
    twin = store.ledger.open_study("digits", "f", study.job, fresh=True)
    store.ledger.add_recommendation(
        RecommendationRecord(
            study_id=twin.study_id,
            created_at=1.0,
            recommendation=store.ledger.recommendations(study.study_id)[0].recommendation,
        )
    )
    assert add_outcome(store, twin, NewOutcome(seconds=900.0, key="run-7")).is_new


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 1e10])
def test_impossible_seconds_are_refused(store: Storage, study: StudyRecord, seconds: float) -> None:
    with pytest.raises(OutcomeError, match="is not possible: give the training seconds to the target"):
        add_outcome(store, study, NewOutcome(seconds=seconds))
    assert compared_outcomes(store, study) == []


@pytest.mark.parametrize(("seconds", "num_runs"), [(150.0, 0), (500.0, 1)])
def test_a_training_that_did_not_arrive_counts_only_beyond_the_interval(
    store: Storage, study: StudyRecord, seconds: float, num_runs: int
) -> None:
    stored = add_outcome(store, study, NewOutcome(seconds=seconds, reached=False))
    assert "real not reached in" in stored.words
    assert calibration_of_the_next_study(store).num_runs == num_runs


def test_other_values_are_compared_with_their_own_forecast(store: Storage, study: StudyRecord) -> None:
    unknown = add_outcome(store, study, NewOutcome(seconds=100.0, values={"batch_size": 128}))
    assert (unknown.outcome.configuration, unknown.predicted) == (OTHER, None)
    assert calibration_of_the_next_study(store).num_runs == 0
    store.ledger.add_predictions(
        [
            PredictionRecord(
                study_id=study.study_id,
                configuration=OTHER,
                created_at=1.0,
                quantiles={0.05: 60.0, 0.5: 120.0, 0.95: 240.0},
                dollars={},
                probability_of_reaching=0.9,
                num_slices=1,
                seconds_observed=0.0,
            )
        ]
    )
    known = add_outcome(store, study, NewOutcome(seconds=110.0, values={"batch_size": 128}))
    assert known.predicted == Estimate(lower=60.0, median=120.0, upper=240.0)
    assert calibration_of_the_next_study(store).num_runs == 2
    with pytest.raises(OutcomeError, match="'batch' is not a value of this study's configurations"):
        add_outcome(store, study, NewOutcome(seconds=100.0, values={"batch": 128}))


def test_without_a_recommendation_there_is_nothing_to_compare_with(store: Storage) -> None:
    study = store.ledger.open_study("other", "f", {})
    with pytest.raises(OutcomeError, match="study other has no recommendation yet"):
        add_outcome(store, study, NewOutcome(seconds=1.0))
