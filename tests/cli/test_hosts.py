"""The command with `launcher = "torchrun"`: check, train, run and calibrate over two hosts."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from benchmarks.host_network import HostNetwork
from tests.cli.conftest import Command
from tests.cli.workplace import Workplace, kill_session, wait_until
from tuner.calibration import Effort

pytestmark = pytest.mark.slow


@pytest.fixture
def on_hosts(workplace: Workplace, two_hosts: HostNetwork) -> Workplace:
    write_job(workplace, two_hosts)
    return workplace


def write_job(place: Workplace, network: HostNetwork, **parameters: object) -> None:
    cluster = f"""nodes = [1, 2]
launcher = "torchrun"
[cluster.torchrun]
hosts = {json.dumps(network.hosts)}
connect = "{network.connect}"
"""
    place.write_job(("nodes = [1, 2]\n", cluster), ('time = "60s"', 'time = "10m"'), **parameters)


def hosts_are_empty(network: HostNetwork) -> bool:
    return not any(network.processes(host) for host in network.hosts)


def hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".paceline-*"))


def test_check_trains_on_a_host(on_hosts: Workplace, two_hosts: HostNetwork, paceline: Command) -> None:
    ended = paceline("check", "job.toml")
    assert ended.code == 0, ended.stderr
    assert hosts_are_empty(two_hosts)
    assert not hidden(on_hosts.folder)


def test_train_reaches_the_target_on_two_hosts(
    on_hosts: Workplace, two_hosts: HostNetwork, paceline: Command
) -> None:
    words = "--nodes 2 --batch-size 16 --learning-rate 0.1 --strategy gossip_pull --output out"
    ended = paceline("train", "job.toml", *words.split())
    assert ended.code == 0, ended.stderr
    assert list(on_hosts.folder.glob("out/**/model.pt"))
    assert hosts_are_empty(two_hosts)


def test_run_recommends(on_hosts: Workplace, two_hosts: HostNetwork, paceline: Command) -> None:
    ended = paceline("run", "job.toml", "--output", "out")
    assert ended.code == 0, ended.stderr
    assert "Recommended for tiny" in ended.stdout
    assert hosts_are_empty(two_hosts)


def test_a_killed_tuner_leaves_nothing_and_goes_on(
    workplace: Workplace, two_hosts: HostNetwork, paceline: Command
) -> None:
    write_job(workplace, two_hosts, delay=0.05)
    tuner = workplace.start("run", "job.toml", "--output", "out")
    wait_until(lambda: not hosts_are_empty(two_hosts), "ranks start")
    kill_session(tuner)
    wait_until(lambda: hosts_are_empty(two_hosts), "what the tuner had started ends")
    write_job(workplace, two_hosts)
    ended = paceline("run", "job.toml", "--output", "out")
    assert ended.code == 0, ended.stderr
    assert not list(workplace.folder.glob("out/probes/*/*/job-*/engine.json"))


def test_calibrate_measures_between_hosts(
    on_hosts: Workplace, two_hosts: HostNetwork, paceline: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    effort = Effort(rounds=2, window_seconds=0.02, least_steps=4, exchanges=3, pause_seconds=0.001)
    monkeypatch.setattr("tuner.service.calibrating.Effort", lambda: effort)
    ended = paceline("calibrate", "job.toml")
    assert ended.code == 0, ended.stderr
    assert "timing all-reduces of 2 ranks" in ended.stderr
    assert tomllib.loads(ended.stdout)["cluster"]["machine"]["latency"]
    assert hosts_are_empty(two_hosts)
    assert not hidden(on_hosts.folder)
