from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.levels import examples
from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import World, configuration, make_cluster, make_job
from tuner.analytic.predictor import RunState
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import CurvePoint, Measurement, NoiseStatistic, Outcome, Purpose
from tuner.search.beliefs import believe, candidates
from tuner.search.probe_cost import probe_cost
from tuner.search.runs import RunCache
from tuner.search.state import read_state, run_of
from tuner.search.timings import timing_key

HERE = configuration(1, 64, 0.03)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def failed(world: World, purpose: Purpose = Purpose.STATISTICS) -> Measurement:
    return Measurement(
        configuration=HERE,
        purpose=purpose,
        outcome=Outcome.FAILED,
        charged_seconds=2.0,
        charged_dollars=0.5,
        error="rank 0: ValueError",
    )


def test_an_empty_study_knows_nothing_and_has_spent_nothing(world: World) -> None:
    state = world.state()
    assert (state.spent.seconds, state.spent.dollars) == (0.0, 0.0)
    assert state.runs == {}
    assert state.start_value is None
    assert state.startup_seconds == 3.0
    assert state.overhead == 1.1
    assert state.evidence() == ([], {})


def test_everything_charged_counts_as_spent(tmp_path: Path) -> None:
    world = World(tmp_path, job=make_job(cluster={"dollars_per_node_hour": 36.0}))
    world.ran(configuration(2, 64, 0.03), 5.0)
    world.ran(configuration(4, 128, 0.03), 1.0, purpose=Purpose.TIMING)
    world.keep(failed(world))
    state = world.state()
    slices = state.slices
    assert state.spent.seconds == pytest.approx(sum(m.charged_seconds for m in slices))
    expected = 0.02 * slices[0].charged_seconds + 0.04 * slices[1].charged_seconds + 0.5
    assert state.spent.dollars == pytest.approx(expected)


def test_timing_probes_are_no_runs_but_show_step_times(world: World) -> None:
    world.ran(configuration(2, 128, 0.03), 1.0, purpose=Purpose.TIMING)
    state = world.state()
    assert state.runs == {}
    assert state.timed() == {timing_key(configuration(2, 128), state.cluster)}
    assert state.parameter_bytes == 400_000


def test_a_timing_that_failed_is_known_as_such_until_steps_were_timed(world: World) -> None:
    world.keep(failed(world, Purpose.TIMING))
    assert world.state().failed_timings() == {timing_key(HERE, world.cluster)}
    world.ran(HERE, 2.0)
    assert world.state().failed_timings() == set()


def test_runs_on_other_nodes_share_statistics_and_the_most_advanced_counts(world: World) -> None:
    world.ran(configuration(1, 64, 0.03), 8.0)
    world.ran(configuration(2, 64, 0.03), 1.0)
    world.ran(configuration(1, 64, 0.1), 1.0)
    state = world.state()
    assert len(state.runs) == 2
    shared = run_of(state, configuration(4, 64, 0.03))
    assert shared is not None
    assert shared.configuration.nodes == 1
    assert run_of(state, configuration(1, 128, 0.03)) is None


def test_a_run_that_crossed_the_target_has_its_time_and_samples(world: World) -> None:
    world.ran(configuration(1, 64, 0.08), 1e9)
    run = run_of(world.state(), configuration(1, 64, 0.08))
    assert run is not None
    assert run.arrived
    assert not run.can_continue
    # The noise of scoring lets a run touch the target a little early.
    assert run.samples_to_target == pytest.approx(world.law.samples_to_target(run.configuration), rel=0.25)
    assert run.seconds_to_target is not None
    assert run.seconds_to_target <= run.measurement.training_seconds


def test_a_first_score_past_the_target_may_come_before_the_clock_shows_anything(world: World) -> None:
    point = CurvePoint(training_seconds=0.0, step=1, samples=64, value=0.99)
    world.keep(
        Measurement(
            configuration=configuration(),
            purpose=Purpose.STATISTICS,
            outcome=Outcome.REACHED,
            curve=(point,),
            step=1,
            samples=64,
            charged_seconds=1.0,
        )
    )
    state = world.state()
    found = believe(state, [configuration(), configuration(2)], np.random.default_rng(0))
    assert found.recommended == configuration()
    assert np.isfinite(found.prospects.mean_log).all()


def test_a_farther_target_lets_a_run_that_reached_a_nearer_one_go_on(tmp_path: Path) -> None:
    near = World(tmp_path, job=make_job(goal={"target": 0.6}), law=Law(target=0.6))
    near.ran(configuration(1, 64, 0.08), 1e9)
    before = run_of(near.state(), configuration(1, 64, 0.08))
    far = make_job(goal={"target": 0.85})
    after = run_of(read_state(far, near.cluster, near.probes(), 20_000), configuration(1, 64, 0.08))
    assert before is not None
    assert after is not None
    assert (before.arrived, before.can_continue) == (True, False)
    assert (after.arrived, after.can_continue, after.is_open) == (False, True, False)


def test_progress_runs_from_zero_to_one_whether_the_metric_rises_or_falls(tmp_path: Path) -> None:
    rising = World(tmp_path / "rising")
    goal = {"metric": "loss", "target": 0.4}
    falling = World(
        tmp_path / "falling", job=make_job(goal=goal), law=Law(start=2.3, target=0.4, value_noise=0.02)
    )
    for world in (rising, falling):
        world.ran(configuration(1, 64, 0.08), 8.0)
        evidence, _ = world.state().evidence()
        assert evidence[0].progress[0] < 0.4
        assert np.corrcoef(evidence[0].samples, evidence[0].progress)[0, 1] > 0.8
        assert 0.4 < evidence[0].progress[-1] < 1.0


def test_a_falling_metric_arrives_when_it_is_below_the_target(tmp_path: Path) -> None:
    law = Law(start=2.3, target=0.4, value_noise=0.02)
    world = World(tmp_path, job=make_job(goal={"metric": "loss", "target": 0.4}), law=law)
    world.ran(configuration(1, 64, 0.08), 1e9)
    run = run_of(world.state(), configuration(1, 64, 0.08))
    assert run is not None
    assert run.arrived
    assert run.measurement.curve[-1].value <= 0.4


def test_running_out_of_memory_narrows_the_space(tmp_path: Path) -> None:
    world = World(tmp_path, law=Law(memory_samples=200))
    assert world.state().space.is_feasible(configuration(1, 512, 0.03))
    world.ran(configuration(2, 512, 0.03), 2.0)
    space = world.state().space
    assert not space.is_feasible(configuration(2, 512, 0.03))
    assert not space.is_feasible(configuration(1, 256, 0.03))
    assert space.is_feasible(configuration(4, 512, 0.03))
    assert space.reasons_against(configuration(1, 1024, 0.03)) == [
        "1024 samples per rank, but 256 ran out of memory"
    ]


def test_what_ran_out_of_memory_may_still_train_on_more_nodes(tmp_path: Path) -> None:
    world = World(tmp_path, law=Law(memory_samples=200))
    world.ran(configuration(1, 64, 0.03), 6.0)
    world.ran(configuration(1, 256, 0.03), 2.0)
    state = world.state()
    beliefs = believe(state, [configuration(2, 256, 0.03)], np.random.default_rng(0))
    assert beliefs.forecast.probability_of_reaching()[0] > 0.5


def test_start_up_is_the_median_of_what_was_measured(world: World) -> None:
    world.cluster = replace(world.cluster, nodes_share_host=False)
    for startup in (0.2, 0.4, 9.0):
        measured = replace(failed(world), startup_seconds=startup)
        world.keep(measured)
    assert world.state().startup_seconds == 0.4


def test_more_ranks_than_before_start_anew(world: World) -> None:
    def started(nodes: int, startup: float) -> None:
        world.keep(
            replace(failed(world), configuration=configuration(nodes, 64, 0.03), startup_seconds=startup)
        )

    started(1, 9.0)
    started(1, 0.1)
    unknown, warm = world.state().more_ranks_seconds, world.state().slice_seconds
    # No more than what is assumed of any start, with 0.2 s for a decision.
    assert (unknown, warm) == (pytest.approx(3.2), pytest.approx(0.3))
    started(2, 4.0)
    started(2, 0.1)
    assert world.state().more_ranks_seconds == pytest.approx(4.2)
    state = world.state()
    beliefs = believe(state, candidates(state, np.random.default_rng(0)), np.random.default_rng(0))
    charged = probe_cost(state, beliefs.prospects, beliefs.price)
    nodes = np.array([c.nodes for c in beliefs.configurations])
    assert set(charged.per_slice[nodes <= 2]) == {state.slice_seconds}
    assert set(charged.per_slice[nodes > 2]) == {state.more_ranks_seconds}


def test_overhead_is_what_scoring_adds_to_training(world: World) -> None:
    world.ran(HERE, 20.0)
    # The law charges a tenth more than it trains, beside the start-up.
    assert world.state().overhead == pytest.approx(1.1, rel=1e-6)


def test_what_was_resumed_elsewhere_is_no_training_paid_for(world: World) -> None:
    started = replace(
        world.prober.slice(HERE, Purpose.STATISTICS, 20.0, make_folder(world)),
        charged_seconds=0.0,
        startup_seconds=0.0,
    )
    went_on = replace(started, training_seconds=started.training_seconds + 10.0, charged_seconds=13.0)
    world.keep(started, replace(went_on, startup_seconds=1.0, curve=()))
    assert world.state().overhead == pytest.approx(1.2)


def make_folder(world: World) -> Path:
    folder = world.folder / "made"
    folder.mkdir()
    return folder


def test_noise_goes_with_the_run_that_measured_it(world: World) -> None:
    reported = {}
    for samples, noise in ((1_000, 50.0), (9_000, 300.0)):
        statistic = NoiseStatistic(samples=samples, noise=noise, squared_gradient=2.0, num_estimates=5)
        what = configuration(1, 64 * samples // 1_000, 0.03)
        reported[what] = (statistic,)
        world.keep(
            Measurement(
                configuration=what,
                purpose=Purpose.STATISTICS,
                outcome=Outcome.PAUSED,
                noise=(statistic,),
                samples=samples,
                training_seconds=1.0,
            )
        )
    evidence, _ = world.state().evidence()
    assert {run.configuration: run.noise for run in evidence} == reported


def test_the_untrained_model_s_value_is_the_median_of_those_scored(world: World) -> None:
    for rate, value in ((0.01, 0.08), (0.02, 0.1), (0.03, 0.4)):
        point = CurvePoint(training_seconds=0.0, step=0, samples=0, value=value)
        world.keep(
            Measurement(
                configuration=configuration(1, 64, rate),
                purpose=Purpose.STATISTICS,
                outcome=Outcome.PAUSED,
                curve=(point,),
            )
        )
    assert world.state().start_value == 0.1


def test_a_run_that_failed_in_a_later_slice_keeps_what_it_showed_before(world: World) -> None:
    good = world.prober.slice(HERE, Purpose.STATISTICS, 6.0, make_folder(world))
    beyond = CurvePoint(training_seconds=9.0, step=900, samples=57_600, value=0.5)
    broken = replace(failed(world), curve=(beyond,), samples=57_600, training_seconds=9.0)
    world.keep(good, broken)
    state = world.state()
    run = run_of(state, HERE)
    assert run is not None
    assert (run.can_continue, run.is_open) == (True, False)
    assert run.measurement.samples == good.samples
    assert run.measurement.curve == good.curve
    assert state.num_faults == 1
    assert state.spent.seconds == pytest.approx(good.charged_seconds + 2.0)


def test_a_probe_that_failed_at_once_is_no_run(world: World) -> None:
    world.keep(failed(world))
    assert world.state().runs == {}


def test_the_predictor_receives_the_status_of_each_run(world: World) -> None:
    world.ran(HERE, 5.0)
    world.ran(configuration(1, 64, 1.01), 5.0)  # beyond the edge of the law
    evidence, statuses = world.state().evidence()
    assert [e.diverged for e in evidence] == [False, True]
    going, ended = statuses.values()
    assert isinstance(going, RunState)
    assert (going.index, going.ended, ended.index, ended.ended) == (0, False, 1, True)
    assert going.training_seconds == pytest.approx(5.0, rel=0.05)
    assert math.isclose(going.samples, world.state().slices[0].samples)


def test_the_same_probes_give_the_same_state_in_another_process(world: World) -> None:
    world.ran(HERE, 5.0)
    again = read_state(world.job, make_cluster(world.job), world.probes(), 20_000)
    assert again == world.state()


def made_slice(probe: ProbeRecord, outcome: Outcome, value: float) -> Measurement:
    """The next slice of a probe: 100 samples further, with one score where it trains."""
    number = len(probe.slices) + 1
    point = CurvePoint(training_seconds=float(number), step=number, samples=100 * number, value=value)
    return Measurement(
        configuration=probe.configuration,
        purpose=probe.purpose,
        outcome=outcome,
        curve=() if probe.purpose is Purpose.TIMING else (point,),
        step=number,
        samples=point.samples,
        training_seconds=point.training_seconds,
        charged_seconds=1.3,
        charged_dollars=0.1,
        startup_seconds=0.3,
    )


@examples(40)
@given(
    events=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from([Outcome.PAUSED, Outcome.STOPPED, Outcome.FAILED, Outcome.OUT_OF_MEMORY]),
            st.floats(0.1, 0.9),
        ),
        max_size=25,
    )
)
def test_a_state_read_with_the_cache_of_earlier_ones_equals_one_read_anew(
    events: list[tuple[int, Outcome, float]],
) -> None:
    job = make_job()
    cluster, cache = make_cluster(job), RunCache(job)
    probes = [
        ProbeRecord(
            probe_id=number,
            study_id=0,
            # Two probes of each configuration, so that the more advanced run counts.
            configuration=configuration(1, 64, [0.01, 0.03, 0.1][number // 2]),
            purpose=Purpose.TIMING if number == 5 else Purpose.STATISTICS,
            trial_number=None,
            slices=(),
            outcome=Outcome.PAUSED,
            reason="",
            lease=None,
            created_at=0.0,
        )
        for number in range(6)
    ]
    for number, outcome, value in events:
        probe = probes[number]
        if probe.outcome.can_continue:
            slices = (*probe.slices, made_slice(probe, outcome, value))
            probes[number] = replace(probe, slices=slices, outcome=outcome)
        else:
            probes[number] = replace(probe, reason=f"{probe.reason}, looked at again")
        known = read_state(job, cluster, probes, 20_000, cache=cache)
        fresh = read_state(job, cluster, probes, 20_000)
        assert known == fresh
        assert known.runs.keys() == fresh.runs.keys()
        assert (known.slice_seconds, known.overhead) == (fresh.slice_seconds, fresh.overhead)


def test_a_probe_that_was_given_up_is_read_again(world: World) -> None:
    world.ran(configuration(), 2.0)
    cache, (probe,) = RunCache(world.job), world.probes()
    before, after = cache.run(probe), cache.run(replace(probe, outcome=Outcome.STOPPED))
    assert before is not None
    assert before.can_continue
    assert after is not None
    assert after.has_ended
