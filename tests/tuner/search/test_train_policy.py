from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import World, configuration, make_job
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.search.policy import Continue, Start, Stop, StopKind
from tuner.search.train_policy import TrainPolicy

HERE = configuration(1, 64, 0.08)
LAW = Law(samples=3e4, seconds_per_sample=1e-3)


def make_world(folder: Path, law: Law = LAW, **sections: Any) -> World:
    return World(folder, job=make_job(**sections), law=replace(law))


def test_it_trains_nothing_else(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    stop = world.search(TrainPolicy(HERE)).run().stop
    assert stop.kind is StopKind.ARRIVED
    assert set(world.prober.started) == {(HERE, Purpose.TRAINING)}
    assert len(world.probes()) == 1


def test_it_resumes_what_was_started(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.ran(HERE, 5.0)
    action = TrainPolicy(HERE).decide(world.state()).action
    assert isinstance(action, Continue)
    assert (action.probe_id, action.until.training_seconds) == (1, pytest.approx(15.0, abs=0.1))


def test_a_run_started_on_other_nodes_is_resumed_there(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.ran(HERE.replaced(nodes=2), 6.0)
    world.ran(HERE, 1.0, purpose=Purpose.TIMING)
    decision = TrainPolicy(HERE).decide(world.state())
    assert isinstance(decision.action, Start)
    assert decision.action.resume_from == 1
    # Half a belief is none: only the ratio of step times is needed, and nothing else is stored.
    assert decision.beliefs is None
    stop = world.search(TrainPolicy(HERE)).run().stop
    assert stop.kind is StopKind.ARRIVED
    samples = [m.samples for m in world.probes()[-1].slices]
    assert samples[0] == world.probes()[0].slices[-1].samples


def test_a_script_that_starts_slowly_is_seldom_started_again(tmp_path: Path) -> None:
    state = make_world(tmp_path).state()
    terms = replace(state.terms, reuses_ranks=False, startup_seconds=30.0)
    vars(state)["terms"] = terms
    action = TrainPolicy(HERE).decide(state).action
    assert isinstance(action, Start)
    assert action.until.training_seconds == pytest.approx(150.0)
    limited = TrainPolicy(HERE, limit_seconds=100.0).decide(state).action
    assert isinstance(limited, Start)
    assert limited.until.training_seconds == pytest.approx(100.0)
    # Ranks that are reused by later slices start at once.
    warm = make_world(tmp_path / "warm").state()
    vars(warm)["terms"] = replace(terms, reuses_ranks=True)
    action = TrainPolicy(HERE).decide(warm).action
    assert isinstance(action, Start)
    assert action.until.training_seconds == pytest.approx(10.0)


def test_step_chunks_are_a_fifth_of_what_is_expected(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    action = TrainPolicy(HERE, expected_seconds=400.0).decide(world.state()).action
    assert isinstance(action, Start)
    assert action.until.training_seconds == pytest.approx(80.0)


@pytest.mark.parametrize(
    ("policy", "most_seconds"),
    [
        (TrainPolicy(configuration(1, 64, 1e-4), expected_seconds=20.0), 80.0),
        (TrainPolicy(configuration(1, 64, 1e-4), limit_seconds=35.0), 35.0),
    ],
)
def test_what_takes_far_longer_than_expected_is_given_up(
    tmp_path: Path, policy: TrainPolicy, most_seconds: float
) -> None:
    world = make_world(tmp_path)
    stop = world.search(policy).run().stop
    assert stop.kind is StopKind.UNREACHABLE
    assert "it has not reached the target after" in stop.reason
    assert world.state().slices[-1].training_seconds == pytest.approx(most_seconds, abs=10.5)


def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    world = make_world(tmp_path, replace(LAW, edge_rate=0.05))
    stop = world.search(TrainPolicy(HERE)).run().stop
    assert stop == Stop(kind=StopKind.UNREACHABLE, reason="the training ended: diverged")


def test_a_training_that_does_not_fit_memory_says_so_and_is_not_tried_again(tmp_path: Path) -> None:
    world = make_world(tmp_path, replace(LAW, memory_samples=32))
    stop = world.search(TrainPolicy(HERE)).run().stop
    assert stop == Stop(kind=StopKind.UNREACHABLE, reason="the training ran out of memory")
    assert len(world.probes()) == 1


def failed(rate: float) -> Measurement:
    return Measurement(
        configuration=configuration(1, 64, rate),
        purpose=Purpose.STATISTICS,
        outcome=Outcome.FAILED,
        error="rank 0: no",
    )


def test_a_probe_that_failed_before_does_not_keep_it_from_training(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.keep(failed(0.3))
    stop = world.search(TrainPolicy(HERE)).run().stop
    assert stop.kind is StopKind.ARRIVED


def test_its_own_first_fault_ends_it(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    policy = TrainPolicy(HERE)
    assert isinstance(policy.decide(world.state()).action, Start)
    world.keep(failed(0.08))
    assert policy.decide(world.state()).action == Stop(kind=StopKind.FAULTS, reason="the training failed")
    # Asked again, as by another run of the command, it tries again.
    assert isinstance(TrainPolicy(HERE).decide(world.state()).action, Start)
