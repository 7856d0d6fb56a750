"""`predict`: what stored measurements say about one configuration, inside and outside the space."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces import Configuration
from storage import Storage, open_storage
from tests.tuner.search.synthetic import Law
from tests.tuner.service.desk import Desk, FailingProber, small_job
from tuner.advice import prediction
from tuner.advice.prediction import Prediction, _limits
from tuner.domain.errors import InfeasibleError, JobError, ProbeError
from tuner.service import opening
from tuner.service.predicting import StudyForecasts, predict_configuration
from tuner.service.prediction_views import prediction_data, prediction_rows


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A study whose search has ended; tests only read it."""
    folder = tmp_path_factory.mktemp("predict")
    with open_storage(f"sqlite:///{folder / 'paceline.db'}") as store:
        desk = Desk(folder, store, job=small_job(cluster={"nodes": [1, 2], "dollars_per_node_hour": 3.6}))
        desk.run()
        yield desk


@pytest.fixture
def _no_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a Workload imports torch, which takes seconds."""

    def refuse(*_: object) -> None:
        raise AssertionError("the workload was loaded")

    monkeypatch.setattr(opening, "load_workload", refuse)


def asked(desk: Desk, **values: float | int | str) -> Prediction:
    return predict_configuration(desk.opened, desk.store, values)[0]


@pytest.mark.usefixtures("_no_workload")
def test_missing_values_are_those_of_the_recommendation(tuned: Desk) -> None:
    study = tuned.store.ledger.studies()[-1]
    recommended = tuned.store.ledger.recommendations(study.study_id)[-1].recommendation["choice"]
    prediction, following = predict_configuration(tuned.opened, tuned.store, {})
    assert prediction.forecast.configuration.as_dict() == recommended["configuration"]
    assert prediction.forecast.seconds.median == pytest.approx(recommended["seconds"]["median"])
    assert following.startswith("paceline train ")
    changed = asked(tuned, learning_rate=0.02)
    assert changed.forecast.configuration.as_dict() == {**recommended["configuration"], "learning_rate": 0.02}


def test_the_interval_of_an_untrained_configuration_holds_the_law(tuned: Desk) -> None:
    prediction = asked(tuned, batch_size=128, learning_rate=0.15, nodes=2)
    truth = tuned.law.seconds_to_target(prediction.forecast.configuration)
    seconds = prediction.forecast.seconds
    assert seconds.lower < truth < seconds.upper
    assert prediction.forecast.dollars is not None
    assert prediction.forecast.dollars.median == pytest.approx(2 * 3.6 / 3600 * seconds.median)


def test_a_chance_is_given_for_every_limit_of_the_job(tuned: Desk) -> None:
    job = small_job(
        cluster={"nodes": [1, 2], "dollars_per_node_hour": 3.6},
        budget={"time": "20m", "dollars": 5.0, "node_hours": 1.0},
        goal={"deadline": "1s", "max_dollars": 0.001},
    )
    opened = replace(tuned.opened, job=job)
    prediction, _ = predict_configuration(opened, tuned.store, {})
    assert prediction.chances == {
        "the deadline of 1 s": 0.05,
        "the goal's $0.001": 0.05,
        "the budget of 20m 00s": 0.95,
        "the budget of $5.00": 0.95,
        "the budget of 1 node hours": 0.95,
    }


def test_the_chances_of_a_trained_configuration_fit_its_interval(tuned: Desk) -> None:
    forecast = asked(tuned).forecast
    assert forecast.measured_seconds is not None
    seconds, chances = forecast.seconds, []
    for limit in (0.98 * seconds.lower, seconds.median, 1.02 * seconds.upper):
        opened = replace(tuned.opened, job=small_job(cluster={"nodes": [1, 2]}, goal={"deadline": limit}))
        prediction, _ = predict_configuration(opened, tuned.store, {})
        chances.append(next(iter(prediction.chances.values())))
    assert chances[0] < 0.08
    assert 0.4 < chances[1] < 0.6
    assert chances[2] > 0.92


def test_the_chance_within_the_budget_counts_start_up(tuned: Desk) -> None:
    study = tuned.store.ledger.studies()[-1]
    state = StudyForecasts(tuned.opened, tuned.store.ledger, study).state
    job = small_job(budget={"time": 10.0})
    limited = replace(state, job=job)
    vars(limited)["startup_seconds"] = 8.0
    ((_, seconds),) = _limits(limited, state.probes[0].configuration)
    assert seconds == pytest.approx(2.0 / limited.overhead)


def test_the_budget_does_not_limit_a_training_on_emulated_nodes(tuned: Desk) -> None:
    machine = {"fixed_seconds": "1ms", "seconds_per_sample": "1ms", "latency": "100us", "bandwidth": "1GB/s"}
    job = small_job(
        cluster={"nodes": [1, 2], "dollars_per_node_hour": 3.6, "machine": machine},
        probe={"kind": "emulated"},
        budget={"time": "20m", "dollars": 5.0, "node_hours": 1.0},
        goal={"deadline": "1s"},
    )
    prediction, _ = predict_configuration(replace(tuned.opened, job=job), tuned.store, {})
    assert list(prediction.chances) == ["the deadline of 1 s"]


def test_the_scatter_of_measured_times_widens_the_interval_of_an_untrained_configuration(
    tuned: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"batch_size": 128, "learning_rate": 0.15, "nodes": 2}
    before = asked(tuned, **values).forecast.seconds
    # Half of the measured trainings took four times as long as predicted.
    monkeypatch.setattr(prediction, "time_ratios", lambda *_: [(90.0, 1.0), (90.0, 4.0)] * 3)
    after = asked(tuned, **values).forecast.seconds
    assert after.upper > 2.5 * before.upper
    assert after.lower == pytest.approx(before.lower, rel=0.3)
    monkeypatch.setattr(prediction, "time_ratios", lambda *_: [(90.0, 4.0)] * 4)
    assert asked(tuned, **values).forecast.seconds == before


def test_runs_of_a_law_take_as_long_as_predicted(tuned: Desk) -> None:
    ending = StudyForecasts(tuned.opened, tuned.store.ledger, tuned.store.ledger.studies()[-1]).ending(())
    ratios = prediction.time_ratios(ending.state, ending.beliefs)
    arrived = [run for run in ending.state.runs.values() if run.arrived]
    assert len(ratios) == len(arrived) > 0
    assert [seconds * ratio for seconds, ratio in ratios] == pytest.approx(
        [run.seconds_to_target for run in arrived]
    )
    assert [ratio for _, ratio in ratios] == pytest.approx([1.0] * len(ratios), rel=0.15)


def test_values_beyond_what_was_measured_are_named_and_widen_the_interval(tuned: Desk) -> None:
    near, far = asked(tuned), asked(tuned, nodes=64, batch_size=65_536)
    words = " ".join(far.evidence)
    assert "nodes 64 is 32 times the largest measured value, 2" in words
    assert "batch size 65,536 is" in words
    assert "nodes = 64 is outside the search space" in " ".join(far.remarks)
    assert near.remarks == ()
    assert not any(line.startswith("Not given") for line in near.evidence)
    assert "Not given, so as in the recommendation: learning rate, strategy." in far.evidence
    assert far.remarks[0].startswith("The interval is wide (")
    assert "All its values are within what was measured." in near.evidence
    ratio = far.forecast.seconds.upper / far.forecast.seconds.lower
    assert ratio > 3 * near.forecast.seconds.upper / near.forecast.seconds.lower


def test_a_strategy_that_was_not_measured_gets_its_default_knobs_and_a_remark(tuned: Desk) -> None:
    prediction = asked(tuned, strategy="local_sgd", nodes=2, batch_size=64)
    assert prediction.forecast.configuration["tau"] >= 1
    assert "No run with local_sgd was measured" in " ".join(prediction.evidence)
    assert asked(tuned, strategy="local_sgd", tau=4, nodes=2).forecast.configuration["tau"] == 4


def test_on_one_rank_strategies_that_only_exchange_are_the_same_training(tuned: Desk) -> None:
    same, plain = asked(tuned, strategy="local_sgd", nodes=1), asked(tuned, nodes=1)
    assert same.forecast == plain.forecast
    assert (
        same.remarks[0] == "On one rank, local_sgd trains as all_reduce does, because nothing is exchanged."
    )
    assert asked(tuned, strategy="diloco", nodes=1).forecast.configuration.strategy == "diloco"


def test_one_node_says_that_it_drops_the_strategy_of_the_recommendation(
    tuned: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gossip = Configuration(nodes=2, batch_size=64, learning_rate=0.03, strategy="gossip_pull", tau=1)
    monkeypatch.setattr(StudyForecasts, "recommended", lambda _forecasts: gossip)
    found = asked(tuned, nodes=1)
    assert found.forecast.configuration.strategy == "all_reduce"
    assert found.remarks[0].startswith("On one rank, gossip_pull trains as all_reduce does")
    assert "Not given, so as in the recommendation: batch size, learning rate." in found.evidence


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nodes": 2, "batch_size": 1}, "batch_size 1 leaves some of 2 ranks without a sample"),
        ({"strategy": "gossip"}, "unknown strategy 'gossip'; known are all_reduce"),
        ({"learning_rat": 0.1}, "unknown key 'learning_rat'; did you mean 'learning_rate'"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0: should be greater than 0"),
        ({"nodes": 0}, "nodes = 0"),
        ({"batch_size": "many"}, "batch_size = 'many'"),
        ({"tau": 3}, "tau is not a knob of all_reduce"),
    ],
)
def test_impossible_values_are_refused_with_what_is_allowed(
    tuned: Desk, values: dict[str, float | int | str], words: str
) -> None:
    with pytest.raises(JobError, match=words):
        predict_configuration(tuned.opened, tuned.store, values)


def test_rows_and_json_say_the_same_and_end_with_a_command(tuned: Desk) -> None:
    prediction, following = predict_configuration(tuned.opened, tuned.store, {"learning_rate": 0.02})
    rows = prediction_rows(prediction, following)
    assert rows[-1]["value"].startswith("paceline compare ")
    assert "90% interval" in next(r["value"] for r in rows if r["name"] == "predicted time to target")
    data = json.loads(json.dumps(prediction_data(prediction, following), allow_nan=False))
    assert data["seconds"]["lower"] < data["seconds"]["median"] < data["seconds"]["upper"]
    assert data["configuration"]["learning_rate"] == 0.02
    assert data["next"] == following


def test_nothing_is_predicted_before_a_score_was_read(tmp_path: Path, store: Storage) -> None:
    failed = Desk(tmp_path, store, kind=FailingProber)
    with pytest.raises(ProbeError):
        failed.run()
    with pytest.raises(ProbeError, match=r"no score was read in study job yet.*own words.*paceline run"):
        predict_configuration(failed.opened, store, {})


def test_an_empty_study_names_the_command_that_measures(tmp_path: Path, store: Storage) -> None:
    desk = Desk(tmp_path, store, law=Law())
    with pytest.raises(JobError, match="there is no study of this job here yet"):
        predict_configuration(desk.opened, store, {})
    store.ledger.open_study(desk.job.name, "f", desk.job.published())
    with pytest.raises(InfeasibleError, match=r"no score was read in study job yet.*paceline run"):
        predict_configuration(desk.opened, store, {})
