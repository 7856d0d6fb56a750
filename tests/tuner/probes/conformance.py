"""What every prober must do; a prober's tests derive from `ProberConformance` and give it one."""

import time
from pathlib import Path

import pytest

from search_spaces import Configuration
from tuner.domain.errors import StorageError
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.probes import ProbeHandle, Prober, Until

TIME_LIMIT_SECONDS = 90


def ended(prober: Prober, handle: ProbeHandle) -> Measurement:
    """The slice's measurement once it ended; the prober must not block, so this polls."""
    limit = time.monotonic() + TIME_LIMIT_SECONDS
    while time.monotonic() < limit:
        measurement = prober.poll(handle)
        if measurement.outcome is not Outcome.RUNNING:
            return measurement
        time.sleep(0.01)
    prober.cancel(handle)
    raise AssertionError(f"still running after {TIME_LIMIT_SECONDS} s: {prober.poll(handle)}")


def new_scores(measurement: Measurement, known_samples: int) -> list[int]:
    """Samples of a slice's scores: those after what was known, if its curve is that of a whole pass."""
    found = [point.samples for point in measurement.curve]
    if measurement.restart_seconds is None:
        return found
    return [samples for samples in found if samples > known_samples]


class ProberConformance:
    """Give `prober` and `configuration`: a configuration that neither diverges nor reaches the target."""

    @pytest.fixture
    def prober(self) -> Prober:
        raise NotImplementedError

    @pytest.fixture
    def configuration(self) -> Configuration:
        raise NotImplementedError

    def test_statistics_slice_pauses_where_it_was_asked_to_with_curve_and_charge(
        self, prober: Prober, configuration: Configuration, tmp_path: Path
    ) -> None:
        handle = prober.start(configuration, Purpose.STATISTICS, Until(samples=300), tmp_path / "probe")
        assert prober.poll(handle).outcome in (Outcome.RUNNING, Outcome.PAUSED)
        measurement = ended(prober, handle)
        assert measurement.outcome is Outcome.PAUSED, measurement.error
        assert measurement.configuration == configuration
        assert measurement.purpose is Purpose.STATISTICS
        assert 300 <= measurement.samples < 300 + configuration.batch_size
        assert measurement.curve[0].samples == 0
        samples = [point.samples for point in measurement.curve]
        assert samples == sorted(set(samples))
        seconds = [point.training_seconds for point in measurement.curve]
        assert seconds == sorted(seconds)
        assert seconds[-1] <= measurement.training_seconds
        assert measurement.charged_seconds > 0
        assert measurement.error is None

    def test_ended_slice_is_reported_the_same_again(
        self, prober: Prober, configuration: Configuration, tmp_path: Path
    ) -> None:
        handle = prober.start(configuration, Purpose.STATISTICS, Until(steps=3), tmp_path / "probe")
        first = ended(prober, handle)
        assert prober.poll(handle) == first

    def test_next_slice_goes_on_where_the_one_before_ended(
        self, prober: Prober, configuration: Configuration, tmp_path: Path
    ) -> None:
        folder = tmp_path / "probe"
        first = ended(prober, prober.start(configuration, Purpose.STATISTICS, Until(samples=200), folder))
        second = ended(prober, prober.start(configuration, Purpose.STATISTICS, Until(samples=500), folder))
        assert first.outcome is second.outcome is Outcome.PAUSED
        assert second.samples > first.samples
        assert second.step > first.step
        assert second.training_seconds > first.training_seconds
        assert all(samples > first.samples for samples in new_scores(second, first.samples))

    def test_cancelled_slice_is_stopped_and_cancelling_again_changes_nothing(
        self, prober: Prober, configuration: Configuration, tmp_path: Path
    ) -> None:
        until = Until(training_seconds=3600)
        handle = prober.start(configuration, Purpose.TRAINING, until, tmp_path / "probe")
        prober.poll(handle)
        prober.cancel(handle)
        measurement = prober.poll(handle)
        assert measurement.outcome is Outcome.STOPPED
        prober.cancel(handle)
        assert prober.poll(handle) == measurement

    def test_two_slices_run_at_once(
        self, prober: Prober, configuration: Configuration, tmp_path: Path
    ) -> None:
        handles = [
            prober.start(configuration, Purpose.STATISTICS, Until(samples=200), tmp_path / name)
            for name in ("one", "two")
        ]
        one, two = (ended(prober, handle) for handle in handles)
        assert one.outcome is two.outcome is Outcome.PAUSED
        assert [p.value for p in one.curve] == [p.value for p in two.curve]

    def test_timing_probe_times_steps_and_scores_nothing(
        self, prober: Prober, configuration: Configuration, tmp_path: Path
    ) -> None:
        handle = prober.start(configuration, Purpose.TIMING, Until(steps=20), tmp_path / "probe")
        measurement = ended(prober, handle)
        assert measurement.outcome is Outcome.STOPPED
        assert measurement.step == 20
        assert measurement.curve == ()
        assert measurement.step_seconds is not None
        assert measurement.step_seconds.count >= 10

    @pytest.mark.parametrize("scores", [1, 2])
    def test_slice_ends_right_after_as_many_scores_as_it_was_asked_for_also_when_resumed(
        self, prober: Prober, configuration: Configuration, tmp_path: Path, scores: int
    ) -> None:
        known, until = 0, Until(scores=scores)
        for _ in range(2):
            handle = prober.start(configuration, Purpose.STATISTICS, until, tmp_path / "probe")
            measurement = ended(prober, handle)
            assert measurement.outcome is Outcome.PAUSED, measurement.error
            # The score of the untrained model is not one of them.
            trained = [samples for samples in new_scores(measurement, known) if samples > 0]
            assert len(trained) == scores
            assert trained[0] > known
            assert trained[-1] <= measurement.samples < trained[-1] + configuration.batch_size
            known = measurement.samples

    def test_slice_that_reaches_another_end_before_its_scores_ends_there(
        self, prober: Prober, configuration: Configuration, tmp_path: Path
    ) -> None:
        until = Until(scores=100, samples=300)
        handle = prober.start(configuration, Purpose.STATISTICS, until, tmp_path / "probe")
        measurement = ended(prober, handle)
        assert measurement.outcome is Outcome.PAUSED, measurement.error
        assert 300 <= measurement.samples < 300 + configuration.batch_size

    def test_timing_probe_ignores_scores(
        self, prober: Prober, configuration: Configuration, tmp_path: Path
    ) -> None:
        handle = prober.start(configuration, Purpose.TIMING, Until(steps=20, scores=1), tmp_path / "probe")
        measurement = ended(prober, handle)
        assert (measurement.outcome, measurement.step, measurement.curve) == (Outcome.STOPPED, 20, ())

    def test_folder_that_cannot_be_made_is_a_storage_error(
        self, prober: Prober, configuration: Configuration, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot be used"):
            prober.start(configuration, Purpose.TIMING, Until(steps=10), tmp_path / "file" / "probe")
