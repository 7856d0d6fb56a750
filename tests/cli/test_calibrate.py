"""`paceline calibrate`: a section that a job takes, or a message with an exit code."""

from __future__ import annotations

import json
import os
import tomllib

import pytest

from tests.cli.conftest import Command
from tests.cli.workplace import Workplace
from tests.tuner.calibration.made_timings import LATENCY, MadeLauncher
from tuner.calibration import Effort
from tuner.job import load_job


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    effort = Effort(rounds=2, window_seconds=0.02, least_steps=4, exchanges=3, pause_seconds=0.001)
    monkeypatch.setattr("tuner.service.calibrating.Effort", lambda: effort)


def test_links_need_two_nodes(workplace: Workplace, paceline: Command) -> None:
    ended = paceline("calibrate", "job.toml", "--nodes", 1)
    assert ended.code == 2
    assert "--nodes 1" in ended.stderr
    assert "at least 2" in ended.stderr
    assert ended.stdout == ""


def test_a_file_that_is_there_is_not_written_over(workplace: Workplace, paceline: Command) -> None:
    before = workplace.job.read_text()
    ended = paceline("calibrate", "job.toml", "--output", "job.toml")
    assert ended.code == 2
    assert "already exists" in ended.stderr
    assert workplace.job.read_text() == before


def test_a_folder_that_is_not_there_is_reported_before_anything_is_measured(
    workplace: Workplace, paceline: Command
) -> None:
    ended = paceline("calibrate", "job.toml", "--output", "nowhere/machine.toml")
    assert ended.code == 6
    assert "timing" not in ended.stderr


def test_data_that_are_not_there_end_it_with_what_to_do(workplace: Workplace, paceline: Command) -> None:
    workplace.write_job(fault="no data")
    ended = paceline("calibrate", "job.toml")
    assert ended.code == 2
    assert "fetch lines" in ended.stderr


@pytest.mark.slow
def test_what_is_printed_makes_a_job_whose_nodes_are_emulated(
    workplace: Workplace, paceline: Command
) -> None:
    ended = paceline("calibrate", "job.toml", "--output", "machine.toml")
    assert ended.code == 0, ended.stderr
    assert "timing all-reduces of 2 ranks" in ended.stderr
    section = (workplace.folder / "machine.toml").read_text()
    assert ended.stdout == section
    assert set(tomllib.loads(section)["cluster"]["machine"]) >= {"fixed_seconds", "latency", "bandwidth"}
    text = workplace.job.read_text() + f'\n[probe]\nkind = "emulated"\n{section}'
    # The job's own [cluster] comes first in the file.
    (workplace.folder / "far.toml").write_text(text.replace("nodes = [1, 2]", "nodes = [1, 2, 64]"))
    virtual = load_job(workplace.folder / "far.toml").resolved_cluster().virtual
    assert virtual is not None
    assert virtual.latency > 0
    assert not workplace.processes()


def test_ranks_that_fail_end_it_with_their_own_words(
    workplace: Workplace, paceline: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = MadeLauncher(fails="time_steps")
    monkeypatch.setattr("tuner.service.calibrating.job_launcher", lambda _opened: launcher)
    ended = paceline("calibrate", "job.toml", "--format", "json")
    assert ended.code == 5
    assert ended.stdout == ""
    assert "the workload's own words" in ended.stderr


def test_the_figures_are_also_had_as_a_table_and_as_json(
    workplace: Workplace, paceline: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.service.calibrating.job_launcher", lambda _opened: MadeLauncher())
    reported = json.loads(paceline("calibrate", "job.toml", "--format", "json").stdout)
    assert reported["collective"]["latency"]["value"] == pytest.approx(LATENCY, rel=0.1)
    assert reported["rank_counts"][0] == 2
    table = paceline("calibrate", "job.toml", "--format", "table").stdout
    assert "messages: latency seconds" in table


def test_more_ranks_than_cores_are_warned_of(
    workplace: Workplace, paceline: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.service.calibrating.job_launcher", lambda _opened: MadeLauncher(waiting=0.01))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1}, raising=False)
    ended = paceline("calibrate", "job.toml", "--nodes", 8)
    assert ended.code == 0
    assert "warning: 8 ranks share 2 cores" in ended.stderr
    assert "# Warning: 8 ranks share 2 cores" in ended.stdout
