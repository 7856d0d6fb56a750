import math
from dataclasses import replace

import numpy as np
import pytest

from search_spaces import Configuration, traits_of
from tests.recorded_grid import TARGET, configuration, grid, recorded_run
from tuner.domain.errors import JobError
from tuner.domain.measurement import CurvePoint, crossing
from tuner.recordings.recording import RecordedRun, Recording, samples_at


def run_of(*points, **more):
    return RecordedRun(
        configuration=configuration(), step_seconds=1.0, curve=np.array(points, dtype=float), **more
    )


def recording_of(*runs, **more):
    header = {"name": "r", "metric": "accuracy", "maximize": True, "target": 0.9}
    return Recording(**{**header, **more}, runs=runs)


def test_the_truth_is_the_first_crossing_linear_between_the_scorings_around_it():
    run = run_of((10, 10, 0.5), (20, 20, 0.8), (30, 30, 1.0), (40, 40, 0.7), (50, 50, 1.0))
    assert recording_of(run).truth_seconds(run) == pytest.approx(25.0)


def test_a_first_scoring_past_the_target_counts_where_it_stands():
    run = run_of((10, 10, 0.95), (20, 20, 0.99))
    assert recording_of(run).truth_seconds(run) == 10.0


def test_the_untrained_model_does_not_count():
    run = run_of((0, 0, 0.1), (10, 10, 0.95))
    assert recording_of(run).truth_seconds(run) == 10.0


def test_a_run_that_never_crosses_takes_for_ever():
    run = run_of((10, 10, 0.5), (20, 20, 0.8))
    assert recording_of(run).truth_seconds(run) == math.inf
    assert recording_of(run).truth_seconds(run, 0.8) == 20.0
    assert recording_of(run_of()).truth_seconds(replace(run, curve=np.zeros((0, 3)))) == math.inf


def test_a_metric_that_falls_is_reached_from_above():
    run = run_of((10, 10, 3.0), (20, 20, 1.0))
    assert recording_of(run, maximize=False, target=2.0).truth_seconds(run) == pytest.approx(15.0)


def test_the_truth_is_what_a_search_takes_for_the_crossing():
    for run in grid().runs:
        points = [
            CurvePoint(
                training_seconds=s, step=int(k), samples=int(samples_at(k, run.configuration)), value=v
            )
            for s, k, v in run.curve.tolist()
        ]
        found = crossing(points, TARGET, maximize=True)
        assert grid().truth_seconds(run) == (found[1] if found else math.inf)


def test_configurations_come_once_in_the_order_of_the_file():
    one, two = configuration(nodes=2), configuration(nodes=1)
    recording = recording_of(
        recorded_run(one, data_fraction=0.1),
        recorded_run(two),
        recorded_run(one),
        recorded_run(one, points=3),
    )
    assert recording.configurations() == [one, two]
    assert recording.configurations(1.0) == [two, one]
    assert recording.configurations(0.1) == [one]


def test_the_run_of_a_configuration_is_that_with_the_largest_share_of_the_data():
    small, large = (recorded_run(configuration(), data_fraction=share) for share in (0.1, 0.5))
    recording = recording_of(large, small)
    assert recording.run(configuration()) is large
    assert recording.run(configuration(), 0.1) is small
    with pytest.raises(JobError, match=r"has no run with data_fraction 1, only with 0\.5, 0\.1"):
        recording.run(configuration(), 1.0)


def test_what_was_not_recorded_is_refused_and_the_nearest_named():
    with pytest.raises(JobError, match="is not in recording grid; the nearest there is nodes=2"):
        grid().run(configuration(nodes=3))


def test_between_scorings_steps_and_seconds_follow_each_other_and_end_with_the_recording():
    run = run_of((10, 5, 0.5), (20, 15, 0.8))
    assert run.step_at(5.0) == 2.5
    assert run.step_at(15.0) == 10.0
    assert run.seconds_at(10.0) == 15.0
    assert run.step_at(99.0) == run.num_steps == 15
    assert run.seconds_at(99.0) == run.seconds == 20


def test_the_space_and_the_cluster_are_those_of_the_recording():
    recording = grid()
    assert recording.space.candidates() == recording.configurations()
    assert recording.cluster.node_counts == (1, 2)
    assert recording.cluster.extra_nodes == 1
    assert recording.cluster.oversubscription(2) == 1.0
    # Two large nodes, and one more that is charged besides.
    what = configuration(nodes=2, machine="large")
    assert recording.cluster.dollars_per_second(what) == pytest.approx(3 * 1.80 / 3600)


def test_strategies_that_a_recording_names_become_known():
    run = replace(recorded_run(configuration()), configuration=configuration(strategy="hogwild_async"))
    recording_of(run)
    assert not traits_of("hogwild_async").barrier


def test_samples_are_steps_times_the_stated_batch_size():
    assert samples_at(3, Configuration(batch_size=16)) == 48
    assert samples_at(3, Configuration(nodes=4)) == 3
