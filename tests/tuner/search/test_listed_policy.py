"""The policy over listed configurations, on a made-up recording: how it starts, decides and ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.replay_beliefs import REVERSED
from benchmarks.replay_problem import Problem
from benchmarks.replay_search import ReplayedSearch, steps
from search_spaces import Configuration
from tests.recorded_grid import STARTUP_SECONDS, configuration, grid, recorded_run
from tuner.domain.measurement import Purpose
from tuner.job import Job
from tuner.job.recorded_job import completed
from tuner.probes import Until
from tuner.recordings.file import write_recording
from tuner.recordings.recording import Recording
from tuner.search.beliefs import log_longest
from tuner.search.believer import Believer
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Action, Continue, Decision, Start, Stop, StopKind
from tuner.search.slope_priors import NEUTRAL, TEXTBOOK, SlopeBeliefs
from tuner.search.state import SearchState

#: So many decisions are more than any of these searches takes.
MOST_DECISIONS = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class Posed(Problem):
    """A problem with a baseline or a budget in its job."""

    more: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def job(self) -> Job:
        stated = {
            "name": "replay",
            "goal": {"minimize": self.goal, "trainings": self.trainings},
            "probe": {"kind": "recorded", "recording": str(self.path)},
            **self.more,
        }
        if self.deadline is not None:
            stated["goal"]["deadline"] = self.deadline
        data, problems = completed(stated, self.path.parent)
        assert not problems
        return Job.model_validate(data)


def small(**more: Any) -> Recording:
    return grid(machines=("small",), **more)


def posed(folder: Path, recording: Recording | None = None, **stated: Any) -> Posed:
    path = folder / "grid.jsonl.gz"
    write_recording(small() if recording is None else recording, path)
    return Posed(path=path, **{"goal": "seconds", "trainings": 1000, "deadline": None, **stated})


def searched(
    problem: Posed, policy: ModelPolicy | None = None, *, most: int = MOST_DECISIONS
) -> list[tuple[SearchState, Decision]]:
    """The states and decisions of a search until it stops, or so many of them."""
    every = steps(ReplayedSearch(problem), policy or ModelPolicy())
    return [(state, decision) for state, decision, _ in itertools.islice(every, most)]


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Posed:
    """Twelve configurations of one machine, whose answer serves many trainings."""
    return posed(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def whole(problem: Posed) -> list[tuple[SearchState, Decision]]:
    """Its search from the first look to the end."""
    return searched(problem, ModelPolicy(Believer(seed=3)))


def stop_of(found: list[tuple[SearchState, Decision]]) -> Stop:
    return cast(Stop, found[-1][1].action)


def known_of(action: Action) -> tuple[object, ...]:
    """What an action does; the words for people are left out."""
    if isinstance(action, Stop):
        return (action.kind,)
    assert isinstance(action, Start | Continue)
    what = action.configuration if isinstance(action, Start) else action.probe_id
    return type(action), what, action.purpose, pytest.approx(action.until.training_seconds or 0.0, rel=1e-6)


def recommended(found: list[tuple[SearchState, Decision]]) -> Configuration:
    beliefs = found[-1][1].beliefs
    assert beliefs is not None
    assert beliefs.recommended is not None
    return beliefs.recommended


@pytest.mark.parametrize(
    ("goal", "prior"),
    [("seconds", TEXTBOOK), ("dollars", NEUTRAL), ("seconds", REVERSED)],
    ids=lambda value: getattr(value, "name", value),
)
def test_for_many_trainings_it_ends_near_the_best_and_says_how_much_may_be_left(
    tmp_path: Path, goal: str, prior: SlopeBeliefs
) -> None:
    plain = grid() if goal == "dollars" else small()
    # Scored every 15% of samples: a run that passed the target since its last scoring does not know it yet,
    # and counts as one that takes longer than it has lived.
    runs = tuple(recorded_run(run.configuration, points=20) for run in plain.runs)
    problem = posed(tmp_path, replace(plain, runs=runs), goal=goal)
    found = searched(problem, ModelPolicy(Believer(seed=1, prior=prior)))
    stop, beliefs = stop_of(found), found[-1][1].beliefs
    assert stop.kind is StopKind.NO_GAIN
    assert problem.regret(recommended(found)) <= 1.2
    assert beliefs is not None
    assert beliefs.regret_bound is not None
    assert beliefs.regret_bound >= problem.regret(recommended(found)) - 0.05
    words = "fast" if goal == "seconds" else "cheap"
    assert stop.reason.endswith(f"is more than {beliefs.regret_bound:.2g} times as {words}")
    # Trying everything out to its end costs more.
    everything = sum(min(s, problem.recording.run(c).seconds) for c, s in problem.seconds.items())
    assert found[-1][0].spent.seconds < everything + STARTUP_SECONDS * len(problem.seconds)


def test_for_one_training_it_ends_at_the_first_arrival(
    tmp_path: Path, whole: list[tuple[SearchState, Decision]]
) -> None:
    found = searched(posed(tmp_path, trainings=1))
    assert stop_of(found).kind is StopKind.ARRIVED
    assert any(run.arrived for run in found[-1][0].runs.values())
    assert not any(run.arrived for state, _ in found[:-1] for run in state.runs.values())
    assert found[-1][0].spent.seconds < whole[-1][0].spent.seconds


def test_it_decides_alike_whatever_the_order_of_rows(problem: Posed, tmp_path: Path) -> None:
    runs = problem.recording.runs
    order = np.random.default_rng(0).permutation(len(runs))
    shuffled = posed(tmp_path, small(runs=tuple(runs[i] for i in order)))
    plain, other = (
        searched(posed_, ModelPolicy(Believer(seed=2)), most=16) for posed_ in (problem, shuffled)
    )
    assert [known_of(d.action) for _, d in plain] == [known_of(d.action) for _, d in other]


def test_a_decision_depends_on_the_state_alone(
    problem: Posed, whole: list[tuple[SearchState, Decision]]
) -> None:
    used = ModelPolicy(Believer(seed=3))
    used.decide(whole[-1][0])
    for state, decision in whole[:: max(1, len(whole) // 8)]:
        for policy in (ModelPolicy(Believer(seed=3)), used):
            again = policy.decide(state)
            assert known_of(again.action) == known_of(decision.action)
            if decision.beliefs is not None:
                assert again.beliefs is not None
                assert again.beliefs.recommended == decision.beliefs.recommended


def test_the_same_seed_probes_alike_first_and_others_elsewhere(problem: Posed) -> None:
    first_actions = [
        [known_of(d.action) for _, d in searched(problem, ModelPolicy(Believer(seed=seed)), most=3)]
        for seed in (0, 0, 1, 2, 3)
    ]
    assert first_actions[0] == first_actions[1]
    assert len({str(action) for action in first_actions}) >= 3


def test_it_starts_with_the_baseline_where_there_is_one(tmp_path: Path) -> None:
    baseline = configuration(nodes=1, batch_size=128, learning_rate=0.03)
    found = searched(posed(tmp_path, more={"baseline": baseline.as_dict()}), most=3)
    action = found[0][1].action
    assert isinstance(action, Start)
    assert action.configuration == baseline
    assert "present settings" in action.reason
    others = [d.action for _, d in found[1:]]
    assert all(isinstance(a, Start) and a.configuration != baseline for a in others)


def test_first_probes_last_about_as_long_as_a_start_up_and_nothing_is_believed_before(
    whole: list[tuple[SearchState, Decision]],
) -> None:
    assert whole[0][1].beliefs is None
    first_actions = [d.action for _, d in whole[:3]]
    assert len({a.configuration for a in first_actions if isinstance(a, Start)}) == 3
    for action in first_actions:
        assert isinstance(action, Start)
        assert action.until.training_seconds == pytest.approx(STARTUP_SECONDS)
    scored = [any(r.measurement.trained_curve for r in state.runs.values()) for state, _ in whole]
    assert [decision.beliefs is not None for _, decision in whole] == scored


def test_no_run_is_started_twice_nor_asked_again_once_it_arrived_or_ended(
    whole: list[tuple[SearchState, Decision]],
) -> None:
    started: list[Configuration] = []
    for state, decision in whole[:-1]:
        action = decision.action
        if isinstance(action, Start):
            started.append(action.configuration)
            continue
        assert isinstance(action, Continue)
        run = state.runs[state.probes[action.probe_id].configuration]
        assert run.is_open
        if action.until.scores is not None:
            assert not run.measurement.trained_curve
            continue
        assert action.until.training_seconds is not None
        assert action.until.training_seconds > run.measurement.training_seconds
    assert len(started) == len(set(started))


@pytest.mark.parametrize(("budget", "unit"), [({"time": 20.0}, "seconds"), ({"dollars": 0.004}, "dollars")])
def test_a_budget_is_exceeded_by_no_more_than_a_start_up(
    tmp_path: Path, budget: dict[str, float], unit: str
) -> None:
    goal = "seconds" if unit == "seconds" else "dollars"
    problem = posed(tmp_path, grid() if unit == "dollars" else None, goal=goal, more={"budget": budget})
    found = searched(problem)
    limit = next(iter(budget.values()))
    spent = getattr(found[-1][0].spent, unit)
    most_expensive = max(map(problem.price, problem.costs)) if unit == "dollars" else 1.0
    assert stop_of(found).kind is StopKind.BUDGET
    assert limit <= spent <= limit + STARTUP_SECONDS * most_expensive + 1e-2
    if found[-1][0].has_scores:
        assert recommended(found) in problem.costs


def test_no_more_probes_are_started_than_the_budget_has(tmp_path: Path) -> None:
    found = searched(posed(tmp_path, more={"budget": {"probes": 4}}))
    assert len(found[-1][0].probes) == 4
    assert stop_of(found).kind in (StopKind.BUDGET, StopKind.NO_GAIN, StopKind.UNREACHABLE)


def test_where_nothing_arrives_it_ends_with_its_budget(tmp_path: Path) -> None:
    never = small(target=0.999)
    found = searched(posed(tmp_path, never, more={"budget": {"time": 40.0}}))
    assert stop_of(found).kind is StopKind.BUDGET
    assert not any(run.arrived for run in found[-1][0].runs.values())


def test_a_list_of_one_is_trained_until_it_arrives(tmp_path: Path) -> None:
    only = small(runs=(small().run(configuration(learning_rate=0.1)),))
    found = searched(posed(tmp_path, only))
    assert stop_of(found).kind is StopKind.NO_GAIN
    assert "0%" in stop_of(found).reason
    assert recommended(found) == only.runs[0].configuration


def test_a_recording_of_batches_alone_is_searched(tmp_path: Path) -> None:
    runs = []
    for run in small().runs:
        what = run.configuration
        if (what.nodes, what.learning_rate) == (1, 0.1):
            runs.append(replace(run, configuration=Configuration(batch_size=what.batch_size)))
    problem = posed(tmp_path, grid(runs=tuple(runs), machines=()))
    found = searched(problem)
    assert stop_of(found).kind is StopKind.NO_GAIN
    assert problem.regret(recommended(found)) <= 1.2


def test_a_falling_metric_is_searched_as_a_rising_one(problem: Posed, tmp_path: Path) -> None:
    plain = problem.recording
    runs = tuple(replace(run, curve=run.curve * [1, 1, -1] + [0, 0, 1]) for run in plain.runs)
    falling = small(runs=runs, metric="error", maximize=False, target=1.0 - plain.target)
    one, other = (searched(p, most=16) for p in (problem, posed(tmp_path, falling)))
    assert [known_of(d.action) for _, d in one] == [known_of(d.action) for _, d in other]


@pytest.mark.parametrize("deadline", [None, 500.0])
def test_where_runs_end_alike_is_a_limit_for_all(tmp_path: Path, deadline: float | None) -> None:
    never = [configuration(nodes=n, learning_rate=0.001) for n in (1, 2)]
    problem = posed(tmp_path, deadline=deadline)
    search = ReplayedSearch(problem)
    for what in never:
        until = Until(training_seconds=1e6)
        search.execute(Start(configuration=what, purpose=Purpose.STATISTICS, until=until, reason=""))
    beliefs = Believer().believe(search.state())
    learnt = log_longest(search.state(), beliefs.prospects)
    # Both ended after as many samples, which take one node longer than two.
    ends = [run.measurement.training_seconds for run in search.state().runs.values()]
    rows = [sorted(problem.costs).index(what) for what in never]
    np.testing.assert_allclose(np.exp(learnt[rows]), ends, rtol=0.2)
    assert (learnt <= (math.inf if deadline is None else math.log(deadline))).all()


def test_a_state_over_a_recording_is_one_over_a_list(problem: Posed) -> None:
    assert not Believer().knows_laws(ReplayedSearch(problem).state())


def test_where_nothing_arrives_the_target_is_unreachable(tmp_path: Path) -> None:
    few = [r for r in small().runs if r.configuration.batch_size == 128 and r.configuration.nodes == 2]
    found = searched(posed(tmp_path, grid(target=0.999, runs=tuple(few)), trainings=20))
    assert stop_of(found).kind is StopKind.UNREACHABLE


def test_the_more_trainings_the_answer_serves_the_less_likely_gains_it_expects(tmp_path: Path) -> None:
    spent = [
        searched(posed(tmp_path, trainings=trainings), ModelPolicy(Believer(seed=1)))[-1][0].spent.seconds
        for trainings in (2, 1_000, 1_000_000)
    ]
    assert spent == sorted(spent)
    assert spent[-1] > spent[0]
