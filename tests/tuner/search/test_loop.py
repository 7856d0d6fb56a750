from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.tuner.search.scripted import (
    GOOD,
    SMALL_SPACE,
    DyingProber,
    FailingProber,
    Killed,
    Scripted,
    SlowProber,
    go_on,
    slow_prober,
    small_world,
    start,
    transfer,
    trial_states,
)
from tests.tuner.search.synthetic import Law, SyntheticProber
from tests.tuner.search.world import World, configuration, make_job
from tuner.domain.errors import StorageError
from tuner.domain.ledger import Lease, ProbeRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.probes import ProbeHandle
from tuner.probes.probe_folder import ProbeFolder
from tuner.search.beliefs import seconds_ratio
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import StopKind
from tuner.search.train_policy import TrainPolicy


def facts(probes: list[ProbeRecord]) -> list[tuple[object, ...]]:
    """What a search did, but for clocks, folders and lease attempts."""
    return [
        (
            p.configuration,
            p.purpose,
            p.trial_number,
            p.outcome,
            tuple(replace(m, checkpoint=None) for m in p.slices),
        )
        for p in probes
    ]


def test_a_search_ends_with_a_run_that_arrived(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    result = world.search(ModelPolicy()).run()
    stop = result.stop
    assert stop.kind is StopKind.ARRIVED
    assert result.beliefs is not None
    assert any(run.arrived for run in world.state().runs.values())
    assert world.texts("end") == [stop.reason]
    assert len(world.texts("slice")) == len(world.state().slices)
    assert re.search(r"score 0\.\d+ after \d+ samples, [\d.]+ s of training", world.texts("slice")[-1])


def test_a_slice_that_ended_without_being_written_down_is_lost_when_its_probe_goes_on(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(Scripted(start(GOOD))).run()
    (probe,) = world.probes()
    folder = next((tmp_path / "probes").glob("*/*"))
    known = [point for measurement in probe.slices for point in measurement.curve]
    unknown = replace(known[-1], samples=known[-1].samples + 1)
    # As the ranks' prober leaves it where the tuner is killed between the end and the ledger.
    ended = ProbeFolder(folder)
    for point in known:
        ended.add_point(point)
    ended.end_slice(Outcome.PAUSED)
    late = ProbeFolder(folder)
    late.add_point(unknown)
    late.end_slice(Outcome.PAUSED)
    assert ProbeFolder(folder).lost_points(unknown.samples) == []
    world.search(Scripted(go_on(probe.probe_id, 8.0))).run()
    after = ProbeFolder(folder)
    assert after.lost_points(unknown.samples) == [unknown]
    assert after.reported_samples == {point.samples for point in known}


@pytest.mark.slow
def test_a_search_killed_after_every_slice_does_what_an_unbroken_one_does(tmp_path: Path) -> None:
    unbroken = small_world(tmp_path / "unbroken")
    unbroken.search(ModelPolicy()).run()
    assert len(unbroken.state().slices) >= 4
    for every in (1, 2, 3):
        world = small_world(tmp_path / f"every-{every}")
        for life in range(100):
            dying = DyingProber(world.prober, slices=every)
            try:
                world.search(ModelPolicy(), prober=dying, owner=f"life {life}").run()
                break
            except Killed:
                world.clock.sleep(61.0)  # until the dead one's lease has run out
        assert life > 0
        stored = facts(world.probes())
        assert [k[:2] + k[3:] for k in stored] == [k[:2] + k[3:] for k in facts(unbroken.probes())]
        assert world.prober.charged_seconds == pytest.approx(world.state().spent.seconds)


def test_a_search_killed_before_slices_are_written_down_pays_for_those_alone(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    longest, deaths = 0.0, 0
    for life in range(100):
        dying = DyingProber(world.prober, slices=2, works=True)
        paid = world.prober.charged_seconds
        try:
            world.search(ModelPolicy(), prober=dying, owner=f"life {life}").run()
            break
        except Killed:
            deaths += 1
            longest = max(longest, world.prober.charged_seconds - paid)
            world.clock.sleep(61.0)
    assert 0 < deaths < 99
    twice = world.prober.charged_seconds - world.state().spent.seconds
    assert 0 < twice <= deaths * longest
    # A probe that was cut off in its first slice is taken again, never begun a second time.
    pairs = [(p.configuration, p.purpose is Purpose.TIMING) for p in world.probes()]
    assert len(pairs) == len(set(pairs))


def test_a_probe_whose_first_slice_was_cut_off_is_taken_again_not_doubled(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    with pytest.raises(Killed):
        world.search(Scripted(start(GOOD)), prober=DyingProber(world.prober, slices=0, works=True)).run()
    assert [p.slices for p in world.probes()] == [()]
    world.clock.sleep(61.0)
    world.search(Scripted(start(GOOD, 8.0)), owner="second").run()
    (probe,) = world.probes()
    assert len(probe.slices) == 1
    assert world.prober.resumed_at_steps[0] == 0 < world.prober.resumed_at_steps[1]
    assert len(world.optuna_study.get_trials()) == 1


def test_a_timing_never_takes_up_a_run_that_was_cut_off(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    with pytest.raises(Killed):
        world.search(Scripted(start(GOOD)), prober=DyingProber(world.prober, slices=0)).run()
    world.clock.sleep(61.0)
    world.search(Scripted(start(GOOD, purpose=Purpose.TIMING)), owner="second").run()
    assert [(p.purpose, len(p.slices)) for p in world.probes()] == [
        (Purpose.STATISTICS, 0),
        (Purpose.TIMING, 1),
    ]


def take_from_first(world: World) -> Callable[[], None]:
    def take() -> None:
        world.clock.sleep(1000.0)
        world.ledger.take_probe(1, owner="another", lease_seconds=5.0)

    return take


def test_a_lease_is_renewed_while_a_slice_is_under_way(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    prober = slow_prober(world)
    prober.polls = 3000  # at a twentieth of a second each: more than twice the lease
    world.search(Scripted(start(GOOD)), prober=prober).run()
    assert len(world.probes()[0].slices) == 1
    assert world.texts("warning") == []


def test_no_lease_runs_out_while_another_probe_is_under_way(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    run_out: list[int] = []

    class LongProber(SlowProber):
        def poll(self, handle: ProbeHandle) -> Measurement:
            run_out.extend(probe.probe_id for probe in world.probes() if probe.expired_lease)
            measurement = super().poll(handle)
            if measurement.outcome is not Outcome.RUNNING:
                self.polls = 3000
            return measurement

    prober = LongProber(law=world.law, clock=world.clock, cluster=world.cluster)
    prober.polls = 3000  # at a twentieth of a second each: more than twice the lease
    world.search(Scripted(start(GOOD), start(configuration(1, 128, 0.08))), prober=prober).run()
    assert [len(probe.slices) for probe in world.probes()] == [1, 1]
    assert run_out == []


class RemarkingProber(SlowProber):
    """Remarks the same while a slice runs, and something more at its end."""

    def poll(self, handle: ProbeHandle) -> Measurement:
        measurement = super().poll(handle)
        more = () if measurement.outcome is Outcome.RUNNING else ("at the end",)
        return replace(measurement, remarks=("while it runs", *more))


def test_a_remark_is_shown_once_and_while_its_slice_runs(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    shown: list[tuple[str, ...]] = []
    prober = RemarkingProber(law=world.law, clock=world.clock, cluster=world.cluster)
    prober.meanwhile = lambda: shown.append(tuple(world.texts("warning")))
    world.search(Scripted(start(GOOD), go_on(1, 8.0)), prober=prober).run()
    assert shown == [("while it runs",)]
    assert world.texts("warning") == ["while it runs", "at the end"]


def test_a_lease_lost_in_mid_slice_is_a_warning_and_the_search_goes_on(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    prober = slow_prober(world)
    prober.meanwhile = take_from_first(world)
    other = configuration(1, 128, 0.08)
    stop = world.search(Scripted(start(GOOD), start(other)), prober=prober).run().stop
    assert stop.reason == "the script is over"
    (warning,) = world.texts("warning")
    assert "was taken by another" in warning
    assert "is not stored" in warning
    lost, stored = world.probes()
    assert lost.slices == ()
    assert (stored.configuration, len(stored.slices)) == (other, 1)


def test_a_lease_lost_as_the_slice_ends_is_a_warning_too(tmp_path: Path) -> None:
    world = small_world(tmp_path)

    class LateProber(SyntheticProber):
        def poll(self, handle: ProbeHandle) -> Measurement:
            take_from_first(world)()
            return super().poll(handle)

    late = LateProber(law=world.law, clock=world.clock)
    world.search(Scripted(start(GOOD)), prober=late).run()
    assert len(world.texts("warning")) == 1
    assert world.probes()[0].slices == ()


def test_an_interrupted_slice_is_cancelled_and_charged_and_its_lease_given_back(tmp_path: Path) -> None:
    world = small_world(tmp_path)

    def interrupt() -> None:
        raise KeyboardInterrupt

    prober = slow_prober(world)
    prober.meanwhile = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.search(Scripted(start(GOOD)), prober=prober).run()
    assert world.probes()[0].lease is None
    assert prober.cancelled == 1
    (slice_,) = world.probes()[0].slices
    assert (slice_.outcome, slice_.samples) == (Outcome.PAUSED, 0)
    assert slice_.charged_seconds == prober.charged_seconds > 0


@pytest.mark.parametrize("call", ["start_probe", "take_probe"])
def test_a_search_interrupted_between_a_lease_and_its_slice_gives_the_lease_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    world = small_world(tmp_path)
    lease = world.ran(GOOD, 4.0)
    taken = getattr(world.ledger, call)

    def interrupted(*args: Any, **options: Any) -> Lease:
        taken(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(world.ledger, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.search(Scripted(go_on(lease.probe_id, 8.0), start(configuration(2, 64, 0.08)))).run()
    assert len(world.probes()) == (2 if call == "start_probe" else 1)
    assert all(probe.lease is None for probe in world.probes())


def test_a_search_that_ends_leaves_another_tuners_lease_alone(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    lease = world.ran(GOOD, 4.0)
    held = world.ledger.take_probe(lease.probe_id, owner="second", lease_seconds=1e6)
    world.search(Scripted(start(configuration(2, 64, 0.08)))).run()
    assert [probe.lease for probe in world.probes()] == [held, None]


def test_a_run_resumed_on_more_nodes_keeps_its_samples_and_prices_its_seconds(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    there = GOOD.replaced(nodes=2)
    world.search(Scripted(start(GOOD, 6.0), transfer(there, 1, 8.0))).run()
    before, after = world.probes()
    started = after.slices[0]
    assert started.samples == before.slices[0].samples
    assert (started.charged_seconds, started.charged_dollars) == (0.0, 0.0)
    ratio = seconds_ratio(replace(world.state(), probes=(before,)), there, GOOD)
    assert started.training_seconds == pytest.approx(ratio * before.slices[0].training_seconds, rel=1e-6)
    assert after.slices[1].samples > started.samples
    assert after.slices[1].training_seconds == pytest.approx(8.0, abs=0.2)
    samples = [p.samples for p in after.measurement.curve] if after.measurement else []
    assert samples == sorted(set(samples))
    spent = before.slices[0].charged_seconds + after.slices[1].charged_seconds
    assert world.state().spent.seconds == pytest.approx(spent)


def test_what_was_resumed_elsewhere_has_ended(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(Scripted(start(GOOD, 6.0), transfer(GOOD.replaced(nodes=2), 1, 8.0), go_on(2, 9.0))).run()
    before, after = world.probes()
    assert (before.outcome, before.reason) == (Outcome.STOPPED, "resumed as probe 2")
    assert after.outcome is Outcome.PAUSED
    assert TrialState.RUNNING not in trial_states(world)


def test_a_run_resumed_twice_elsewhere_goes_on_from_its_own_clock(tmp_path: Path) -> None:
    job = make_job(space=SMALL_SPACE)
    world = World(tmp_path, job=job, law=Law(samples=8e4, seconds_per_sample=1e-3))
    two, four = GOOD.replaced(nodes=2), GOOD.replaced(nodes=4)
    world.search(Scripted(start(GOOD, 6.0), transfer(two, 1, 8.0), transfer(four, 2, 12.0))).run()
    last = world.probes()[-1]
    assert last.slices[0].training_seconds < last.slices[1].training_seconds
    assert last.slices[1].training_seconds == pytest.approx(12.0, abs=0.5)


def test_a_run_whose_rank_was_killed_goes_on_from_its_checkpoint_as_another_probe(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    failing = FailingProber(law=world.law, clock=world.clock)
    stop = world.search(TrainPolicy(GOOD), prober=failing).run().stop
    assert stop.kind is StopKind.FAULTS
    stop = world.search(TrainPolicy(GOOD), prober=world.prober).run().stop
    assert stop.kind is StopKind.ARRIVED
    broken, whole = world.probes()
    assert broken.outcome is Outcome.FAILED
    assert whole.outcome is Outcome.REACHED
    assert whole.slices[0].charged_seconds == 0.0
    assert whole.slices[0].samples == broken.slices[0].samples
    assert world.prober.resumed_at_steps[0] >= broken.slices[0].step > 0


def test_a_search_whose_rank_was_killed_resumes_the_run(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    failing = FailingProber(law=world.law, clock=world.clock)
    stop = world.search(ModelPolicy(), prober=failing).run().stop
    assert stop.kind is StopKind.ARRIVED
    assert [p.outcome for p in world.probes()].count(Outcome.FAILED) == 1


def test_a_checkpoint_that_is_gone_is_said_in_words(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(Scripted(start(GOOD))).run()
    checkpoint = Path(world.probes()[0].slices[0].checkpoint or "")
    checkpoint.unlink()
    with pytest.raises(
        StorageError, match=r"the checkpoint .* of probe 1 is missing; restore it, or start a new study with"
    ):
        world.search(Scripted(go_on(1, 9.0))).run()


def test_a_probe_folder_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    (tmp_path / "probes").write_text("a file where the folder should be")
    with pytest.raises(
        StorageError, match=r"the probe folder .* cannot be created: .*; choose another --output"
    ):
        world.search(Scripted(start(GOOD))).run()
