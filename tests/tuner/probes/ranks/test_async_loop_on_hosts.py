"""Strategies without a barrier between hosts: messages over TCP, to addresses that the others can reach."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.host_network import HostNetwork
from search_spaces import Configuration, with_knobs
from tests.tuner.launchers.conformance import TIMEOUT_SECONDS
from tests.tuner.probes.conformance import ended
from tests.tuner.probes.tiny_jobs import FOLDER, tiny_job
from tuner.domain.measurement import Outcome, Purpose
from tuner.job import Job
from tuner.launchers import CommandLauncher, HostNodes
from tuner.probes import Until
from tuner.probes.training import TrainingProber

pytestmark = pytest.mark.slow


@pytest.fixture
def launcher(two_hosts: HostNetwork) -> Iterator[CommandLauncher]:
    launcher = CommandLauncher(HostNodes(two_hosts.hosts, two_hosts.connect), uses_torchrun=True)
    yield launcher
    launcher.close()


def job_on(network: HostNetwork, **cluster: object) -> Job:
    reached = {"hosts": list(network.hosts), "connect": network.connect}
    return tiny_job(cluster={"nodes": [1, 2], "launcher": "torchrun", "torchrun": reached, **cluster})


def of(strategy: str) -> Configuration:
    return with_knobs(Configuration(nodes=2, batch_size=64, learning_rate=0.05, strategy=strategy))


@pytest.mark.parametrize("name", ["all_reduce", "gossip_pull", "elastic_averaging"])
def test_ranks_of_two_hosts_train_together(
    two_hosts: HostNetwork, launcher: CommandLauncher, tmp_path: Path, name: str
) -> None:
    prober = TrainingProber(job_on(two_hosts), FOLDER, launcher)
    # Long enough that a rank that starts late on a busy machine exchanges parameters, too.
    handle = prober.start(of(name), Purpose.TRAINING, Until(samples=20_000), tmp_path)
    measured = ended(prober, handle)
    assert measured.outcome is Outcome.PAUSED, measured.error
    # They learn of the end by a message: how far they get until it comes depends on the machine's load.
    assert measured.samples >= 20_000
    assert measured.curve[-1].value > measured.curve[0].value
    assert measured.lost_ranks == ()
    assert len(measured.ranks) == 2
    assert measured.bytes_per_step is not None
    assert measured.bytes_per_step > 0


def test_others_go_on_without_a_rank_that_was_killed(
    two_hosts: HostNetwork, launcher: CommandLauncher, tmp_path: Path
) -> None:
    slowed = job_on(two_hosts, emulate={"delay": {"low": 0.004, "high": 0.006}})
    prober = TrainingProber(slowed, FOLDER, launcher)
    handle = prober.start(of("gossip_pull"), Purpose.TRAINING, Until(samples=12_000), tmp_path)
    limit = time.monotonic() + TIMEOUT_SECONDS
    while prober.poll(handle).samples < 1000:
        assert time.monotonic() < limit, "training does not get going"
        time.sleep(0.05)
    os.kill(rank_process(two_hosts, two_hosts.hosts[1]), signal.SIGKILL)
    measured = ended(prober, handle)
    assert measured.outcome is Outcome.PAUSED, measured.error
    assert measured.lost_ranks == (1,)
    assert measured.samples >= 12_000


def rank_process(network: HostNetwork, host: str) -> int:
    """The only rank's process on a host."""
    for process in network.processes(host):
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        if b"tuner.launchers.rank_program" in words:
            return process
    raise AssertionError(f"no rank runs on {host}")
