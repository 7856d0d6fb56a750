from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuner.launchers.conformance import (
    FUNCTIONS,
    LauncherConformance,
    Watch,
    is_alive,
    outcome,
    submit,
    wait_until,
)
from tuner.domain.errors import ProbeError
from tuner.launchers import JobState, LocalLauncher

# One after the other: they share a pool of ranks, and look at who is in it.
pytestmark = pytest.mark.xdist_group("local_launcher")

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalLauncher]:
    with LocalLauncher(grace_seconds=60) as launcher:
        yield launcher


class TestLocalLauncher(LauncherConformance):
    local_ranks_of_two_by_two = (0, 1, 2, 3)

    @pytest.fixture
    def launcher(self, shared: LocalLauncher) -> LocalLauncher:
        return shared


def processes_of(launcher: LocalLauncher, folder: Path, num_ranks: int) -> list[int]:
    results = outcome(launcher, submit(launcher, folder, "describe", num_nodes=num_ranks)).results
    return [results[rank]["process"] for rank in range(num_ranks)]


def test_ranks_are_reused_after_success(shared: LocalLauncher, tmp_path: Path) -> None:
    first = processes_of(shared, tmp_path, 2)
    assert sorted(processes_of(shared, tmp_path, 2)) == sorted(first)


def test_a_rank_that_has_run_a_job_comes_before_one_that_has_not(tmp_path: Path) -> None:
    with LocalLauncher() as launcher:
        launcher.warm(2)
        first = processes_of(launcher, tmp_path, 1)
        assert processes_of(launcher, tmp_path, 1) == first


def test_jobs_that_run_at_once_have_places_of_their_own(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    with LocalLauncher() as launcher:
        hung = submit(launcher, folders[0], "hang", num_nodes=2)
        concurrently = outcome(launcher, submit(launcher, folders[1], "sum_of_ranks", num_nodes=2))
        assert [concurrently.results[rank]["local_rank"] for rank in range(2)] == [2, 3]
        launcher.cancel(hung)
        after = outcome(launcher, submit(launcher, folders[2], "sum_of_ranks", num_nodes=2))
        assert [after.results[rank]["local_rank"] for rank in range(2)] == [0, 1]


def test_ranks_are_replaced_after_failure(shared: LocalLauncher, tmp_path: Path) -> None:
    before = processes_of(shared, tmp_path, 2)
    failed = outcome(shared, submit(shared, tmp_path, "rank_one_raises", num_nodes=2))
    assert failed.state is JobState.FAILED
    assert not set(processes_of(shared, tmp_path, 2)) & set(before)
    assert not any(map(is_alive, before))


def test_a_rank_that_dies_between_jobs_is_replaced(shared: LocalLauncher, tmp_path: Path) -> None:
    (before,) = processes_of(shared, tmp_path, 1)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{before}").exists(), "the idle rank is dead, with all its threads")
    # More jobs than idle ranks: one of them would have been given the dead rank.
    for _ in range(8):
        assert processes_of(shared, tmp_path, 1) != [before]


def test_nothing_of_a_finished_job_but_its_logs_stays_in_the_folder(
    shared: LocalLauncher, tmp_path: Path
) -> None:
    outcome(shared, submit(shared, tmp_path, "sum_of_ranks", num_nodes=2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank0.log", "rank1.log"]


def test_logs_of_a_job_leave_out_those_of_the_one_before(shared: LocalLauncher, tmp_path: Path) -> None:
    for _ in range(2):
        handle = submit(shared, tmp_path, "write")
        outcome(shared, handle)
    assert len(shared.logs(handle)[0].splitlines()) == 3
    assert len((tmp_path / "rank0.log").read_text().splitlines()) == 6


def test_a_task_sees_the_tuner_s_surroundings_of_its_submission(
    shared: LocalLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("PACELINE_TEST_VARIABLE", name)
        monkeypatch.syspath_prepend(str(tmp_path / name))
        seen = outcome(shared, submit(shared, tmp_path / name, "describe")).results[0]
        assert seen["variable"] == name
        assert seen["folder"] == str(tmp_path / name)
        assert seen["import_path"] == sys.path
        assert (seen["threads"], seen["openmp"]) == (1, "1")


def test_ranks_get_the_threads_they_were_promised(tmp_path: Path) -> None:
    with LocalLauncher(threads_per_rank=2) as launcher:
        seen = outcome(launcher, submit(launcher, tmp_path, "describe")).results[0]
    assert (seen["threads"], seen["openmp"]) == (2, "2")


def test_peak_memory_of_a_reused_rank_is_its_own(shared: LocalLauncher, tmp_path: Path) -> None:
    large = outcome(shared, submit(shared, tmp_path, "peak_bytes", bytes=400_000_000)).results[0]
    small = outcome(shared, submit(shared, tmp_path, "peak_bytes", bytes=1_000)).results[0]
    assert large - small > 300_000_000


def test_the_terminal_s_interrupt_reaches_no_rank(shared: LocalLauncher, tmp_path: Path) -> None:
    watch = Watch(shared, submit(shared, tmp_path, "hang", num_nodes=2))
    processes = watch.processes(2)
    assert all(os.getsid(process) != os.getsid(0) for process in processes)
    for process in processes:
        os.kill(process, signal.SIGINT)
    assert shared.poll(watch.handle).state is JobState.RUNNING
    assert all(map(is_alive, processes))
    shared.cancel(watch.handle)


def test_modules_that_lie_in_the_current_folder_are_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tuner").mkdir()
    for stray in ("tuner/__init__.py", "torch.py", "numpy.py"):
        (tmp_path / stray).write_text(f"raise ImportError('stray {stray}')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with LocalLauncher() as launcher:
        status = outcome(launcher, submit(launcher, tmp_path, "describe"))
    assert status.state is JobState.SUCCEEDED, status.failures
    assert not status.results[0]["torch"].startswith(str(tmp_path))
    assert status.results[0]["tuner"] == str(ROOT / "tuner" / "__init__.py")


def test_cancelling_before_the_ranks_are_forked_ends_them_too(tmp_path: Path) -> None:
    with LocalLauncher() as launcher:
        early = submit(launcher, tmp_path, "hang")
        launcher.cancel(early)
        assert launcher.poll(early).state is JobState.CANCELLED
        assert outcome(launcher, submit(launcher, tmp_path, "echo", value=7)).results == {0: 7}


@pytest.mark.slow
def test_the_death_of_the_fork_server_fails_the_job_and_the_next_one_runs(tmp_path: Path) -> None:
    with LocalLauncher() as launcher:
        watch = Watch(launcher, submit(launcher, tmp_path, "hang", num_nodes=2, frozen=True))
        processes = watch.processes(2)
        server = int(Path(f"/proc/{processes[0]}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGKILL)
        status = watch.end()
        assert status.state is JobState.FAILED
        assert "ended together with the fork server" in status.failures[0].reason
        wait_until(lambda: not any(map(is_alive, processes)), "every rank is gone")
        assert outcome(launcher, submit(launcher, tmp_path, "echo", value=7)).results == {0: 7}


def test_a_server_that_cannot_import_says_so(tmp_path: Path) -> None:
    with LocalLauncher(preload=["no_such_module"]) as launcher:
        status = outcome(launcher, submit(launcher, tmp_path, "describe", num_nodes=2))
    assert status.state is JobState.FAILED
    assert "No module named 'no_such_module'" in status.failures[0].reason


def test_an_interpreter_that_is_missing_is_a_probe_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with LocalLauncher() as launcher, pytest.raises(ProbeError, match="no rank can be started"):
        submit(launcher, tmp_path, "describe")


def test_close_ends_every_rank_and_refuses_more(tmp_path: Path) -> None:
    launcher = LocalLauncher()
    watch = Watch(launcher, submit(launcher, tmp_path, "hang", num_nodes=2))
    processes = watch.processes(2)
    launcher.close()
    wait_until(lambda: not any(map(is_alive, processes)), "every rank is gone")
    assert launcher.poll(watch.handle).state is JobState.CANCELLED
    with pytest.raises(ProbeError, match="closed"):
        submit(launcher, tmp_path, "describe")


@pytest.mark.parametrize(("threads", "nodes", "message"), [(0, 1, "threads_per_rank"), (1, 0, "one rank")])
def test_impossible_numbers_are_refused(threads: int, nodes: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        submit(LocalLauncher(threads_per_rank=threads), tmp_path, "describe", num_nodes=nodes)


TUNER = f"""
    import sys, time
    from pathlib import Path
    from tuner.launchers import LocalLauncher, RankTask

    launcher = LocalLauncher()
    task = RankTask(function="{FUNCTIONS}:hang", payload={{"frozen": True}}, folder=Path(sys.argv[1]))
    handle = launcher.submit(task, num_nodes=3, devices_per_node=1)
    while True:
        for _, message in launcher.poll(handle).messages:
            print(message["process"], flush=True)
        time.sleep(0.01)
"""


@pytest.fixture
def another_tuner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A tuner in its own process: one of its three ranks is stopped, two wait for it in gloo."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TUNER), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as tuner:
        yield tuner
        tuner.kill()


def test_no_rank_survives_a_tuner_that_is_killed(another_tuner: subprocess.Popen[str]) -> None:
    assert another_tuner.stdout is not None
    processes = [int(another_tuner.stdout.readline()) for _ in range(3)]
    assert all(map(is_alive, processes))
    another_tuner.kill()
    wait_until(lambda: not any(map(is_alive, processes)), "every rank is gone")
