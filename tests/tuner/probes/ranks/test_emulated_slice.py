from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from search_spaces import Configuration
from tests.tuner.probes.conformance import ProberConformance, ended
from tests.tuner.probes.tiny_jobs import FOLDER, tiny_job
from tuner.domain.measurement import Measurement, Outcome, Purpose, merged
from tuner.job import Job
from tuner.launchers import LocalLauncher
from tuner.probes import Prober, Until
from tuner.probes.training import TrainingProber

MACHINE = {
    "fixed_seconds": "10ms",
    "seconds_per_sample": "1ms",
    "jitter": 0.2,
    "latency": "1ms",
    "bandwidth": "1MB/s",
}
STRATEGIES = ["all_reduce", "local_sgd", "gossip_pull", "gossip_push", "gossip_pairs", "elastic_averaging"]


def emulated_job(**more: Any) -> Job:
    cluster = {"nodes": [1, 2, 4, 16], "machine": MACHINE, **more.pop("cluster", {})}
    probe = {"kind": "emulated", **more.pop("probe", {})}
    return tiny_job(cluster=cluster, probe=probe, **more)


def on_ranks(strategy: str, nodes: int = 4, **knobs: Any) -> Configuration:
    axes: dict[str, Any] = {"nodes": nodes, "batch_size": 20, "learning_rate": 0.05, "strategy": strategy}
    return Configuration({**axes, **knobs})


@pytest.fixture
def launcher(warm_ranks: LocalLauncher) -> LocalLauncher:
    return warm_ranks


class TestEmulatedProber(ProberConformance):
    @pytest.fixture
    def prober(self, launcher: LocalLauncher) -> Prober:
        return TrainingProber(emulated_job(), FOLDER, launcher)

    @pytest.fixture(params=["all_reduce", "gossip_pull"])
    def configuration(self, request: pytest.FixtureRequest) -> Configuration:
        return on_ranks(request.param)


def run(
    launcher: LocalLauncher, folder: Path, until: Until, what: Configuration, job: Any = None
) -> Measurement:
    prober = TrainingProber(job or emulated_job(), FOLDER, launcher)
    return ended(prober, prober.start(what, Purpose.STATISTICS, until, folder))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_slices_together_are_one_uninterrupted_run(
    strategy: str, launcher: LocalLauncher, tmp_path: Path
) -> None:
    what = on_ranks(strategy)
    whole = run(launcher, tmp_path / "whole", Until(samples=400), what)
    parts = merged([run(launcher, tmp_path / "parts", Until(samples=end), what) for end in (150, 260, 400)])
    assert [(p.samples, p.training_seconds, p.value) for p in parts.curve] == [
        (p.samples, p.training_seconds, p.value) for p in whole.curve
    ]
    assert (parts.samples, parts.training_seconds) == (whole.samples, whole.training_seconds)


@pytest.mark.slow
def test_a_process_that_starts_anew_goes_on_as_one_that_stored_the_run(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    what = on_ranks("gossip_pull")
    stored = [run(launcher, tmp_path / "kept", Until(samples=end), what) for end in (150, 400)]
    anew = [run(launcher, tmp_path / "anew", Until(samples=150), what)]
    with LocalLauncher() as another:
        anew.append(run(another, tmp_path / "anew", Until(samples=400), what))
    for one, other in zip(stored, anew, strict=True):
        assert one.curve == other.curve
        assert one.ranks == other.ranks
        assert one.staleness_steps == other.staleness_steps


def test_it_is_charged_for_this_machine_s_time_and_no_dollars(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    measured = run(launcher, tmp_path / "probe", Until(training_seconds=2.0), on_ranks("all_reduce", 16))
    assert measured.emulated
    assert measured.training_seconds >= 2.0
    assert 0 < measured.charged_seconds < 60
    assert measured.charged_dollars == 0.0
    assert not measured.oversubscribed


def test_step_times_are_those_of_the_described_machines(launcher: LocalLauncher, tmp_path: Path) -> None:
    measured = run(launcher, tmp_path / "probe", Until(samples=800), on_ranks("gossip_pull", 16))
    assert [timing.count for timing in measured.ranks] == [1, 3, 12]
    assert [timing.batch_size for timing in measured.ranks] == [2, 2, 1]
    # Compute of 11 or 12 ms, behind which what is pulled travels.
    assert measured.batch_seconds == pytest.approx(0.0112, rel=0.1)
    assert measured.ranks[2].compute.mean == pytest.approx(0.011, rel=0.2)
    assert measured.bytes_per_step == pytest.approx(15 / 16 * measured.parameter_bytes, rel=0.15)
    assert measured.staleness_steps is not None


@pytest.mark.parametrize("strategy", ["all_reduce", "gossip_pull", "elastic_averaging"])
def test_a_run_that_reaches_the_target_leaves_its_model(
    strategy: str, launcher: LocalLauncher, tmp_path: Path
) -> None:
    job = emulated_job(target=0.8)
    measured = run(launcher, tmp_path / "probe", Until(samples=100_000), on_ranks(strategy), job)
    assert measured.outcome is Outcome.REACHED
    assert measured.curve[-1].value >= 0.8
    state = torch.load(tmp_path / "probe" / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())


def test_what_is_not_finite_has_diverged(launcher: LocalLauncher, tmp_path: Path) -> None:
    what = on_ranks("gossip_pull").replaced(learning_rate=1e38)
    assert run(launcher, tmp_path / "probe", Until(samples=5000), what).outcome is Outcome.DIVERGED


def test_all_reduce_goes_on_with_another_number_of_ranks(launcher: LocalLauncher, tmp_path: Path) -> None:
    first = run(launcher, tmp_path / "probe", Until(samples=200), on_ranks("all_reduce", 4))
    second = run(launcher, tmp_path / "probe", Until(samples=400), on_ranks("all_reduce", 16))
    assert second.samples == 400
    assert second.training_seconds > first.training_seconds
