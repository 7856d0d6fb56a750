"""Jobs that go on without ranks that were killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.launchers.conformance import FUNCTIONS, Watch
from tuner.launchers import JobState, LocalLauncher, RankContext, RankTask

# They share two pools of ranks, each of which takes seconds to start.
pytestmark = pytest.mark.xdist_group("outliving")


@pytest.fixture(scope="module")
def launcher() -> Iterator[LocalLauncher]:
    with LocalLauncher(grace_seconds=30, preload=("torch",)) as started:
        yield started


@pytest.fixture(scope="module")
def hasty_launcher() -> Iterator[LocalLauncher]:
    """Does not wait long for ranks that never come."""
    with LocalLauncher(grace_seconds=6, preload=("torch",)) as started:
        yield started


def until_asked(context: RankContext, payload: Mapping[str, Any]) -> int:
    """Runs until a file appears, and says that it is there."""
    context.send({"process": os.getpid()})
    if payload.get("raises") == context.rank:
        raise ArithmeticError("this rank's own words")
    while not (context.folder / "go").exists():
        time.sleep(0.01)
    return context.rank


def watch(launcher: LocalLauncher, folder: Path, **payload: Any) -> Watch:
    task = RankTask(
        function="tests.tuner.launchers.test_outliving:until_asked",
        payload=payload,
        folder=folder,
        tolerates_rank_loss=True,
    )
    return Watch(launcher, launcher.submit(task, num_nodes=3, devices_per_node=1))


def process_of(found: Watch, rank: int) -> int:
    found.until(lambda w: len(w.messages) == 3, "all ranks are there")
    return next(int(message["process"]) for sender, message in found.messages if sender == rank)


@pytest.mark.parametrize("rank", [0, 2])
def test_killed_rank_is_missing_among_the_results(launcher: LocalLauncher, tmp_path: Path, rank: int) -> None:
    found = watch(launcher, tmp_path)
    os.kill(process_of(found, rank), signal.SIGKILL)
    found.until(lambda w: len(w.status.failures) == 1, "the death is seen")
    assert found.status.state is JobState.RUNNING
    assert "SIGKILL" in found.status.failures[0].reason
    (tmp_path / "go").touch()
    status = found.end()
    assert status.state is JobState.SUCCEEDED
    assert sorted(status.results) == sorted({0, 1, 2} - {rank})


@pytest.mark.slow
def test_rank_that_is_stopped_is_given_up_once_the_others_returned(
    hasty_launcher: LocalLauncher, tmp_path: Path
) -> None:
    found = watch(hasty_launcher, tmp_path)
    stopped = process_of(found, 1)
    os.kill(stopped, signal.SIGSTOP)
    (tmp_path / "go").touch()
    status = found.end()
    assert status.state is JobState.SUCCEEDED
    assert sorted(status.results) == [0, 2]
    with pytest.raises(ProcessLookupError, match="No such process"):
        os.kill(stopped, 0)


@pytest.mark.slow
def test_error_that_a_rank_raises_ends_the_job_all_the_same(
    hasty_launcher: LocalLauncher, tmp_path: Path
) -> None:
    found = watch(hasty_launcher, tmp_path, raises=1)
    status = found.end()
    assert status.state is JobState.FAILED
    assert "this rank's own words" in status.failures[0].reason


def test_job_all_of_whose_ranks_were_killed_has_failed(launcher: LocalLauncher, tmp_path: Path) -> None:
    found = watch(launcher, tmp_path)
    for rank in range(3):
        os.kill(process_of(found, rank), signal.SIGKILL)
    status = found.end()
    assert status.state is JobState.FAILED
    assert len(status.failures) == 3


def test_ranks_that_returned_take_the_next_job(launcher: LocalLauncher, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    first = watch(launcher, tmp_path)
    before = {process_of(first, rank) for rank in range(3)}
    first.end()
    task = RankTask(function=f"{FUNCTIONS}:describe", payload={}, folder=tmp_path)
    second = Watch(launcher, launcher.submit(task, num_nodes=3, devices_per_node=1))
    assert {result["process"] for result in second.end().results.values()} == before
