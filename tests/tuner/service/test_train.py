from __future__ import annotations

from typing import Any

import paceline_client
import pytest

from search_spaces import Configuration
from tests.tuner.search.synthetic import Law
from tests.tuner.service.desk import Desk, FailingProber
from tuner.domain.errors import InfeasibleError, JobError, ProbeError
from tuner.domain.measurement import Purpose
from tuner.search.state import SearchState, run_of
from tuner.service.reporting import not_arrived
from tuner.service.training import train_configuration

OUTSIDE = Configuration(nodes=2, batch_size=48, learning_rate=0.0777, strategy="all_reduce")


def train(desk: Desk, configuration: Configuration = OUTSIDE, **more: Any) -> SearchState:
    return train_configuration(
        desk.opened, desk.store, configuration, desk.folder / "out", make_prober=desk.make_prober, **more
    )


def test_a_configuration_outside_of_the_space_is_trained_and_nothing_else(desk: Desk) -> None:
    assert not desk.job.search_space().is_feasible(OUTSIDE)
    run = run_of(train(desk), OUTSIDE)
    assert run is not None
    assert run.arrived
    assert set(desk.probers[0].started) == {(OUTSIDE, Purpose.TRAINING)}
    assert desk.store.ledger.studies()[-1].name == "job.train"


def test_a_training_goes_on_where_it_was_and_costs_nothing_once_it_arrived(desk: Desk) -> None:
    first = train(desk, limit_seconds=15.0)
    seen = run_of(first, OUTSIDE)
    assert seen is not None
    assert not seen.arrived
    done = run_of(train(desk), OUTSIDE)
    assert done is not None
    assert done.arrived
    assert desk.probers[1].resumed_at_steps[0] == seen.measurement.step
    train(desk)
    assert desk.probers[2].started == []


def test_a_training_reports_its_real_time_to_the_server_of_its_launch_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setenv("PACELINE_REPORT_TO", "https://paceline.example.org/api/v1/outcomes?study=7")
    monkeypatch.setattr(paceline_client, "send_outcome", lambda place, body: sent.append((place, body)))
    warnings: list[str] = []
    train(desk, limit_seconds=15.0, listen=lambda event: warnings.append(event.text))
    assert "PACELINE_TOKEN is not set" in warnings[-1]
    monkeypatch.setenv("PACELINE_TOKEN", "t")
    train(desk, limit_seconds=15.0)
    seen = run_of(train(desk), OUTSIDE)
    assert seen is not None
    assert [body["reached"] for _, body in sent] == [False, True]
    assert sent[1] == (
        "https://paceline.example.org/api/v1/outcomes?study=7",
        {
            "seconds": seen.seconds_to_target,
            "reached": True,
            "values": dict(OUTSIDE),
            "source": "paceline train",
        },
    )


def test_a_report_that_fails_is_a_warning(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_REPORT_TO", "http://127.0.0.1:1/api/v1/outcomes?study=7")
    monkeypatch.setenv("PACELINE_TOKEN", "t")
    warnings: list[str] = []
    train(desk, listen=lambda event: warnings.append(event.text))
    assert "the time to target was not reported" in warnings[-1]


@pytest.mark.slow
def test_a_search_and_a_training_stay_separate(desk: Desk) -> None:
    train(desk)
    searched = desk.run()
    assert searched.study.name == "job"
    assert searched.recommendation.tuning.num_probes == len(desk.probes())
    assert desk.probers[1].started[0][0] == desk.job.baseline_configuration()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nodes": 3}, "nodes = 3: cluster.nodes allows up to 2"),
        ({"batch_size": 1}, "batch_size 1 leaves some of 2 ranks without a sample"),
        ({"strategy": "gossip"}, "strategy = 'gossip': unknown strategy"),
        ({"learning_rate": -0.1}, "learning_rate = -0.1: should be greater than 0"),
    ],
)
def test_what_cannot_be_trained_is_refused(desk: Desk, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(JobError, match=words):
        train(desk, OUTSIDE.replaced(**changes))
    assert desk.probers == []


def test_a_failed_training_says_what_failed(desk: Desk) -> None:
    desk.kind = FailingProber
    error = not_arrived(OUTSIDE, train(desk))
    assert isinstance(error, ProbeError)
    assert "ArithmeticError: the workload's own words" in str(error)


def test_a_training_that_diverges_does_not_reach_the_target(desk: Desk) -> None:
    desk.law = Law(edge_rate=0.01)
    error = not_arrived(OUTSIDE, train(desk))
    assert isinstance(error, InfeasibleError)
    assert "it ended as diverged after" in str(error)


def test_a_training_that_does_not_fit_in_memory_says_so(desk: Desk) -> None:
    desk.law = Law(memory_samples=10)
    assert "a rank ran out of memory" in str(not_arrived(OUTSIDE, train(desk)))
