"""Beliefs over a list: each measurement counts once, where it was made, and what ended is not expected."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.replay_beliefs import REVERSED
from benchmarks.replay_problem import Problem
from benchmarks.replay_search import ReplayedSearch
from search_spaces import Configuration
from tests.recorded_grid import configuration, grid
from tuner.analytic.plateau import RECORDED
from tuner.analytic.slope_fit import SlopeFit
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.recordings.file import write_recording
from tuner.search.beliefs import Beliefs, believe
from tuner.search.policy import Continue, Start
from tuner.search.slope_beliefs import SlopeModels
from tuner.search.slope_priors import TEXTBOOK, SlopeBeliefs

NEVER = configuration(learning_rate=0.001)
PROBES = [
    configuration(nodes=n, machine=m, batch_size=b, learning_rate=r)
    for n, m, b, r in (
        (1, "small", 32, 0.1),
        (2, "large", 128, 0.1),
        (1, "large", 32, 0.03),
        (2, "small", 128, 0.03),
    )
]


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    path: Path = tmp_path_factory.mktemp("grid") / "grid.jsonl.gz"
    write_recording(grid(), path)
    return Problem(path=path, goal="seconds", trainings=1000, deadline=None)


def first(problem: Problem, **seconds: list[tuple[Configuration, float]]) -> ReplayedSearch:
    search = ReplayedSearch(problem)
    for what, until in seconds["at"]:
        search.execute(
            Start(
                configuration=what,
                purpose=Purpose.STATISTICS,
                until=Until(training_seconds=until),
                reason="",
            )
        )
    return search


def models(problem: Problem, prior: SlopeBeliefs = TEXTBOOK) -> SlopeModels:
    return SlopeModels(sorted(problem.costs), problem.job.resolved_cluster(), prior)


def believed(problem: Problem, search: ReplayedSearch, slopes: SlopeModels | None = None) -> Beliefs:
    rng = np.random.default_rng(0)
    return believe(search.state(), sorted(problem.costs), rng, slopes=slopes or models(problem))


def predicted(problem: Problem, at: list[tuple[Configuration, float]]) -> Beliefs:
    return believed(problem, first(problem, at=at))


def test_step_times_seen_foretell_those_of_other_configurations(problem: Problem) -> None:
    found = predicted(problem, [(what, 2.0) for what in PROBES])
    truth = np.array(
        [math.log(problem.recording.run(c).step_seconds / c.batch_size) for c in found.configurations]
    )
    seconds = found.predictor.seconds
    assert isinstance(seconds, SlopeFit)
    model = seconds.model
    rows = [found.configurations.index(what) for what in PROBES]
    np.testing.assert_allclose(model.mean[rows], truth[rows], atol=0.05)
    score = (model.mean - truth) / np.sqrt(model.variance)
    assert np.mean(np.abs(score) < 1.645) > 0.75
    assert np.abs(score).max() < 4.0


def test_an_arrival_is_believed_as_it_was(problem: Problem) -> None:
    what = PROBES[1]
    found = predicted(problem, [(what, 1e6)])
    row = found.configurations.index(what)
    assert found.prospects.status.arrived[row] == pytest.approx(problem.seconds[what])
    assert found.prospects.mean_log[row] == pytest.approx(math.log(problem.seconds[what]), abs=1e-6)


def test_a_run_that_ended_below_the_target_is_not_expected_to_arrive(problem: Problem) -> None:
    found = predicted(problem, [(NEVER, 1e6)])
    row = found.configurations.index(NEVER)
    assert found.prospects.status.ended[row]
    assert found.prospects.mean_log[row] == math.inf
    assert not found.prospects.status.ended.sum() > 1


def test_a_run_with_too_few_scores_is_as_likely_to_arrive_as_the_others(problem: Problem) -> None:
    arrived, few = PROBES[0], PROBES[1]
    search = first(problem, at=[(arrived, 1e9), (NEVER, 1e9)])
    search.execute(Start(configuration=few, purpose=Purpose.STATISTICS, until=Until(scores=1), reason=""))
    found = believed(problem, search)
    never = dict(zip(found.configurations, found.prospects.status.never, strict=True))
    assert (never[arrived], never[NEVER]) == (0.0, 1.0)
    # `reach_of_list` finds candidates without a chance of their own by comparing these values exactly.
    assert never[few] == found.prospects.status.never_of_others
    assert found.prospects.status.never_of_others == pytest.approx((0.0 + 1.0 + RECORDED.unknown) / 3)


def test_what_never_arrives_makes_it_less_likely_that_anything_does(problem: Problem) -> None:
    slow = [c for c in sorted(problem.costs) if c.learning_rate == NEVER.learning_rate]
    reaches = [predicted(problem, [(what, 1e9) for what in slow[:num]]).prospects.reach for num in (1, 4, 8)]
    assert reaches == sorted(reaches, reverse=True)
    assert reaches[0] - reaches[-1] > 0.2


def test_what_was_not_started_stands_at_nothing(problem: Problem) -> None:
    found = predicted(problem, [(PROBES[0], 2.0)])
    row = found.configurations.index(PROBES[0])
    assert np.flatnonzero(found.prospects.status.started).tolist() == [row]
    assert found.prospects.status.seconds[row] == pytest.approx(2.0)
    assert np.isinf(found.prospects.status.arrived).all()


def test_seeing_a_run_for_longer_makes_it_surer(problem: Problem) -> None:
    what = PROBES[0]
    row = sorted(problem.costs).index(what)
    spreads = [
        math.sqrt(predicted(problem, [(what, share * problem.seconds[what])]).prospects.variance_log[row])
        for share in (0.1, 0.4, 0.9)
    ]
    assert spreads == sorted(spreads, reverse=True)


def test_models_used_before_believe_the_same_as_fresh_ones(problem: Problem) -> None:
    used = models(problem)
    search = first(problem, at=[(what, 2.0) for what in PROBES])
    believed(problem, search, used)
    search.execute(
        Continue(probe_id=0, purpose=Purpose.TRAINING, until=Until(training_seconds=6.0), reason="")
    )
    one, other = believed(problem, search, used), believed(problem, search)
    np.testing.assert_array_equal(one.prospects.log_seconds, other.prospects.log_seconds)


def test_a_reversed_prior_is_outweighed_by_what_is_seen(problem: Problem) -> None:
    reversed_ = models(problem, REVERSED)
    before = reversed_.seconds(first(problem, at=[]).state()).model.weights
    after = reversed_.seconds(first(problem, at=[(c, 2.0) for c in PROBES]).state()).model.weights
    assert before == pytest.approx({"neutral": 0.5, "reversed": 0.5})
    assert after.get("reversed", 0.0) < 0.2


def test_slopes_weigh_more_beside_a_forecaster_that_predicts_worse(problem: Problem) -> None:
    search = ReplayedSearch(problem)
    candidates = sorted(problem.costs)
    for what in candidates[:4]:
        until = Until(training_seconds=1e6)
        search.execute(Start(configuration=what, purpose=Purpose.STATISTICS, until=until, reason=""))
    state = search.state()
    slopes = SlopeModels(candidates, problem.job.resolved_cluster(), TEXTBOOK)
    fitted = slopes.samples(state)
    own = dict(zip(candidates[:4], fitted.model.left_out_log_densities(), strict=True))
    as_good = slopes.weight_against(fitted, own)
    worse, better = (slopes.weight_against(fitted, {c: d + by for c, d in own.items()}) for by in (-2.0, 2.0))
    assert better < as_good < worse
    # A single run in common says nothing.
    alone = {candidates[0]: float(own[candidates[0]]) - 50.0}
    assert slopes.weight_against(fitted, alone) == pytest.approx(as_good)
