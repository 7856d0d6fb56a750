import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search_spaces import Configuration
from tests.cli.workplace import running_ranks
from tests.tuner.launchers.conformance import wait_until
from tests.tuner.probes.conformance import ProberConformance, ended
from tests.tuner.probes.tiny_jobs import FOLDER, configuration, tiny_job
from tuner.domain.checkpoints import CheckpointFolder
from tuner.domain.errors import ProbeError
from tuner.domain.measurement import Measurement, Outcome, Purpose, crossing, merged
from tuner.launchers import LocalLauncher
from tuner.probes import Prober, Until
from tuner.probes.probe_folder import take_back_ends
from tuner.probes.training import TrainingProber


@pytest.fixture
def launcher(warm_ranks: LocalLauncher) -> LocalLauncher:
    return warm_ranks


class TestTrainingProber(ProberConformance):
    @pytest.fixture
    def prober(self, launcher: LocalLauncher) -> Prober:
        return TrainingProber(tiny_job(), FOLDER, launcher)

    @pytest.fixture(params=[1, 2], ids=["one rank", "two ranks"])
    def configuration(self, request: pytest.FixtureRequest) -> Configuration:
        return configuration(nodes=request.param)


def run(
    launcher: LocalLauncher,
    folder: Path,
    until: Until,
    job: Any = None,
    what: Configuration | None = None,
    purpose: Purpose = Purpose.TRAINING,
) -> Measurement:
    prober = TrainingProber(job or tiny_job(), FOLDER, launcher)
    return ended(prober, prober.start(what or configuration(), purpose, until, folder))


def parameters(folder: Path) -> list[torch.Tensor]:
    newest = CheckpointFolder(folder / "checkpoints").latest()
    assert newest is not None
    content = torch.load(newest.path, weights_only=True)
    return [*content["model"].values(), *(r for own in content["ranks"] for r in own["buffers"].values())]


def values(measurement: Measurement) -> list[tuple[int, int, float]]:
    return [(point.step, point.samples, point.value) for point in measurement.curve]


OWN_STATE = {"parameters": {"dropout": 0.3, "batch_norm": True}, "metric": "loss", "target": 0.0}


@pytest.mark.parametrize("nodes", [1, 2])
def test_paused_and_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(
    launcher: LocalLauncher, tmp_path: Path, nodes: int
) -> None:
    job, what = tiny_job("FineBlobs", **OWN_STATE), configuration(nodes=nodes)
    whole = run(launcher, tmp_path / "whole", Until(samples=700), job, what)
    parts = (60, 330, 700)
    slices = [run(launcher, tmp_path / "cut", Until(samples=part), job, what) for part in parts]
    assert [measurement.outcome for measurement in slices] == [Outcome.PAUSED] * 3
    assert values(merged(slices)) == values(whole)
    assert len(whole.curve) > 6
    for ours, theirs in zip(parameters(tmp_path / "cut"), parameters(tmp_path / "whole"), strict=True):
        assert torch.equal(ours, theirs)


def test_resuming_on_other_numbers_of_ranks_changes_rounding_alone(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    job = tiny_job("FineBlobs", metric="loss", target=0.0)
    whole = run(launcher, tmp_path / "whole", Until(samples=600), job)
    slices = [
        run(launcher, tmp_path / "cut", Until(samples=200 * nodes), job, configuration(nodes=nodes))
        for nodes in (1, 2, 3)
    ]
    points = [point for measurement in slices for point in measurement.curve]
    assert [p.samples for p in points] == [p.samples for p in whole.curve]
    # Single precision over 30 steps of momentum.
    for ours, theirs in zip(points, whole.curve, strict=True):
        assert ours.value == pytest.approx(theirs.value, rel=1e-5)


@pytest.mark.parametrize("nodes", [2, 3, 4])
@pytest.mark.parametrize("batch_size", [10, 20])
def test_ranks_equal_micro_batches_of_one_process_at_an_uneven_batch(
    launcher: LocalLauncher, tmp_path: Path, nodes: int, batch_size: int
) -> None:
    goal: dict[str, Any] = {"metric": "loss", "target": 0.0}
    until = Until(steps=25)
    several = configuration(nodes=nodes, batch_size=batch_size)
    ranks = run(launcher, tmp_path / "ranks", until, tiny_job("FineBlobs", **goal), several)
    micro = tiny_job("FineBlobs", **goal, probe={"max_batch_size_per_rank": -(-batch_size // nodes)})
    one = run(launcher, tmp_path / "one", until, micro, configuration(batch_size=batch_size))
    assert ranks.step == one.step == 25
    for ours, theirs in zip(parameters(tmp_path / "ranks"), parameters(tmp_path / "one"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert [p.value for p in ranks.curve] == pytest.approx([p.value for p in one.curve], rel=1e-5)


def test_target_ends_the_run_at_the_evaluation_point_that_crosses_it_and_saves_the_model(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    job = tiny_job(target=0.85)
    measurement = run(launcher, tmp_path, Until(samples=100_000), job, configuration(nodes=2))
    assert measurement.outcome is Outcome.REACHED, measurement
    assert measurement.curve[-1].value >= 0.85
    assert all(point.value < 0.85 for point in measurement.curve[:-1])
    assert measurement.samples == measurement.curve[-1].samples
    assert crossing(measurement.curve, 0.85, maximize=True) is not None
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert [tuple(values.shape) for values in state.values()] == [(8, 4), (8,), (3, 8), (3,)]
    assert measurement.checkpoint is not None
    assert Path(measurement.checkpoint).exists()


@pytest.mark.parametrize("nodes", [1, 2])
def test_rate_beyond_the_edge_diverges(launcher: LocalLauncher, tmp_path: Path, nodes: int) -> None:
    what = configuration(nodes=nodes, learning_rate=1e38)
    measurement = run(launcher, tmp_path, Until(samples=10**6), None, what)
    assert measurement.outcome is Outcome.DIVERGED
    assert measurement.error is None
    assert measurement.curve[0].samples == 0
    assert measurement.samples < 10**6


def test_score_that_is_not_a_number_is_divergence(launcher: LocalLauncher, tmp_path: Path) -> None:
    measurement = run(launcher, tmp_path, Until(samples=1000), tiny_job("NoScore"))
    assert measurement.outcome is Outcome.DIVERGED
    assert [point.value for point in measurement.curve] == [0.5]


def faulty(fault: str, *, probe: dict[str, Any] | None = None, **more: Any) -> Any:
    return tiny_job("Faulty", parameters={"fault": fault, **more}, probe=probe or {})


def test_rank_that_raises_fails_the_probe_with_its_words_and_keeps_the_curve(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    job = faulty("raise", on_rank=1)
    measurement = run(launcher, tmp_path, Until(samples=10_000), job, configuration(nodes=2))
    assert measurement.outcome is Outcome.FAILED
    assert measurement.error is not None
    assert "rank 1: " in measurement.error
    assert "ArithmeticError: the workload's own words" in measurement.error
    assert measurement.curve[0].samples == 0
    assert measurement.curve[-1].samples > 0
    assert measurement.charged_dollars > 0


def test_killed_rank_fails_the_probe(launcher: LocalLauncher, tmp_path: Path) -> None:
    job = faulty("kill", on_rank=1)
    measurement = run(launcher, tmp_path, Until(samples=10_000), job, configuration(nodes=2))
    assert measurement.outcome is Outcome.FAILED
    assert "SIGKILL" in (measurement.error or "")
    assert measurement.infrastructure_fault


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_hung_rank_times_out_with_what_each_last_said_and_leaves_no_process(
    launcher: LocalLauncher, tmp_path: Path, nodes: int
) -> None:
    what = configuration(nodes=nodes)
    # Ranks must be warm: a cold start on a busy machine takes longer than so short a limit.
    run(launcher, tmp_path / "warm", Until(steps=2), None, what)
    job = faulty("hang", on_rank=nodes - 1, probe={"hang_timeout": 10})
    prober = TrainingProber(job, FOLDER, launcher)
    handle = prober.start(what, Purpose.TRAINING, Until(samples=10_000), tmp_path)
    processes: list[int] = []
    limit = time.monotonic() + 60
    while prober.poll(handle).outcome is Outcome.RUNNING and time.monotonic() < limit:
        if len(processes) < nodes:
            processes = running_ranks(tmp_path).get(tmp_path, [])
        time.sleep(0.01)
    measurement = prober.poll(handle)
    assert measurement.outcome is Outcome.TIMED_OUT
    assert "for 10 s (probe.hang_timeout)" in (measurement.error or "")
    # It hangs in a step; the last chunk of steps may not have been reported since an evaluation.
    assert re.search(
        rf"rank {nodes - 1}: (training|scoring) at step \d+, \d+ samples", measurement.error or ""
    )
    assert len(processes) == nodes
    wait_until(
        lambda: not any(Path(f"/proc/{process}").exists() for process in processes),
        "the ranks end",
    )


@pytest.mark.parametrize("fault", ["out_of_memory", "allocate"])
@pytest.mark.parametrize("nodes", [1, 2])
def test_failed_allocation_of_any_rank_is_out_of_memory(
    launcher: LocalLauncher, tmp_path: Path, fault: str, nodes: int
) -> None:
    job = faulty(fault, on_rank=nodes - 1)
    measurement = run(launcher, tmp_path, Until(samples=10_000), job, configuration(nodes=nodes))
    assert measurement.outcome is Outcome.OUT_OF_MEMORY
    assert f"rank {nodes - 1}: " in (measurement.error or "")


@pytest.mark.parametrize("nodes", [1, 2])
def test_parts_of_a_timed_step_add_up_to_it(launcher: LocalLauncher, tmp_path: Path, nodes: int) -> None:
    what = configuration(nodes=nodes, batch_size=64)
    measurement = run(launcher, tmp_path, Until(steps=60), None, what, Purpose.TIMING)
    assert [rank.rank for rank in measurement.ranks] == list(range(nodes))
    for rank in measurement.ranks:
        assert rank.batch_size == 64 // nodes
        assert rank.compute.mean + rank.sync.mean + rank.input.mean == pytest.approx(rank.step.mean)
        assert rank.compute.median > 0
        assert rank.input.median > 0
        assert (rank.sync.median > 0) == (nodes > 1)
        assert 30 <= rank.step.count <= 55
    assert measurement.parameter_bytes == 4 * (4 * 8 + 8 + 8 * 3 + 3)
    assert measurement.peak_bytes > 10**7
    assert not (tmp_path / "checkpoints").exists()


def test_timing_probe_without_steps_makes_those_of_the_job(launcher: LocalLauncher, tmp_path: Path) -> None:
    job = tiny_job(probe={"timing_steps": 12})
    until = Until(samples=10**6)
    assert run(launcher, tmp_path, until, job, None, Purpose.TIMING).step == 12


def test_scoring_is_charged_and_not_training(launcher: LocalLauncher, tmp_path: Path) -> None:
    job = tiny_job("SlowScore", parameters={"sleep_seconds": 0.2})
    measurement = run(launcher, tmp_path, Until(samples=400), job, configuration(nodes=2))
    slept = 0.2 * len(measurement.curve)
    assert len(measurement.curve) >= 5
    assert measurement.scoring_seconds >= slept
    assert measurement.charged_seconds >= slept + measurement.training_seconds
    # Steps of a tiny model take milliseconds; most gaps, as a machine may pause in one of them.
    gaps = np.diff([point.training_seconds for point in measurement.curve])
    assert np.median(gaps) < 0.2
    for rank in measurement.ranks:
        assert rank.step.p90 < 0.2


def test_scoring_draws_no_number_that_training_would_have_drawn(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    until = Until(samples=300)
    parameters_of = {"sleep_seconds": 0.0}
    often = tiny_job("SlowScore", parameters=parameters_of, probe={"score_growth": 1.05})
    seldom = tiny_job("SlowScore", parameters=parameters_of, probe={"score_growth": 2.0})
    run(launcher, tmp_path / "often", until, often)
    run(launcher, tmp_path / "seldom", until, seldom)
    pairs = zip(parameters(tmp_path / "often"), parameters(tmp_path / "seldom"), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_horizon_of_the_schedule_stops_the_run(launcher: LocalLauncher, tmp_path: Path) -> None:
    job = tiny_job(schedule={"name": "cosine", "horizon_samples": 260})
    measurement = run(launcher, tmp_path, Until(samples=10_000), job)
    assert measurement.outcome is Outcome.STOPPED
    assert measurement.samples == measurement.curve[-1].samples == 260


def test_slice_ends_by_its_training_clock(launcher: LocalLauncher, tmp_path: Path) -> None:
    folder = tmp_path / "probe"
    before = 0.0
    for _ in range(2):
        seconds = before + 0.3
        measurement = run(launcher, folder, Until(training_seconds=seconds), None, configuration(nodes=2))
        assert measurement.outcome is Outcome.PAUSED
        assert measurement.training_seconds >= seconds
        assert measurement.step_seconds is not None
        before = measurement.training_seconds


def test_charge_is_the_price_of_nodes_held(launcher: LocalLauncher, tmp_path: Path) -> None:
    measurement = run(launcher, tmp_path, Until(steps=10), None, configuration(nodes=2))
    assert measurement.charged_dollars == pytest.approx(2 * measurement.charged_seconds * 3.6 / 3600)
    assert measurement.charged_seconds >= measurement.startup_seconds + measurement.training_seconds / 2


def test_slice_lost_with_its_tuner_gives_its_curve_to_the_next(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    whole = run(launcher, tmp_path, Until(samples=400))
    # A tuner killed before it reported the slice leaves its lines, but not its end.
    metrics = tmp_path / "metrics.jsonl"
    lines = [line for line in metrics.read_text().splitlines() if "ended" not in line]
    beyond = {**json.loads(lines[-1]), "samples": 99_999, "step": 5000}
    metrics.write_text("\n".join([*lines, json.dumps(beyond), '{"slice": 1, "samp']) + "\n")
    following = run(launcher, tmp_path, Until(samples=600))
    assert following.curve[: len(whole.curve)] == whole.curve
    assert following.curve[-1].samples > whole.curve[-1].samples
    assert all(point.samples < 99_999 for point in following.curve)
    last = run(launcher, tmp_path, Until(samples=900))
    assert {p.samples for p in last.curve}.isdisjoint(p.samples for p in following.curve)


def test_slice_that_ended_but_was_never_written_down_gives_its_curve_to_the_next(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    first = run(launcher, tmp_path, Until(samples=200))
    lost = run(launcher, tmp_path, Until(samples=400))
    assert first.curve
    assert lost.curve
    # The tuner was killed between the slice's end and its ledger.
    take_back_ends(tmp_path, {point.samples for point in first.curve})
    following = run(launcher, tmp_path, Until(samples=600))
    assert following.curve[: len(lost.curve)] == lost.curve
    assert {p.samples for p in following.curve}.isdisjoint(p.samples for p in first.curve)
    take_back_ends(tmp_path, {p.samples for m in (first, following) for p in m.curve})
    last = run(launcher, tmp_path, Until(samples=900))
    assert {p.samples for p in last.curve}.isdisjoint(p.samples for p in following.curve)


def test_damaged_checkpoint_costs_what_came_after_the_one_before(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    first = run(launcher, tmp_path, Until(samples=200))
    second = run(launcher, tmp_path, Until(samples=400))
    assert second.checkpoint is not None
    os.truncate(second.checkpoint, 100)
    third = run(launcher, tmp_path, Until(samples=400))
    # Steps are made again; what was reported of them is not reported twice.
    assert third.samples == second.samples
    assert third.curve == ()
    assert first.samples < third.samples


def test_a_score_that_is_found_again_after_a_broken_checkpoint_does_not_count(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    run(launcher, tmp_path, Until(samples=100))
    second = run(launcher, tmp_path, Until(samples=400))
    assert second.checkpoint is not None
    os.truncate(second.checkpoint, 100)
    third = run(launcher, tmp_path, Until(scores=1))
    assert third.outcome is Outcome.PAUSED, third.error
    (point,) = third.curve
    assert point.samples == third.samples > second.samples


def test_scores_end_a_slice_at_the_horizon_as_the_end_of_the_run(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    schedule = {"name": "cosine", "horizon_samples": 40}
    measurement = run(launcher, tmp_path, Until(scores=1), tiny_job(schedule=schedule))
    assert (measurement.outcome, measurement.samples) == (Outcome.STOPPED, 40)


def test_probe_folder_says_that_a_slice_ends_by_scores_alone(launcher: LocalLauncher, tmp_path: Path) -> None:
    run(launcher, tmp_path, Until(scores=1))
    assert json.loads((tmp_path / "probe.json").read_text())["until"] == {"scores": 1}


def test_probe_folder_says_what_was_run(launcher: LocalLauncher, tmp_path: Path) -> None:
    measurement = run(launcher, tmp_path, Until(samples=100))
    said = json.loads((tmp_path / "probe.json").read_text())
    assert said["configuration"] == configuration().as_dict()
    assert said["until"] == {"samples": 100}
    assert said["environment"]["torch"] == torch.__version__
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {line["samples"]: line["value"] for line in lines if "samples" in line} == {
        point.samples: point.value for point in measurement.curve
    }
    assert lines[-1] == {"slice": 1, "ended": "paused"}


def test_oversubscribed_cores_are_reported(launcher: LocalLauncher, tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    job = tiny_job(cluster={"threads_per_rank": cores})
    assert run(launcher, tmp_path / "2", Until(steps=2), job, configuration(nodes=2)).oversubscribed
    assert not run(launcher, tmp_path / "1", Until(steps=2), job).oversubscribed


def test_handle_of_another_prober_is_refused(launcher: LocalLauncher, tmp_path: Path) -> None:
    prober = TrainingProber(tiny_job(), FOLDER, launcher)
    handle = prober.start(configuration(), Purpose.TIMING, Until(steps=10), tmp_path)
    with pytest.raises(ProbeError, match="does not belong to this prober"):
        prober.poll(replace(handle, identity="another"))
    ended(prober, handle)


def test_closed_prober_leaves_no_slice_running(tmp_path: Path) -> None:
    prober = TrainingProber(tiny_job(), FOLDER, LocalLauncher())
    handle = prober.start(configuration(), Purpose.TRAINING, Until(training_seconds=3600), tmp_path)
    prober.close()
    assert prober.poll(handle).outcome is Outcome.STOPPED
