"""The bank: what each kind changes, what a result holds, and what the figures mean."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks.bank import main
from benchmarks.bank_kinds import (
    KINDS,
    best_seconds,
    curve_noise,
    derived,
    doubled_noise,
    edge_target,
    few_configurations,
    late_scores,
    long_startup,
    rare_scores,
    short_startup,
    unreachable_target,
)
from benchmarks.bank_report import (
    bounds,
    comparisons,
    cost_of,
    cost_to,
    counted_cost,
    coverage,
    geometric_mean,
    reliability,
    report,
    summaries,
    tables,
)
from benchmarks.bank_search import (
    LimitedPolicy,
    Results,
    Search,
    cells_of,
    execute,
    reached,
    row_of,
    searches_of,
)
from benchmarks.replay_problem import MANY_TRAININGS, Problem, true_seconds
from benchmarks.replay_search import ReplayedSearch
from benchmarks.replay_trace import Moment, Prediction, Trace
from tests.recorded_grid import STARTUP_SECONDS, TARGET, configuration, grid, recorded_run, write_grid
from tuner.domain.errors import JobError
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.recordings.recording import Recording
from tuner.search.policy import Continue, Decision, Start, Stop, StopKind

NEVER = configuration(learning_rate=0.001)


@pytest.fixture
def recording() -> Recording:
    return grid(
        runs=tuple(recorded_run(run.configuration, points=24, end=run.end) for run in grid().runs),
    )


@pytest.fixture
def path(tmp_path) -> Path:
    write_grid(tmp_path / "grid.jsonl.gz")
    return tmp_path / "grid.jsonl.gz"


def num_arriving(recording: Recording) -> int:
    return sum(map(math.isfinite, true_seconds(recording).values()))


@pytest.mark.parametrize("share", [0.2, 0.3, 1.0])
def test_late_scores_start_at_a_share_of_the_best_training(recording, share):
    late = late_scores(recording, share)
    first = share * best_seconds(recording)
    assert first > min(run.curve[0, 0] for run in recording.runs)
    for before, after in zip(recording.runs, late.runs, strict=True):
        wanted = [row for row in before.curve.tolist() if row[0] >= first] or [before.curve[-1].tolist()]
        assert after.curve.tolist() == wanted
        assert after.seconds == before.seconds
    assert num_arriving(late) == num_arriving(recording)


def test_scores_that_are_late_anyhow_make_no_kind_of_their_own(recording):
    assert late_scores(recording, 1e-9) is None
    assert derived(KINDS["plain"], recording).runs[0].curve.tolist() == recording.runs[0].curve.tolist()


def test_every_fourth_score_is_left_and_the_last(recording):
    rare = rare_scores(recording, 4)
    for before, after in zip(recording.runs, rare.runs, strict=True):
        # 24 scores: numbers 4, 8, ..., 24.
        assert after.curve.tolist() == before.curve[3::4].tolist()
    odd = rare_scores(replace(recording, runs=(recorded_run(NEVER, points=6),)), 4)
    assert odd.runs[0].curve.tolist() == recorded_run(NEVER, points=6).curve[[3, 5]].tolist()


def test_noise_is_measured_and_doubled():
    rng = np.random.default_rng(5)
    steps = np.arange(1, 2001, dtype=float)
    smooth = 0.9 - 0.5 * steps**-0.3
    values = smooth + 0.01 * rng.standard_normal(len(steps))
    run = replace(recorded_run(NEVER), curve=np.stack([steps, steps, values], axis=1))
    noisy = doubled_noise(grid(runs=(run,)))
    # The estimate from 2,000 scores is good to a few percent.
    assert curve_noise(run.curve) == pytest.approx(0.01, rel=0.08)
    assert np.std(noisy.runs[0].curve[:, 2] - smooth) == pytest.approx(0.02, rel=0.1)
    assert curve_noise(run.curve[:6]) is None


def test_doubled_noise_leaves_the_last_score_and_the_range_of_values(recording):
    rough = tuple(
        replace(run, curve=run.curve + np.array([0, 0, 0.02]) * (-1.0) ** np.arange(24)[:, None])
        for run in recording.runs
    )
    noisy = doubled_noise(replace(recording, runs=rough))
    assert num_arriving(noisy) == num_arriving(replace(recording, runs=rough))
    old, new = (np.concatenate([run.curve[:, 2] for run in runs]) for runs in (rough, noisy.runs))
    assert [run.curve[-1].tolist() for run in noisy.runs] == [run.curve[-1].tolist() for run in rough]
    assert old.min() <= new.min() < new.max() <= old.max()
    assert np.mean(old != new) > 0.5


def test_start_up_is_short_or_as_long_as_the_best_training(recording):
    gaps = np.concatenate([np.diff(run.curve[:, 0]) for run in recording.runs])
    assert short_startup(recording).startup_seconds == pytest.approx(np.median(gaps) / 30)
    assert long_startup(recording).startup_seconds == best_seconds(recording)


def test_only_the_best_reach_a_target_at_the_edge(recording):
    tops = np.linspace(0.91, 0.97, 24)
    runs = tuple(
        replace(run, curve=np.array([[5.0, 10, 0.5], [9.0, 20, top]]))
        for run, top in zip(recording.runs, tops, strict=True)
    )
    edge = edge_target(replace(recording, runs=runs))
    assert edge.target == pytest.approx((tops[-3] + tops[-2]) / 2)
    assert num_arriving(edge) == 2
    falling = tuple(replace(run, curve=run.curve * [1, 1, -1]) for run in runs)
    down = edge_target(replace(recording, runs=falling, maximize=False, target=-0.9))
    assert down.target == pytest.approx(-edge.target)


def test_nothing_reaches_a_target_beyond_all_values(recording):
    beyond = unreachable_target(recording)
    best = max(run.curve[:, 2].max() for run in recording.runs)
    assert best < beyond.target < best + 0.02 < 1
    assert num_arriving(beyond) == 0
    loss = tuple(replace(run, curve=run.curve * [1, 1, -1] + [0, 0, 1]) for run in recording.runs)
    below = unreachable_target(replace(recording, runs=loss, maximize=False, target=1 - TARGET))
    assert below.target == pytest.approx(1 - beyond.target)


def test_twenty_configurations_are_drawn_of_more_than_sixty(recording):
    assert few_configurations(recording) is None
    many = grid(strategies=("all_reduce", "gossip", "server"))
    few = few_configurations(many)
    assert len(few.runs) == 20
    assert {run.configuration for run in few.runs} < {run.configuration for run in many.runs}
    assert num_arriving(few) >= 1
    again = few_configurations(many)
    assert again.configurations() == few.configurations()


def test_a_run_that_cannot_resume_is_paid_again(path, tmp_path):
    (cell,) = cells_of(path, ["no-resume"], ["seconds"], tmp_path / "derived")
    search = ReplayedSearch(cell.problem(MANY_TRAININGS))
    training = Purpose.TRAINING
    until = [Until(training_seconds=seconds) for seconds in (2.0, 5.0)]
    search.execute(Start(configuration=NEVER, purpose=training, until=until[0], reason=""))
    search.execute(Continue(probe_id=0, purpose=training, until=until[1], reason=""))
    assert search.spent == pytest.approx((STARTUP_SECONDS + 2.0) + (STARTUP_SECONDS + 5.0))
    assert search.probes[0].slices[1].repeated_seconds == 2.0
    assert not search.state().terms.resumes
    seen = [point.samples for m in search.probes[0].slices for point in m.curve]
    assert seen == sorted(set(seen))


def test_cells_state_deadline_and_unit(path, tmp_path):
    kinds, goals = ["plain", "few", "unreachable"], ["seconds", "dollars"]
    cells = list(cells_of(path, kinds, goals, tmp_path / "derived"))
    assert [(c.kind, c.goal) for c in cells] == [
        ("plain", "seconds"),
        ("plain", "dollars"),
        ("unreachable", "seconds"),
        ("unreachable", "dollars"),
    ]
    plain, beyond = cells[1].problem(1), cells[3].problem(1)
    assert plain.deadline == beyond.deadline
    assert beyond.best == plain.best
    assert not any(map(math.isfinite, beyond.costs.values()))
    write_grid(path, prices=False)
    assert [c.goal for c in cells_of(path, ["plain"], goals, tmp_path)] == ["seconds"]


def searches(path: Path, tmp_path: Path, samplers=("random",), kinds=("plain",), seeds=1) -> list[Search]:
    cells = cells_of(path, kinds, ["seconds"], tmp_path / "derived")
    return searches_of(cells, samplers, seeds, [MANY_TRAININGS, 1], "now")


def test_baselines_do_not_search_where_nothing_is_reached(path, tmp_path):
    found = searches(path, tmp_path, ("model", "random"), ("plain", "unreachable"))
    assert {(s.cell.kind, s.sampler, s.label) for s in found} == {
        ("plain", "model", "now"),
        ("plain", "random", ""),
        ("unreachable", "model", "now"),
    }
    assert len({s.key for s in found}) == len(found)


def test_results_are_stored_as_they_come_and_read_again(path, tmp_path):
    found = searches(path, tmp_path)
    results = Results(tmp_path / "out" / "results.jsonl")
    row = execute(found[0])
    assert row["error"] is None
    results.add(row)
    stored = tmp_path / "out" / "results.jsonl"
    assert Results(stored).rows == {found[0].key: json.loads(json.dumps(row))}
    # A run that was killed while it wrote.
    whole = stored.read_text()
    stored.write_text(whole + whole[:20])
    assert list(Results(stored).rows) == [found[0].key]
    assert stored.read_text() == whole
    stored.write_text(whole[:20] + "\n" + whole)
    with pytest.raises(JobError, match="line 1: is no result"):
        Results(stored)


def test_a_search_that_breaks_down_is_a_result(path, tmp_path):
    wrong = replace(searches(path, tmp_path)[0], sampler="nobody")
    row = execute(wrong)
    assert row["error"] == "ValueError: no sampler is named 'nobody'"
    assert counted_cost(row) == row["limit"] == 100
    assert report([row], "model now", "random")["failures"] == [f"nobody: {row['error']}"]


class Forever:
    """A policy that asks for one more probe each time."""

    def decide(self, state) -> Decision:
        start = Start(configuration=NEVER, purpose=Purpose.TIMING, until=Until(steps=1), reason="")
        return Decision(action=start)


def test_the_number_of_decisions_is_limited():
    limited = LimitedPolicy(Forever(), 3)
    actions = [limited.decide(None).action for _ in range(3)]
    assert [isinstance(action, Stop) for action in actions] == [False, False, True]
    assert actions[-1].kind is StopKind.BUDGET


def test_a_row_tells_when_the_recommendation_changed_and_what_was_foreseen(path):
    posed = Problem(path=path, goal="seconds", trainings=MANY_TRAININGS, deadline=None)
    best = min(posed.costs, key=posed.costs.__getitem__)
    chosen = [None, NEVER, best, best]
    moments = tuple(
        Moment(spent=i * posed.best, recommended=c, suggestion_seconds=0.5, regret_bound=1.5)
        for i, c in enumerate(chosen)
    )
    truth = posed.seconds[best]
    foreseen = Prediction(
        configuration=best, lower=truth / 2, median=truth, upper=truth * 2, spent=2 * posed.best, reaches=0.75
    )
    row = row_of(posed, Trace(moments=moments, predictions=(foreseen,), stop="no_gain"))
    assert row["course"] == [[0.0, None], [2.0, 1.0]]
    assert (row["spent"], row["regret"], row["bound"], row["arrived"]) == (3.0, 1.0, 1.5, None)
    assert row["decision_seconds"] == 2.0
    (prediction,) = row["predictions"]
    end = posed.recording.run(best).seconds
    assert prediction["ratio"] == pytest.approx(min(2 * truth, end) / (truth / 2))
    assert (prediction["covered"], prediction["reaches"], prediction["reached"]) == (True, 0.75, True)
    json.dumps(row, allow_nan=False)


def test_what_a_recording_does_not_tell_is_not_counted(path, tmp_path):
    def of(posed: Problem, what) -> bool | None:
        return reached(posed, Prediction(configuration=what, lower=1.0, median=1.0, upper=1.0))

    posed = Problem(path=path, goal="seconds", trainings=1, deadline=None)
    best = min(posed.costs, key=posed.costs.__getitem__)
    assert of(posed, best) is True
    assert of(posed, NEVER) is False
    (cell,) = cells_of(path, ["unreachable"], ["seconds"], tmp_path / "derived")
    # It was recorded up to its own target, and no reason is stated for its end.
    assert of(cell.problem(1), best) is None


def row(**more) -> dict:
    return {
        **{"digest": "d", "kind": "plain", "goal": "seconds", "trainings": 1000, "sampler": "model"},
        **{"seed": 0, "label": "now", "recording": "a", "limit": 60.0, "course": [[0.0, None]]},
        **{"spent": 60.0, "regret": None, "bound": None, "stop": None, "arrived": None},
        **{"predictions": [], "error": None, "wall_seconds": 1.0},
        **more,
    }


def found_at(cost: float, **more) -> dict:
    return row(course=[[0.0, None], [cost, 1.1]], regret=1.1, **more)


def test_the_cost_counts_from_where_the_answer_stays_good():
    course = [[0.0, None], [1.0, 1.1], [2.0, 3.0], [4.0, 1.2], [5.0, 1.0]]
    assert cost_to(row(course=course), 1.2) == 4.0
    assert cost_to(row(course=course), 1.05) == 5.0
    assert cost_to(row(course=course[:3]), 1.2) == math.inf
    assert counted_cost(row(course=course[:3])) == 60.0


def test_the_cost_of_one_training_is_its_total_and_beyond_reach_that_of_saying_so():
    assert cost_of(row(trainings=1, arrived=7.0)) == 7.0
    assert counted_cost(row(trainings=1, limit=100.0)) == 100.0
    assert cost_of(row(kind="unreachable", stop="out_of_reach", spent=9.0)) == 9.0
    assert cost_of(row(kind="unreachable", stop="no_gain", spent=9.0)) == math.inf


def test_a_summary_takes_medians_of_seeds_and_the_mean_of_recordings():
    rows = [found_at(cost, seed=s) for s, cost in enumerate((1.0, 2.0, 30.0))]
    rows += [found_at(8.0, recording="b"), row(recording="b", seed=1), row(recording="b", seed=2)]
    (summary,) = summaries(rows)  # of one kind and goal there is none of all
    assert summary["medians"] == {"a": 2.0, "b": 60.0}
    assert summary["geometric_mean"] == pytest.approx(math.sqrt(120))
    assert (summary["worst"], summary["worst_recording"]) == (60.0, "b")
    assert summary["never"] == pytest.approx(1 / 3)
    assert summary["seeds"] == 3


def test_the_summary_of_all_kinds_counts_each_problem_once():
    rows = [found_at(1.0), found_at(4.0, kind="noisy"), found_at(4.0, kind="noisy", seed=1)]
    rows += [found_at(8.0, goal="dollars"), row(kind="unreachable")]
    of_all = summaries(rows)[-1]
    assert (of_all["kind"], of_all["goal"], of_all["searches"]) == ("all", "all", 4)
    assert of_all["medians"] == {"a plain seconds": 1.0, "a noisy seconds": 4.0, "a plain dollars": 8.0}
    assert of_all["geometric_mean"] == pytest.approx(32 ** (1 / 3))


def prediction(covered=True, ratio=2.0, reaches=0.9, came=True, after=True) -> dict:
    return {
        **{"spent": 2.0, "after_first_score": after, "covered": covered, "ratio": ratio},
        **{"reaches": reaches, "reached": came},
    }


def test_coverage_starts_at_the_first_score():
    rows = [
        row(predictions=[prediction(False, 1e8, after=False), prediction(), prediction(False, 4.5)]),
        row(recording="b", predictions=[prediction(ratio=None), prediction(ratio=8.0)]),
    ]
    found = coverage(rows)
    assert found["coverage_90"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["width"] == pytest.approx(math.sqrt(3.25 * 8.0))
    assert found["predictions"] == 4
    assert coverage([row()]) == {"coverage_90": None, "width": None, "predictions": 0}


def test_a_bound_holds_if_the_regret_is_within_it():
    rows = [
        row(stop="no_gain", bound=1.3, regret=1.2),
        row(stop="no_gain", bound=1.1, regret=1.2),
        row(stop="no_gain", bound=1.1, regret=None),
        row(stop="budget", bound=1.1, regret=1.0),
        row(stop="no_gain", regret=1.0),
    ]
    assert bounds(rows) == {"bounds": 3, "bounds_held": pytest.approx(1 / 3)}


def test_probabilities_are_compared_with_what_came_true():
    known = [(0.1, False), (0.1, False), (0.15, True), (0.8, True), (1.0, True), (1.0, False)]
    predictions = [prediction(reaches=p, came=came) for p, came in known]
    predictions += [prediction(came=None), prediction(reaches=None), prediction(reaches=0.0, after=False)]
    table = reliability([row(predictions=predictions)])
    assert [b["predictions"] for b in table] == [3, 0, 0, 0, 3]
    assert table[0]["stated"] == pytest.approx(0.35 / 3)
    assert (table[0]["reached"], table[4]["reached"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert table[1]["reached"] is None


def test_ratios_are_paired_by_seed():
    ours = [found_at(cost, seed=s) for s, cost in enumerate((1.0, 4.0, 9.0))]
    other = {"sampler": "tpe-sha", "label": "", "limit": 100.0}
    theirs = [found_at(cost, seed=s, **other) for s, cost in enumerate((2.0, 32.0))]
    more = [found_at(3.0, recording="b"), row(recording="b", **other)]
    (found,) = comparisons([*ours, *theirs, *more], "model now", "tpe-sha")
    assert found["ratios"] == {"a": pytest.approx(0.25), "b": pytest.approx(0.03)}
    assert found["geometric_mean"] == pytest.approx(geometric_mean([0.25, 0.03]))
    assert comparisons(ours, "model now", "model before") == []
    before = [found_at(2.0, seed=1, label="before")]
    assert comparisons([*ours, *before], "model now", "model before")[0]["ratios"] == {"a": pytest.approx(2)}


def test_the_tables_show_each_kind_in_order():
    rows = [
        found_at(3.0, kind="noisy"),
        row(kind="unreachable", stop="out_of_reach", spent=9.0),
        found_at(2.0, predictions=[prediction()]),
        found_at(8.0, sampler="tpe-sha", label="", limit=100.0),
        found_at(6.0, kind="noisy", sampler="tpe-sha", label="", limit=100.0),
        row(trainings=1, arrived=5.0),
    ]
    text = tables(report(rows, "model now", "tpe-sha"))
    lines = text.splitlines()
    firsts = [line.split()[0] for line in lines if " now " in line]
    assert firsts == ["plain", "noisy", "all", "plain", "all", "unreachable", "Cost"]
    assert any("plain" in line and "many" in line and "0.25" in line for line in lines)
    assert "90% -> 100% (1)" in text
    assert any(
        line.startswith("all") and "of 2 problems; worst: a noisy seconds 0.5" in line for line in lines
    )
    assert any(line.startswith("unreachable") and "100%" in line and " 9 " in line for line in lines)


@pytest.mark.slow
def test_the_command_searches_once_and_then_reports(path, tmp_path):
    app = typer.Typer()
    app.command()(main)
    out = tmp_path / "out" / "results.jsonl"
    chosen = ["--recordings", str(path), "--kinds", "plain,long-startup", "--goals", "seconds"]
    chosen += ["--samplers", "random", "--seeds", "2", "--processes", "1", "--out", str(out)]
    nothing = CliRunner().invoke(app, [*chosen, "--report-only"])
    assert nothing.exit_code == 2
    assert "has none of these searches" in nothing.output
    first = CliRunner().invoke(app, [*chosen, "--json"])
    assert first.exit_code == 0, first.output
    lines = out.read_text().splitlines()
    assert len(lines) == 2 * 2 * 2
    again = CliRunner().invoke(app, [*chosen, "--json"])
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert out.read_text().splitlines() == lines
    assert [s["kind"] for s in json.loads(first.stdout)["summaries"]] == [
        *("plain", "plain", "long-startup", "long-startup", "all", "all")
    ]
    wrong = CliRunner().invoke(app, [*chosen[:2], "--kinds", "plane"])
    assert wrong.exit_code == 2
    assert "'plane' is none of plain" in wrong.output
