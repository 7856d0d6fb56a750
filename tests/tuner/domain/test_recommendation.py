from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from search_spaces import Configuration
from tuner.domain.recommendation import (
    SCHEMA_VERSION,
    Alternative,
    Estimate,
    Recommendation,
    TuningCost,
    Verification,
)

STUDY_OF_REVISION_1 = Path(__file__).resolve().parents[2] / "storage" / "study_of_revision_1"


def _alternative(nodes: int, upper: float = 30.0) -> Alternative:
    return Alternative(
        configuration=Configuration(nodes=nodes, batch_size=64, learning_rate=0.1, strategy="all_reduce"),
        seconds=Estimate(lower=10.0, median=20.0, upper=upper),
        dollars=Estimate(lower=0.1, median=0.2, upper=upper / 100),
        probability_of_reaching=0.9,
        measured_seconds=21.0,
        share_observed=1.0,
    )


def _recommendation(**changes: object) -> Recommendation:
    values: dict[str, object] = {
        "job_name": "digits",
        "study_name": "digits",
        "created_at": 1.75e9,
        "goal": "accuracy >= 0.95, soonest",
        "choice": _alternative(2),
        "runner_up": _alternative(4, upper=math.inf),
        "baseline": None,
        "verified": Verification(
            reached=True,
            training_seconds=21.0,
            dollars=0.2,
            value=0.951,
            predicted=Estimate(lower=9.0, median=19.0, upper=math.inf),
            share_observed=0.2,
        ),
        "provisional": False,
        "evidence": ("one", "two"),
        "warnings": (),
        "stop_reason": "a run reached the target",
        "tuning": TuningCost(
            seconds=60.0,
            dollars=0.5,
            num_probes=3,
            seconds_by_purpose={"timing": 10.0, "statistics": 50.0},
            seconds_by_part={"training": 60.0},
        ),
        "checkpoint": None,
        "command": "python train.py",
    }
    return Recommendation(**{**values, **changes})  # type: ignore[arg-type]


def test_plain_data_survive_json_and_give_the_recommendation_back() -> None:
    made = _recommendation()
    text = json.dumps(made.to_dict(), allow_nan=False)
    assert Recommendation.from_dict(json.loads(text)) == made


def test_infinite_numbers_are_written_as_null() -> None:
    data = _recommendation().to_dict()
    assert data["runner_up"]["seconds"] == {"lower": 10.0, "median": 20.0, "upper": None}
    assert data["verified"]["predicted"]["upper"] is None


def test_plain_data_keep_every_axis_in_the_order_shown() -> None:
    data = _recommendation().to_dict()
    axes = {"nodes": 2, "batch_size": 64, "learning_rate": 0.1, "strategy": "all_reduce"}
    assert data["choice"]["configuration"] == axes
    assert list(data["choice"]["configuration"]) == list(axes)


def test_what_is_absent_is_null_and_comes_back_as_none() -> None:
    made = _recommendation(runner_up=None, verified=None)
    data = made.to_dict()
    assert data["runner_up"] is None
    assert data["baseline"] is None
    assert data["verified"] is None
    assert Recommendation.from_dict(data) == made


def test_data_of_an_unknown_major_version_are_refused() -> None:
    data = {**_recommendation().to_dict(), "schema_version": "3.0"}
    with pytest.raises(ValueError, match=rf"version 3\.0.*reads only versions up to {SCHEMA_VERSION}"):
        Recommendation.from_dict(data)


def test_a_file_of_version_1_is_read() -> None:
    old = json.loads((STUDY_OF_REVISION_1 / "recommendation.json").read_text())
    assert (old["schema_version"], old["choice"]["samples_known"]) == ("1.7", 6752)
    answer = Recommendation.from_dict(old)
    assert answer.schema_version == SCHEMA_VERSION
    assert answer.choice.samples_observed == 6752
    assert answer.verified is not None
    assert answer.verified.first_score_seconds == old["verified"]["score_seconds"]
    assert answer.stop_reason == old["stopped_because"]
    assert Recommendation.from_dict(answer.to_dict()) == answer


def test_every_key_that_version_1_called_otherwise_is_renamed() -> None:
    trainings = {"configuration": {"words": 1}, "trainings": [], "median_seconds": None}
    numbers = dict.fromkeys(("lower", "upper", "at_least", "at_most", "price_ratio"))
    comparison = {**numbers, "uses_seed": True, "num_unfinished": 0, "seconds": 1.0, "dollars": 0.0}
    old = json.loads((STUDY_OF_REVISION_1 / "recommendation.json").read_text())
    outlook = {
        **{name: {"lower": 1.0, "median": 2.0, "upper": None} for name in ("batch_seconds", "samples")},
        **{"seconds": old["choice"]["seconds"], "share_known": 0.5, "waits_for_slowest": True},
        **{"configuration": {"words": "few", "strategy": "all_reduce"}, "words": "faster"},
    }
    old["strategies"] = [outlook]
    old["confirmation"] = {
        **{"recommended": trainings, "present": trainings},
        **{"speed_up": None, "difference_shown": None, **comparison},
    }
    answer = Recommendation.from_dict(old)
    assert answer.strategies[0].comparison == "faster"
    assert answer.strategies[0].configuration["words"] == "few"
    assert answer.strategies[0].samples.upper == math.inf
    assert answer.confirmation is not None
    assert answer.confirmation.baseline.configuration["words"] == 1
    assert answer.confirmation.is_significant is None
