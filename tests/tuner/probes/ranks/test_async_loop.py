"""Real ranks of strategies without a barrier: they train, pause, go on, and outlive each other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search_spaces import STRATEGIES, Configuration, with_knobs
from tests.levels import mostly_slow
from tests.tuner.probes.conformance import ended
from tests.tuner.probes.tiny_jobs import FOLDER, tiny_job
from tests.tuner.probes.tiny_workloads import Blobs
from tuner.domain.checkpoints import CheckpointFolder
from tuner.domain.measurement import Measurement, Outcome, Purpose, merged
from tuner.job import Job
from tuner.launchers import LocalLauncher, RankContext
from tuner.probes import ProbeHandle, Until
from tuner.probes.training import TrainingProber

ASYNCHRONOUS = sorted(name for name, traits in STRATEGIES.items() if not traits.barrier)
#: Every step of every rank takes some milliseconds, so that faults come while ranks train.
SLOWED = {"emulate": {"delay": {"low": 0.004, "high": 0.006}}}
#: Steps so long that a rank which stands still for a second leaves some of a slice to be made.
SLOWED_MORE = {"emulate": {"delay": {"low": 0.045, "high": 0.055}}}


@pytest.fixture
def launcher(warm_ranks: LocalLauncher) -> LocalLauncher:
    return warm_ranks


def of(strategy: str, nodes: int, batch_size: int = 64, **knobs: Any) -> Configuration:
    return with_knobs(
        Configuration(nodes=nodes, batch_size=batch_size, learning_rate=0.05, strategy=strategy, **knobs)
    )


def run(
    launcher: LocalLauncher,
    folder: Path,
    what: Configuration,
    until: Until,
    job: Job | None = None,
    purpose: Purpose = Purpose.TRAINING,
) -> Measurement:
    prober = TrainingProber(job or tiny_job(), FOLDER, launcher)
    return ended(prober, prober.start(what, purpose, until, folder))


def checkpoint(folder: Path) -> dict[str, Any]:
    newest = CheckpointFolder(folder / "checkpoints").latest()
    assert newest is not None
    content: dict[str, Any] = torch.load(newest.path, weights_only=True)
    return content


@pytest.mark.parametrize("name", mostly_slow(sorted(STRATEGIES), fast=["elastic_averaging"]))
def test_pauses_and_goes_on_with_one_curve_and_clock(
    launcher: LocalLauncher, tmp_path: Path, name: str
) -> None:
    job, what = tiny_job(cluster=SLOWED_MORE), of(name, 3)
    slices = [run(launcher, tmp_path, what, Until(samples=part), job) for part in (1500, 3000)]
    assert [m.outcome for m in slices] == [Outcome.PAUSED] * 2, [m.error for m in slices]
    whole = merged(slices)
    samples = [point.samples for point in whole.curve]
    assert samples == sorted(set(samples))
    assert samples[0] == 0
    assert len(samples) >= 4  # steps this short may pass several marks between two looks
    seconds = [point.training_seconds for point in whole.curve]
    assert seconds == sorted(seconds)
    assert whole.curve[-1].value > 0.8
    # Ranks without a barrier know what others have seen a moment later, and may each make one step more.
    assert 3000 <= whole.samples < 3000 + (64 if STRATEGIES[name].barrier else 2 * 64)
    assert [rank.rank for rank in slices[0].ranks] == [0, 1, 2]
    assert whole.lost_ranks == ()
    content = checkpoint(tmp_path)
    assert len(content["ranks"]) == 3
    if STRATEGIES[name].exchanged == "parameters":
        # Parameters may just have become equal; momentum stays each rank's own.
        momenta = [own["optimizer"]["state"][0]["momentum_buffer"] for own in content["ranks"]]
        assert not torch.equal(momenta[0], momenta[1])


@pytest.mark.parametrize("name", mostly_slow(ASYNCHRONOUS, fast=["gossip_push"]))
@pytest.mark.parametrize("scores", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_slice_ends_after_its_scores(
    launcher: LocalLauncher, tmp_path: Path, name: str, scores: int
) -> None:
    job, what, known = tiny_job(cluster=SLOWED), of(name, 3), 0
    for _ in range(2):
        measured = run(launcher, tmp_path, what, Until(scores=scores), job)
        assert measured.outcome is Outcome.PAUSED, measured.error
        trained = [point.samples for point in measured.curve if point.samples > 0]
        assert len(trained) == scores
        assert known < trained[0]
        assert trained[-1] <= measured.samples
        known = measured.samples


@pytest.mark.parametrize(
    "until",
    [
        pytest.param(Until(scores=1), id="scores"),
        pytest.param(Until(training_seconds=0.5), id="seconds", marks=pytest.mark.slow),
    ],
)
def test_no_rank_trains_beyond_the_checkpoint_with_which_a_slice_ends(
    launcher: LocalLauncher, tmp_path: Path, until: Until
) -> None:
    measured = run(launcher, tmp_path, of("gossip_pull", 3), until, tiny_job(cluster=SLOWED))
    assert measured.outcome is Outcome.PAUSED, measured.error
    assert checkpoint(tmp_path)["samples"] == measured.samples


@pytest.mark.parametrize("name", ["gossip_pull", "elastic_averaging", "local_sgd"])
def test_reaching_the_target_saves_the_model_that_was_scored(
    launcher: LocalLauncher, tmp_path: Path, name: str
) -> None:
    job = tiny_job("Blobs", target=0.9, parameters={"batch_norm": True})
    measured = run(launcher, tmp_path, of(name, 2), Until(samples=200_000), job)
    assert measured.outcome is Outcome.REACHED, measured.error
    assert measured.curve[-1].value >= 0.9
    workload = Blobs(batch_norm=True)
    model = workload.model()
    model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    model.eval()
    with torch.no_grad():
        assert workload.score(model, workload.validation_data()) == measured.curve[-1].value


# On one rank DiLoCo is Lookahead, by definition.
@pytest.mark.parametrize(
    "name", mostly_slow(sorted(STRATEGIES.keys() - {"diloco"}), fast=["gossip_pairs", "parameter_server"])
)
def test_one_rank_trains_alike_whatever_the_strategy(
    launcher: LocalLauncher, tmp_path: Path, name: str
) -> None:
    plain = run(launcher, tmp_path / "plain", of("all_reduce", 1), Until(samples=900))
    ours = run(launcher, tmp_path / "ours", of(name, 1), Until(samples=900))
    assert [p.value for p in ours.curve] == [p.value for p in plain.curve]
    theirs = checkpoint(tmp_path / "plain")["model"]
    for key, value in checkpoint(tmp_path / "ours")["model"].items():
        torch.testing.assert_close(value, theirs[key])


def test_timing_makes_its_steps_and_saves_nothing(launcher: LocalLauncher, tmp_path: Path) -> None:
    job = tiny_job(cluster=SLOWED)
    measured = run(launcher, tmp_path, of("gossip_push", 2), Until(steps=30), job, Purpose.TIMING)
    assert measured.outcome is Outcome.STOPPED
    # Each rank makes the step it is in, and perhaps one more before it knows what the other has seen.
    assert 30 <= measured.step <= 32
    assert measured.curve == ()
    assert measured.batch_seconds is not None
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all_reduce", "gossip_pull"])
def test_only_a_barrier_makes_a_delayed_rank_everybodys(
    launcher: LocalLauncher, tmp_path: Path, name: str
) -> None:
    delays: list[dict[str, Any]] = [{"ranks": [1], "low": 0.1, "high": 0.1}]
    num_steps = 20
    if not STRATEGIES[name].barrier:
        # A rank that wakes late finds steps left to make.
        delays.append({"ranks": [0], "low": 0.01, "high": 0.01})
        num_steps = 300
    job = tiny_job(cluster={"emulate": {"delay": delays}})
    measured = run(launcher, tmp_path, of(name, 2), Until(steps=num_steps), job, Purpose.TIMING)
    steps = [rank.step.median for rank in measured.ranks]
    assert steps[1] >= 0.1
    if STRATEGIES[name].barrier:
        assert steps[0] >= 0.09
    else:
        assert steps[0] < 0.05
        assert measured.batch_seconds is not None
        assert measured.batch_seconds < 0.1


def test_diverging_rank_ends_the_slice(launcher: LocalLauncher, tmp_path: Path) -> None:
    what = of("gossip_pull", 2).replaced(learning_rate=1e38)
    measured = run(launcher, tmp_path, what, Until(samples=50_000))
    assert measured.outcome is Outcome.DIVERGED


def test_error_of_one_rank_ends_the_probe_with_its_words(launcher: LocalLauncher, tmp_path: Path) -> None:
    job = tiny_job("Faulty", parameters={"fault": "raise"})
    measured = run(launcher, tmp_path, of("gossip_pull", 2), Until(samples=50_000), job)
    assert measured.outcome is Outcome.FAILED
    assert "the workload's own words" in str(measured.error)


def fault_while_training(
    prober: TrainingProber, launcher: LocalLauncher, handle: ProbeHandle, rank: int, number: int
) -> None:
    """Sends a signal to a rank once some steps have been made."""
    limit = time.monotonic() + 60
    while prober.poll(handle).samples < 1000:
        assert time.monotonic() < limit, "training does not get going"
        time.sleep(0.01)
    record = prober._slices[handle.identity]
    os.kill(launcher.processes(record.job)[rank], number)


def run_patiently(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """What ranks run in a slice that has to hear of all of them, whoever stands still for some seconds."""
    from tuner.probes.ranks import membership as membership
    from tuner.probes.ranks.rank import run_slice

    least = membership._LEAST_SILENCE_SECONDS
    membership._LEAST_SILENCE_SECONDS = 6.0
    try:
        return run_slice(context, payload)
    finally:
        membership._LEAST_SILENCE_SECONDS = least


@pytest.mark.parametrize(
    ("fault", "rank", "name"),
    mostly_slow(
        product([signal.SIGKILL, signal.SIGSTOP], [0, 1], ASYNCHRONOUS),
        fast=[(signal.SIGKILL, 0, "elastic_averaging")],
    ),
)
def test_others_go_on_without_a_rank_that_dies_or_freezes(
    launcher: LocalLauncher,
    tmp_path: Path,
    name: str,
    rank: int,
    fault: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prober = TrainingProber(tiny_job(cluster=SLOWED), FOLDER, launcher)
    handle = prober.start(of(name, 3), Purpose.TRAINING, Until(samples=12_000), tmp_path)
    fault_while_training(prober, launcher, handle, rank, fault)
    measured = ended(prober, handle)
    assert measured.outcome is Outcome.PAUSED, measured.error
    assert rank in measured.lost_ranks
    assert 12_000 <= measured.samples < 12_200
    assert measured.curve[-1].samples > 7_000
    # What was paid for is kept, and the next slice goes on with all ranks.
    monkeypatch.setattr(
        "tuner.probes.training.RANK_FUNCTION", "tests.tuner.probes.ranks.test_async_loop:run_patiently"
    )
    again = run(launcher, tmp_path, of(name, 3), Until(samples=13_000), tiny_job(cluster=SLOWED))
    assert again.outcome is Outcome.PAUSED, again.error
    assert 13_000 <= again.samples < 13_200
    assert again.lost_ranks == ()


@pytest.mark.parametrize(
    ("fault", "name"),
    mostly_slow(
        product([signal.SIGKILL, signal.SIGSTOP], ["all_reduce", "local_sgd"]),
        fast=[(signal.SIGKILL, "all_reduce")],
    ),
)
def test_with_a_barrier_a_lost_rank_ends_the_probe_in_time(
    launcher: LocalLauncher, tmp_path: Path, name: str, fault: signal.Signals
) -> None:
    # Ranks must be warm: a cold start on a busy machine is a long silence.
    run(launcher, tmp_path / "warm", of(name, 2), Until(steps=2))
    job = tiny_job(cluster=SLOWED, probe={"hang_timeout": 10.0})
    prober = TrainingProber(job, FOLDER, launcher)
    handle = prober.start(of(name, 2), Purpose.TRAINING, Until(samples=500_000), tmp_path)
    fault_while_training(prober, launcher, handle, 1, fault)
    measured = ended(prober, handle)
    expected = Outcome.FAILED if fault is signal.SIGKILL else Outcome.TIMED_OUT
    assert measured.outcome is expected
    assert "rank 1" in str(measured.error)


@pytest.mark.slow
def test_frozen_rank_that_wakes_takes_part_again(launcher: LocalLauncher, tmp_path: Path) -> None:
    prober = TrainingProber(tiny_job(cluster=SLOWED), FOLDER, launcher)
    what = of("elastic_averaging", 3, tau=2)
    handle = prober.start(what, Purpose.TRAINING, Until(samples=40_000), tmp_path)
    fault_while_training(prober, launcher, handle, 0, signal.SIGSTOP)
    before = prober.poll(handle).samples
    limit = time.monotonic() + 60
    while prober.poll(handle).samples < before + 8000:
        assert time.monotonic() < limit, "the others do not go on"
        time.sleep(0.01)
    record = prober._slices[handle.identity]
    os.kill(launcher.processes(record.job)[0], signal.SIGCONT)
    measured = ended(prober, handle)
    assert measured.outcome is Outcome.PAUSED, measured.error
    assert measured.lost_ranks == ()
    assert [rank.rank for rank in measured.ranks] == [0, 1, 2]


def test_a_checkpoint_waits_for_a_rank_that_is_held_up_for_a_moment(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    prober = TrainingProber(tiny_job(cluster=SLOWED), FOLDER, launcher)
    handle = prober.start(of("gossip_pull", 3), Purpose.TRAINING, Until(samples=6_000), tmp_path)
    fault_while_training(prober, launcher, handle, 1, signal.SIGSTOP)
    record = prober._slices[handle.identity]
    frozen = launcher.processes(record.job)[1]
    limit = time.monotonic() + 60
    while prober.poll(handle).samples < 6_000:
        assert time.monotonic() < limit, "the others do not go on"
        time.sleep(0.01)
    # Long enough that the others go on without it.
    time.sleep(1.5)
    os.kill(frozen, signal.SIGCONT)
    measured = ended(prober, handle)
    assert measured.outcome is Outcome.PAUSED, measured.error
    assert measured.lost_ranks == ()


@pytest.mark.parametrize("nodes", [2, 3])
def test_averaging_after_every_step_is_all_reduce(
    launcher: LocalLauncher, tmp_path: Path, nodes: int
) -> None:
    # With momentum too: the mean of the ranks' buffers is the buffer of the mean gradient.
    job = tiny_job("FineBlobs", metric="loss", target=0.0)
    ours = run(launcher, tmp_path / "ours", of("local_sgd", nodes, 60, tau=1), Until(samples=900), job)
    theirs = run(launcher, tmp_path / "theirs", of("all_reduce", nodes, 60), Until(samples=900), job)
    assert len(ours.curve) > 4
    assert [p.samples for p in ours.curve] == [p.samples for p in theirs.curve]
    for mine, other in zip(ours.curve, theirs.curve, strict=True):
        assert mine.value == pytest.approx(other.value, rel=1e-4)


def test_lost_rank_and_staleness_survive_the_database_form(launcher: LocalLauncher, tmp_path: Path) -> None:
    measured = run(launcher, tmp_path, of("gossip_pull", 2), Until(samples=20_000))
    assert measured.staleness_steps is not None
    assert measured.bytes_per_step is not None
    again = Measurement.from_dict(measured.to_dict())
    assert again == measured
    old = {k: v for k, v in measured.to_dict().items() if k not in ("lost_ranks", "staleness_steps")}
    assert Measurement.from_dict(old).lost_ranks == ()


def test_a_center_is_no_older_than_the_other_ranks_exchanges_since(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    # However fast each rank is: those of others in between are two for each one, or fewer where a rank
    # was absent at an end of the run. How ranks' means are put together is `test_slice_record`'s.
    job = tiny_job(cluster={"emulate": {"delay": {"ranks": [2], "low": 0.004, "high": 0.006}}})
    measured = run(launcher, tmp_path, of("elastic_averaging", 3, tau=1), Until(samples=40_000), job)
    assert measured.staleness_steps is not None
    assert 1.0 < measured.staleness_steps < 2.1


def run_slice_saving_often(context: RankContext, payload: Mapping[str, Any]) -> dict[str, Any]:
    """What ranks run in the test below: a slice that saves several times a second."""
    from tuner.probes.ranks.async_loop import AsynchronousLoop
    from tuner.probes.ranks.rank import run_slice

    AsynchronousLoop.checkpoint_seconds = 0.2
    return run_slice(context, payload)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["elastic_averaging", "gossip_push", "gossip_pairs"])
def test_ranks_that_are_stopped_and_woken_at_random_end_with_a_whole_run(
    launcher: LocalLauncher, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tuner.probes.training.RANK_FUNCTION",
        "tests.tuner.probes.ranks.test_async_loop:run_slice_saving_often",
    )
    prober = TrainingProber(tiny_job(cluster=SLOWED), FOLDER, launcher)
    handle = prober.start(of(name, 4, tau=2), Purpose.TRAINING, Until(samples=60_000), tmp_path)
    chance = np.random.default_rng(5)
    fault_while_training(prober, launcher, handle, 0, signal.SIGCONT)
    processes = launcher.processes(prober._slices[handle.identity].job)
    for _ in range(12):
        rank = int(chance.integers(4))
        os.kill(processes[rank], signal.SIGSTOP)
        until = time.monotonic() + float(chance.choice([0.05, 0.4, 1.6]))
        while time.monotonic() < until:
            prober.poll(handle)
            time.sleep(0.01)
        os.kill(processes[rank], signal.SIGCONT)
        if prober.poll(handle).outcome is not Outcome.RUNNING:
            break
    measured = ended(prober, handle)
    assert measured.outcome is Outcome.PAUSED, measured.error
    assert measured.lost_ranks == ()
    samples = [point.samples for point in measured.curve]
    assert samples == sorted(set(samples))
    seconds = [point.training_seconds for point in measured.curve]
    # A leader that wakes may have scored a mark that the next one scored as well, on a clock of its own.
    assert all(later > earlier - 2.0 for earlier, later in pairwise(seconds))
    content = checkpoint(tmp_path)
    assert [own is not None for own in content["ranks"]] == [True] * 4
    assert sum(content["rank_samples"]) == content["samples"] >= 60_000
    again = run(launcher, tmp_path, of(name, 4, tau=2), Until(samples=62_000), tiny_job(cluster=SLOWED))
    assert again.outcome is Outcome.PAUSED, again.error
