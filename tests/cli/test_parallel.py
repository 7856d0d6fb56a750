"""Two probes at once with real ranks: they arrive, are killed together, and both go on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.workplace import Workplace, kill_session, wait_until
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Purpose

pytestmark = pytest.mark.slow

PARALLEL = ("run", "job.toml", "--parallel", "2")
SLOW = [("nodes = [1, 2]", "nodes = [1]\ncapacity = 2"), ("high = 0.1", "high = 0.002")]


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Commands that a test starts; whatever it leaves is killed."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        kill_session(process)


def held(probes: list[ProbeRecord]) -> list[ProbeRecord]:
    return [probe for probe in probes if probe.lease is not None]


def training(place: Workplace) -> set[str]:
    """Folders of probes whose ranks run."""
    return {str(folder) for folder in place.ranks()}


def both_under_way(place: Workplace, started: list[subprocess.Popen[str]]) -> list[ProbeRecord]:
    """Starts a run and waits until two slices are under way after some were carried out."""
    place.write_job(*SLOW, delay=0.02)
    started.append(place.start(*PARALLEL))

    def is_so() -> bool:
        assert started[-1].poll() is None, started[-1].communicate()
        if not (place.folder / "paceline.db").exists():
            return False
        try:
            probes = place.study()[1]
        except IndexError:
            return False
        slices = sum(len(probe.slices) for probe in probes)
        return slices >= 2 and len(held(probes)) == 2 and len(training(place)) == 2

    wait_until(is_so, "two slices under way")
    return place.study()[1]


def assert_went_on(before: list[ProbeRecord], after: list[ProbeRecord]) -> None:
    by_id = {probe.probe_id: probe for probe in after}
    for probe in before:
        assert by_id[probe.probe_id].slices[: len(probe.slices)] == probe.slices
    for probe in after:
        points = [point.samples for m in probe.slices for point in m.curve]
        assert points == sorted(set(points))
    # Of no configuration a second run was begun.
    configurations = [
        probe.configuration.without("nodes")
        for probe in after
        if probe.purpose is not Purpose.TIMING and probe.slices and probe.slices[0].charged_seconds > 0
    ]
    assert len(configurations) == len(set(configurations))


def test_two_probes_killed_at_once_both_go_on(
    workplace: Workplace, started: list[subprocess.Popen[str]]
) -> None:
    before = both_under_way(workplace, started)
    os.kill(started[0].pid, signal.SIGKILL)
    started[0].wait()
    workplace.assert_nobody_left()
    again = workplace.call(*PARALLEL, "--format", "json")
    assert again.code == 0, again.stderr
    workplace.assert_nobody_left()
    after = workplace.study()[1]
    assert_went_on(before, after)
    assert not held(after)
    tuning = json.loads(again.stdout)["tuning"]
    assert 0 < tuning["elapsed_seconds"] < tuning["seconds"]


def test_two_probes_interrupted_at_once_leave_nobody_behind(
    workplace: Workplace, started: list[subprocess.Popen[str]]
) -> None:
    before = both_under_way(workplace, started)
    for _ in range(2):
        os.killpg(started[0].pid, signal.SIGINT)
        time.sleep(0.2)
    _, err = started[0].communicate(timeout=60)
    assert started[0].returncode == 130, err
    assert "paceline: interrupted; run the same command to resume" in err.strip().splitlines()
    workplace.assert_nobody_left()
    assert not held(workplace.study()[1])
    again = workplace.call("run", "job.toml")  # one at a time goes on as well
    assert again.code == 0, again.stderr
    assert_went_on(before, workplace.study()[1])


def test_two_probes_on_digits_at_once_reach_the_target(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    made = place.call("init", "digits.toml", "--example", "digits")
    assert made.code == 0, made.stderr
    job = place.folder / "digits.toml"
    text = job.read_text()
    assert "[cluster]\n" in text
    job.write_text(text.replace("[cluster]\n", "[cluster]\ncapacity = 2\n", 1))
    ended = place.call("run", "digits.toml", "--parallel", "2", "--format", "json")
    assert ended.code == 0, ended.stderr
    assert re.search(r"decision: probe 2: ", ended.stderr)
    reported = json.loads(ended.stdout)
    assert reported["verified"]["reached"]
    assert reported["tuning"]["elapsed_seconds"] < reported["tuning"]["seconds"]
    place.assert_nobody_left()
