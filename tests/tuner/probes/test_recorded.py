import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search_spaces import Configuration
from tests.recorded_grid import STARTUP_SECONDS, configuration, grid, recorded_run
from tests.tuner.probes.conformance import ProberConformance
from tuner.domain.errors import JobError, ProbeError, StorageError
from tuner.domain.measurement import Measurement, Outcome, Purpose, crossing, merged
from tuner.probes import Until
from tuner.probes.recorded import RecordedProber
from tuner.recordings.recording import RecordedRun, Recording
from tuner.search.checkpoint_transfer import resume_on_other_nodes

ONE = configuration()


def recording_of(*points, end=None, configurations=(ONE,), **more):
    """Runs with one curve, ten steps a second; `step_seconds` follows."""
    runs = [
        RecordedRun(
            configuration=what,
            step_seconds=0.1,
            curve=np.array([(s, round(10 * s), v) for s, v in points], dtype=float).reshape(-1, 3),
            end=end,
            seconds_std=0.5,
        )
        for what in configurations
    ]
    header = {"name": "r", "metric": "accuracy", "maximize": True, "target": 0.9, "startup_seconds": 2.0}
    return Recording(**{**header, **more}, runs=tuple(runs))


PLAIN = ((1.0, 0.2), (2.0, 0.4), (4.0, 0.6), (8.0, 0.8))


def probe(prober, folder, purpose=Purpose.TRAINING, what=ONE, **until) -> Measurement:
    return prober.poll(prober.start(what, purpose, Until(**until), folder))


class TestConformance(ProberConformance):
    @pytest.fixture(params=[True, False], ids=["resumes", "starts over"])
    def prober(self, request: pytest.FixtureRequest) -> RecordedProber:
        recording = recording_of((0.0, 0.1), *PLAIN, (16.0, 0.85), end="one pass")
        return RecordedProber(recording, can_resume=request.param)

    @pytest.fixture
    def configuration(self) -> Configuration:
        return ONE


def test_a_slice_sees_the_curve_up_to_its_seconds_and_pays_start_up_and_those_seconds(tmp_path):
    prober = RecordedProber(recording_of(*PLAIN))
    seen = probe(prober, tmp_path / "a", training_seconds=3.0)
    assert seen.outcome is Outcome.PAUSED
    assert [(p.training_seconds, p.step, p.samples, p.value) for p in seen.curve] == [
        (1.0, 10, 320, 0.2),
        (2.0, 20, 640, 0.4),
    ]
    assert (seen.training_seconds, seen.step, seen.samples) == (3.0, 30, 960)
    assert (seen.startup_seconds, seen.charged_seconds) == (2.0, 5.0)
    assert (seen.error, seen.parameter_bytes) == (None, 0)


def test_going_on_pays_only_for_what_is_new_and_starts_up_no_more(tmp_path):
    recording = recording_of(*PLAIN)
    probe(RecordedProber(recording), tmp_path / "a", training_seconds=3.0)
    # Another process: all it has is the folder.
    seen = probe(RecordedProber(recording), tmp_path / "a", training_seconds=5.0)
    assert [p.training_seconds for p in seen.curve] == [4.0]
    assert (seen.startup_seconds, seen.charged_seconds, seen.training_seconds) == (0.0, 2.0, 5.0)
    other = probe(RecordedProber(recording), tmp_path / "b", training_seconds=5.0)
    assert (other.startup_seconds, other.charged_seconds) == (2.0, 7.0)


def test_what_was_seen_already_is_not_charged_again(tmp_path):
    prober = RecordedProber(recording_of(*PLAIN))
    probe(prober, tmp_path / "a", training_seconds=3.0)
    seen = probe(prober, tmp_path / "a", training_seconds=2.0)
    assert (seen.outcome, seen.charged_seconds, seen.training_seconds) == (Outcome.PAUSED, 0.0, 3.0)
    assert seen.curve == ()


def test_dollars_are_those_of_the_configuration_s_machines_and_of_what_stands_beside_them(tmp_path):
    what = configuration(nodes=2, machine="large")
    seen = probe(RecordedProber(grid()), tmp_path / "a", what=what, training_seconds=1.0)
    assert seen.charged_seconds == 1.0 + STARTUP_SECONDS
    assert seen.charged_dollars == pytest.approx(seen.charged_seconds * 3 * 1.80 / 3600)


@pytest.mark.parametrize(("until", "seconds"), [({"samples": 650}, 2.1), ({"steps": 25}, 2.5)])
def test_samples_and_steps_end_a_slice_too(tmp_path, until, seconds):
    seen = probe(RecordedProber(recording_of(*PLAIN)), tmp_path / "a", training_seconds=9.0, **until)
    assert seen.training_seconds == pytest.approx(seconds)
    assert len(seen.curve) == 2


def test_steps_are_counted_from_where_the_slice_begins(tmp_path):
    prober = RecordedProber(recording_of(*PLAIN))
    probe(prober, tmp_path / "a", steps=15)
    assert probe(prober, tmp_path / "a", steps=15).step == 30


def test_a_run_ends_at_the_scoring_that_is_past_the_target(tmp_path):
    recording = recording_of((1.0, 0.2), (3.0, 0.8), (5.0, 1.0), (7.0, 1.0))
    seen = probe(RecordedProber(recording), tmp_path / "a", training_seconds=100.0)
    assert seen.outcome is Outcome.REACHED
    assert (seen.training_seconds, seen.charged_seconds, seen.step) == (5.0, 7.0, 50)
    found = crossing(seen.curve, 0.9, maximize=True)
    assert found is not None
    assert found[1] == pytest.approx(recording.truth_seconds(recording.runs[0])) == pytest.approx(4.0)


def test_another_target_than_the_recording_s_may_be_asked_for(tmp_path):
    prober = RecordedProber(recording_of(*PLAIN), target=0.5)
    seen = probe(prober, tmp_path / "a", training_seconds=100.0)
    assert (seen.outcome, seen.training_seconds) == (Outcome.REACHED, 4.0)


def test_a_metric_that_falls_reaches_its_target_from_above(tmp_path):
    recording = recording_of((1.0, 3.0), (2.0, 1.0), maximize=False, target=2.0)
    assert probe(RecordedProber(recording), tmp_path / "a", training_seconds=9.0).outcome is Outcome.REACHED


def test_past_the_recording_s_end_nothing_is_known(tmp_path):
    seen = probe(RecordedProber(recording_of(*PLAIN, end="one pass")), tmp_path / "a", training_seconds=100.0)
    assert (seen.outcome, seen.error) == (Outcome.STOPPED, None)
    assert (seen.training_seconds, seen.charged_seconds) == (8.0, 10.0)


def test_a_recording_that_says_so_diverged(tmp_path):
    seen = probe(RecordedProber(recording_of(*PLAIN, end="diverged")), tmp_path / "a", training_seconds=100.0)
    assert seen.outcome is Outcome.DIVERGED


def test_a_run_without_any_scoring_ends_at_once(tmp_path):
    seen = probe(RecordedProber(recording_of(end="time limit")), tmp_path / "a", training_seconds=5.0)
    assert (seen.outcome, seen.charged_seconds, seen.ranks) == (Outcome.STOPPED, 2.0, ())


def test_a_timing_sees_step_seconds_alone_and_leaves_nothing_behind(tmp_path):
    prober = RecordedProber(recording_of(*PLAIN))
    seen = probe(prober, tmp_path / "a", Purpose.TIMING, steps=40, training_seconds=1.5)
    assert (seen.outcome, seen.curve, seen.charged_seconds) == (Outcome.STOPPED, (), 3.5)
    assert probe(prober, tmp_path / "b", Purpose.TIMING, training_seconds=60.0).step == 30
    assert probe(prober, tmp_path / "a", training_seconds=1.0).charged_seconds == 3.0


def test_step_seconds_are_the_recorded_mean_with_its_spread_between_repetitions(tmp_path):
    seen = probe(RecordedProber(recording_of(*PLAIN)), tmp_path / "a", training_seconds=3.0)
    (rank,) = seen.ranks
    assert (rank.step.median, rank.step.p10, rank.step.mean, rank.step.count) == (0.1, 0.1, 0.1, 30)
    # Half a second in eight, between repetitions of the whole run.
    assert rank.step.std == pytest.approx(0.1 * 0.5 / 8.0)
    assert seen.batch_seconds == seen.ranks[0].step.mean
    asynchronous = replace(seen, configuration=configuration(strategy="parameter_server"))
    assert asynchronous.batch_seconds == pytest.approx(0.1)


def test_slices_of_one_run_add_up_to_the_run_in_one(tmp_path):
    recording = grid()
    for what in recording.configurations():
        folder = tmp_path / str(hash(what))
        prober, slices = RecordedProber(recording), []
        while not slices or slices[-1].outcome is Outcome.PAUSED:
            until = 1.7 * (len(slices) + 1)
            slices.append(probe(prober, folder, what=what, training_seconds=until))
        whole = probe(prober, tmp_path / f"{hash(what)}-whole", what=what, training_seconds=1e9)
        combined = merged(slices)
        assert combined.curve == whole.curve
        assert combined.charged_seconds == pytest.approx(whole.charged_seconds)
        assert combined.charged_dollars == pytest.approx(whole.charged_dollars)
        assert (combined.outcome, combined.training_seconds) == (whole.outcome, whole.training_seconds)


def test_a_slice_that_nobody_heard_of_is_replayed_and_paid_again(tmp_path):
    recording = recording_of(*PLAIN)
    RecordedProber(recording).start(ONE, Purpose.TRAINING, Until(training_seconds=3.0), tmp_path / "a")
    seen = probe(RecordedProber(recording), tmp_path / "a", training_seconds=3.0)
    assert (len(seen.curve), seen.charged_seconds) == (2, 5.0)


def test_a_slice_cancelled_before_it_was_reported_costs_nothing(tmp_path):
    prober = RecordedProber(recording_of(*PLAIN))
    handle = prober.start(ONE, Purpose.TRAINING, Until(training_seconds=3.0), tmp_path / "a")
    prober.close()
    assert prober.poll(handle).charged_seconds == 0.0
    assert probe(prober, tmp_path / "a", training_seconds=3.0).charged_seconds == 5.0


def test_the_largest_share_of_the_data_is_replayed(tmp_path):
    small = recorded_run(ONE, data_fraction=0.1, points=3)
    recording = grid(runs=(small, recorded_run(ONE)))
    seen = probe(RecordedProber(recording), tmp_path / "a", training_seconds=1e9)
    assert seen.curve[0].step == recording.runs[1].curve[0, 1]


def test_nothing_not_yet_paid_for_is_seen(tmp_path):
    recording = grid()
    garbled = [
        replace(run, end="nonsense", curve=np.where(run.curve[:, [0]] > 5.0, [[1, 1, -7.0]], 1.0) * run.curve)
        for run in reversed(recording.runs)
    ]
    other = replace(recording, runs=tuple(garbled))
    for what in recording.configurations():
        until, folder = {"training_seconds": 5.0}, str(hash(what))
        plain = probe(RecordedProber(recording), tmp_path / "plain" / folder, what=what, **until)
        blind = probe(RecordedProber(other), tmp_path / "blind" / folder, what=what, **until)
        assert replace(blind, checkpoint=plain.checkpoint) == plain


def test_a_run_resumed_on_other_nodes_goes_on_with_its_steps_and_its_clock(tmp_path):
    two = configuration(nodes=2)
    fast = RecordedRun(
        configuration=two,
        step_seconds=0.05,
        curve=np.array([(1.0, 20, 0.4), (2.0, 40, 0.6), (4.0, 80, 0.8)]),
    )
    slow = recording_of(*PLAIN)
    recording = replace(slow, runs=(*slow.runs, fast))
    prober = RecordedProber(recording)
    started = probe(prober, tmp_path / "a", training_seconds=3.0)
    (tmp_path / "b").mkdir()
    resume_on_other_nodes(started, tmp_path / "a", tmp_path / "b", two, 0.5)
    seen = probe(prober, tmp_path / "b", what=two, training_seconds=4.0)
    # 30 steps were done in 3 s; ten more take half a second here, and end at the scoring of step 40.
    assert [(p.step, p.training_seconds) for p in seen.curve] == [(40, 3.5)]
    assert (seen.training_seconds, seen.step) == (4.0, 50)
    assert (seen.startup_seconds, seen.charged_seconds) == (2.0, 3.0)


def test_what_was_not_recorded_cannot_be_probed(tmp_path):
    with pytest.raises(JobError, match="is not in recording r; the nearest"):
        probe(RecordedProber(recording_of(*PLAIN)), tmp_path, what=configuration(nodes=7), steps=1)


def test_a_stranger_s_handle_is_refused(tmp_path):
    handle = RecordedProber(recording_of(*PLAIN)).start(ONE, Purpose.TRAINING, Until(steps=1), tmp_path)
    with pytest.raises(ProbeError, match="does not belong to this prober"):
        RecordedProber(recording_of(*PLAIN)).poll(handle)


def test_a_folder_says_what_is_replayed_in_it(tmp_path):
    probe(RecordedProber(recording_of(*PLAIN)), tmp_path / "a", steps=5)
    reported = json.loads((tmp_path / "a" / "probe.json").read_text())
    assert reported["configuration"] == ONE.as_dict()
    assert reported["recording"] == "r"


def test_a_state_that_was_tampered_with_is_a_storage_error(tmp_path):
    seen = probe(RecordedProber(recording_of(*PLAIN)), tmp_path / "a", steps=5)
    Path(seen.checkpoint).write_text("{")
    with pytest.raises(StorageError, match="was changed or is damaged"):
        probe(RecordedProber(recording_of(*PLAIN)), tmp_path / "a", steps=5)


def test_of_several_slices_the_one_that_ends_first_does(tmp_path: Path) -> None:
    prober = RecordedProber(grid())
    ends = {"slow": 20.0, "quick": 5.0, "middle": 9.0}
    handles = {
        name: prober.start(configuration(), Purpose.TRAINING, Until(training_seconds=end), tmp_path / name)
        for name, end in ends.items()
    }
    reported: list[tuple[str, float]] = []
    while handles:
        for name, handle in handles.items():
            if prober.poll(handle).outcome is not Outcome.RUNNING:
                reported.append((name, prober.now()))
                del handles[name]
                break
    assert [name for name, _ in reported] == ["quick", "middle", "slow"]
    # All begun at once: what is charged of each is when it ended.
    assert [seconds for _, seconds in reported] == pytest.approx(
        [STARTUP_SECONDS + ends[n] for n, _ in reported]
    )


def test_a_slice_begins_when_the_one_before_has_ended(tmp_path: Path) -> None:
    prober = RecordedProber(grid())
    for name in ("one", "two"):
        handle = prober.start(configuration(), Purpose.TRAINING, Until(training_seconds=5.0), tmp_path / name)
        assert prober.poll(handle).outcome is Outcome.PAUSED
    assert prober.now() == pytest.approx(2 * (STARTUP_SECONDS + 5.0))


def test_a_slice_that_is_cut_off_is_charged_until_then(tmp_path: Path) -> None:
    prober = RecordedProber(grid())
    long, short = (
        prober.start(configuration(), Purpose.TRAINING, Until(training_seconds=end), tmp_path / str(end))
        for end in (20.0, 5.0)
    )
    assert prober.poll(long).outcome is Outcome.RUNNING
    ended = prober.poll(short)
    prober.cancel(long)
    part = prober.poll(long)
    assert part.outcome is Outcome.STOPPED
    assert part.charged_seconds == pytest.approx(ended.charged_seconds)
    assert part.charged_dollars == pytest.approx(ended.charged_dollars)
    assert (part.samples, part.curve) == (0, ())
    again = prober.start(configuration(), Purpose.TRAINING, Until(training_seconds=5.0), tmp_path / "20.0")
    assert prober.poll(again).step == ended.step


def test_a_slice_that_resumes_pays_the_start_up_where_it_is_charged(tmp_path: Path) -> None:
    prober = RecordedProber(recording_of(*PLAIN), pays_to_resume=True)
    first = probe(prober, tmp_path / "a", training_seconds=3.0)
    second = probe(prober, tmp_path / "a", training_seconds=5.0)
    assert (first.charged_seconds, first.startup_seconds) == (5.0, 2.0)
    assert (second.charged_seconds, second.startup_seconds, second.repeated_seconds) == (4.0, 2.0, 0.0)


def test_a_run_that_cannot_resume_starts_up_and_repeats_with_each_slice(tmp_path: Path) -> None:
    prober = RecordedProber(recording_of(*PLAIN), can_resume=False)
    first = probe(prober, tmp_path / "a", training_seconds=3.0)
    second = probe(prober, tmp_path / "a", training_seconds=5.0)
    assert (first.charged_seconds, first.repeated_seconds) == (5.0, 0.0)
    assert (second.charged_seconds, second.startup_seconds, second.repeated_seconds) == (7.0, 2.0, 3.0)
    # As with a script, what was scored before is not reported again.
    assert [point.training_seconds for point in second.curve] == [4.0]
    assert second.training_seconds == 5.0
