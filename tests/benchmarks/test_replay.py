"""The replay benchmark: what searches are charged, when they end, and what their figures mean."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks.replay import Task, execute, main, row_of
from benchmarks.replay_measures import cost_until, interval_ratio, is_covered, regret_after
from benchmarks.replay_optuna import BASELINES, OptunaReplay, first_rung
from benchmarks.replay_problem import Problem, problem
from benchmarks.replay_search import ReplayedSearch, replay
from benchmarks.replay_static import largest_of, largest_pick, pick_trace
from benchmarks.replay_table import geometric_means, table
from benchmarks.replay_trace import Moment, Prediction, Trace
from tests.recorded_grid import MACHINES, STARTUP_SECONDS, configuration, write_grid
from tuner.domain.errors import JobError
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.search.policy import Abandon, Action, Continue, Decision, Start, Stop, StopKind

KEYS = [
    *("recording", "goal", "sampler", "prior", "seeds", "cost_to_20_percent"),
    *("cost_to_5_percent", "regret_at", "stop", "total_against_best", "total_against_median"),
    *("coverage_90", "interval_ratio", "suggestion_seconds"),
]
NEVER = configuration(learning_rate=0.001)


@pytest.fixture
def path(tmp_path) -> Path:
    write_grid(tmp_path / "grid.jsonl.gz")
    return tmp_path / "grid.jsonl.gz"


def ranked(posed: Problem) -> list:
    return sorted(posed.costs, key=posed.costs.__getitem__)


def start(what, seconds: float, purpose: Purpose = Purpose.TRAINING) -> Start:
    return Start(configuration=what, purpose=purpose, until=Until(training_seconds=seconds), reason="")


def go_on(probe_id: int, seconds: float) -> Continue:
    until = Until(training_seconds=seconds)
    return Continue(probe_id=probe_id, purpose=Purpose.TRAINING, until=until, reason="")


class Scripted:
    """A policy that does what it was told, and then stops."""

    def __init__(self, *actions: Action) -> None:
        self._actions = [*actions, Stop(kind=StopKind.NO_GAIN, reason="the script is over")]

    def decide(self, state) -> Decision:
        return Decision(action=self._actions.pop(0))


def test_for_dollars_half_of_what_arrives_arrives_in_time(path):
    seconds, dollars = problem(path, "seconds"), problem(path, "dollars")
    arriving = [s for s in seconds.seconds.values() if math.isfinite(s)]
    assert dollars.deadline == dollars.job.goal.deadline == np.median(arriving)
    assert seconds.deadline is None
    assert sum(map(math.isfinite, dollars.costs.values())) == len(arriving) / 2
    assert dollars.best == min(
        s * dollars.recording.cluster.dollars_per_second(c)
        for c, s in dollars.seconds.items()
        if s <= dollars.deadline
    )


def test_a_recording_where_nothing_arrives_is_no_problem_to_search(tmp_path):
    write_grid(tmp_path / "grid.jsonl.gz", target=0.999)
    with pytest.raises(JobError, match="no recorded run reaches the target"):
        problem(tmp_path / "grid.jsonl.gz", "seconds")


def test_a_search_is_charged_as_its_prober_charges(path):
    posed, what = problem(path, "dollars"), configuration(nodes=2, machine="large")
    search = ReplayedSearch(posed)
    for action in (start(what, 1.0), start(NEVER, 2.0), go_on(0, 3.0)):
        search.execute(action)
    # One node more than its own is charged, the start-up once.
    expected = (3.0 + STARTUP_SECONDS) * 3 * 1.80 + (2.0 + STARTUP_SECONDS) * 2 * 0.36
    assert search.spent == pytest.approx(expected / 3600)
    assert [len(probe.slices) for probe in search.probes] == [2, 1]


def test_nothing_is_written_by_a_replay(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replay(problem(path, "seconds"), Scripted(start(NEVER, 1.0)), limit=60, seed=0)
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_given_up_does_not_go_on(path):
    search = ReplayedSearch(problem(path, "seconds"))
    search.execute(start(NEVER, 1.0))
    search.execute(Abandon(probe_id=0, reason="slow"))
    assert search.probes[0].reason == "slow"
    assert not any(run.can_continue for run in search.state().runs.values())
    with pytest.raises(ValueError, match="probe 0 is to go on, but ended"):
        search.execute(go_on(0, 2.0))


def test_a_run_is_not_resumed_on_another_row(path):
    search = ReplayedSearch(problem(path, "seconds"))
    search.execute(start(NEVER, 1.0))
    with pytest.raises(ValueError, match="what two recorded runs make together was not recorded"):
        search.execute(replace(start(configuration(nodes=2), 2.0), resume_from=0))


def test_a_replay_ends_at_its_limit_and_at_the_policys_stop(path):
    posed = problem(path, "seconds")
    script = [start(c, 1e6) for c in ranked(posed)]
    assert replay(posed, Scripted(*script[:1]), limit=60, seed=0).end.spent > posed.best
    ended = replay(posed, Scripted(*script), limit=5, seed=0)
    assert 5 <= ended.end.spent / posed.best < 5 + script[-1].until.training_seconds
    assert len(ended.moments) < len(script)


def test_a_policy_that_asks_for_the_same_for_ever_is_reported(path):
    script = Scripted(start(NEVER, 1.0), *[go_on(0, 1.0)] * 100)
    with pytest.raises(RuntimeError, match="decisions in a row cost nothing"):
        replay(problem(path, "seconds"), script, limit=60, seed=0)


@pytest.mark.parametrize("goal", ["seconds", "dollars"])
@pytest.mark.parametrize("name", BASELINES)
def test_optunas_samplers_find_the_best_once_everything_was_tried(path, name, goal):
    posed = problem(path, goal)
    trace = OptunaReplay(posed, name, seed=0).run(limit=1e6)
    spent = [moment.spent for moment in trace.moments]
    assert len(trace.moments) == 1 + len(posed.costs)
    assert spent == sorted(spent)
    regrets = [posed.regret(m.recommended) for m in trace.moments]
    assert regrets == sorted(regrets, reverse=True)
    if name != "tpe-sha":  # which prunes what starts slowly
        assert regrets[-1] == 1.0


def test_no_trial_costs_more_than_the_best_that_arrived_before(path):
    posed = problem(path, "dollars")
    trace = OptunaReplay(posed, "random", seed=1).run(limit=1e6)
    for before, after in zip(trace.moments, trace.moments[1:], strict=False):
        if before.recommended is not None:
            startup = STARTUP_SECONDS * max(map(posed.price, posed.costs))
            assert after.spent - before.spent <= posed.costs[before.recommended] + startup + 1e-12


def test_successive_halving_starts_at_equal_dollars(path):
    posed = problem(path, "dollars")
    halving = OptunaReplay(posed, "tpe-sha", seed=0)
    ends = {c: next(halving._ends(posed.price(c), math.inf)) for c in posed.costs}
    assert {step for step, _ in ends.values()} == {1}
    first = {c: end * posed.price(c) for c, (_, end) in ends.items() if end < posed.deadline}
    assert list(first.values()) == pytest.approx([first_rung(posed)] * len(first))


def test_one_training_ends_a_search_at_the_first_arrival_in_time(path):
    posed = problem(path, "dollars", 1)
    trace = OptunaReplay(posed, "random", seed=0).run(limit=1e6)
    assert trace.arrived_at == trace.end.spent
    assert math.isfinite(posed.costs[trace.end.recommended])
    late = max((c for c in posed.seconds if math.isfinite(posed.seconds[c])), key=posed.seconds.get)
    assert replay(posed, Scripted(start(late, 1e6)), limit=1e6, seed=0).arrived_at is None
    in_time = replay(posed, Scripted(start(ranked(posed)[0], 1e6)), limit=1e6, seed=0)
    assert in_time.arrived_at == in_time.end.spent


def test_an_answer_that_was_good_only_for_a_while_does_not_count(path):
    posed = problem(path, "seconds")
    best, bad = ranked(posed)[0], NEVER
    moments = [
        Moment(spent=s * posed.best, recommended=c)
        for s, c in zip(range(5), (best, bad, None, best, best), strict=True)
    ]
    assert cost_until(posed, Trace(moments=tuple(moments)), 1.2) == pytest.approx(3)
    assert cost_until(posed, Trace(moments=tuple(moments[:3])), 1.2) == math.inf
    assert regret_after(posed, Trace(moments=tuple(moments)), 0.5) == 1.0
    assert regret_after(posed, Trace(moments=tuple(moments)), 2.5) == math.inf


def test_an_interval_covers_what_never_arrived_if_it_reaches_beyond_the_recording(path):
    posed = problem(path, "seconds")
    end = posed.recording.run(NEVER).seconds
    never = Prediction(configuration=NEVER, lower=end / 4, median=end / 3, upper=end / 2)
    assert not is_covered(posed, never)
    assert is_covered(posed, replace(never, upper=math.inf))
    assert is_covered(posed, replace(never, upper=end))
    assert interval_ratio(posed, never) == pytest.approx(2)
    assert interval_ratio(posed, replace(never, upper=math.inf)) == pytest.approx(4)
    assert interval_ratio(posed, replace(never, lower=end)) is None
    best = ranked(posed)[0]
    truth = posed.seconds[best]
    assert is_covered(posed, Prediction(configuration=best, lower=truth, median=truth, upper=truth))
    assert not is_covered(posed, Prediction(configuration=best, lower=0.0, median=0.0, upper=truth / 2))


def test_scaling_by_hand_takes_all_nodes_and_grows_batch_and_rate():
    what = [
        configuration(nodes=n, machine=m, batch_size=b, learning_rate=r)
        for n in (1, 4)
        for m in MACHINES
        for b in (32, 128)
        for r in (0.01, 0.04, 0.1)
    ]
    cores = {name: machine.cores for name, machine in MACHINES.items()}
    grown = largest_pick([c for c in what if c.learning_rate < 0.1 or c.nodes > 1], cores, "global")
    assert grown == configuration(nodes=4, machine="large", batch_size=128, learning_rate=0.04)
    by_rank = largest_pick(what, cores, "rank")
    assert (by_rank.batch_size, by_rank.learning_rate) == (32, 0.1)


def test_a_pick_without_probes_costs_nothing_and_trains_once(path):
    posed = problem(path, "seconds", 1)
    trace = pick_trace(posed, ranked(posed)[1])
    assert trace.arrived_at == posed.costs[ranked(posed)[1]] + STARTUP_SECONDS
    assert trace.end.spent == 0
    assert pick_trace(posed, NEVER).arrived_at is None
    assert largest_of(posed).nodes == 2


def test_a_row_has_the_agreed_keys_and_no_infinite_number(path):
    arm = Task(path=path, goal="seconds", trainings=0, sampler="random")
    tasks = [replace(arm, trainings=many, seed=s) for many in (1000, 1) for s in range(2)]
    row = row_of(arm, tasks, [execute(task) for task in tasks])
    assert list(row) == KEYS
    assert row["seeds"] == 2
    assert row["total_against_best"] >= 1
    json.dumps(row, allow_nan=False)
    nothing = row_of(arm, tasks[:1], [Trace(moments=(Moment(spent=0.0, recommended=None),))])
    assert nothing["cost_to_20_percent"] == {"median": None, "p90": None, "never": 1.0}
    json.dumps(nothing, allow_nan=False)


def test_the_table_compares_the_model_with_the_best_of_optunas():
    def row(sampler: str, recording: str, median: float | None) -> dict:
        costs = {"median": median, "p90": None, "never": 0.0}
        return {
            **dict.fromkeys(KEYS),
            **{"recording": recording, "goal": "seconds", "sampler": sampler, "prior": "neutral"},
            **{"cost_to_20_percent": costs, "cost_to_5_percent": costs},
            "regret_at": dict.fromkeys(("3", "10", "30")),
            "stop": dict.fromkeys(("cost", "regret", "p90_regret")),
            "suggestion_seconds": dict.fromkeys(("median", "p90")),
        }

    medians = {"model": (4, 9), "tpe": (8, 32), "gp": (2, None)}
    rows = [row(s, r, m) for s, found in medians.items() for r, m in zip("ab", found, strict=True)]
    assert geometric_means(rows, "seconds") == pytest.approx({"model": 6, "tpe": 16, "gp": math.inf})
    assert "best of Optuna's (tpe) over model: 2.7" in table(rows)
    assert "gp over the limit" in table(rows)


@pytest.mark.slow
def test_the_command_prints_rows_or_a_table_and_names_what_is_allowed(path):
    app = typer.Typer()
    app.command()(main)
    plain = ["--samplers", "random,static", "--seeds", "1", "--trainings", "1000", str(path)]
    reported = CliRunner().invoke(app, ["--json", *plain])
    assert [row["sampler"] for row in json.loads(reported.stdout)] == ["random", "static", "largest"]
    wrong = CliRunner().invoke(app, ["--samplers", "tpe,gpp", str(path)])
    assert wrong.exit_code == 2
    assert "'gpp' is none of model, tpe" in wrong.output
