"""However a run is ended, the next one goes on: nothing is paid twice, nobody is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from storage import open_storage
from tests.cli.workplace import Ended, Workplace, kill_session, wait_until
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.search.runs import is_interrupted, paid_slices

pytestmark = pytest.mark.slow


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Commands that a test starts; whatever it leaves is killed."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        kill_session(process)


def slices_of(probes: Sequence[ProbeRecord]) -> list[Measurement]:
    return [measurement for probe in probes for measurement in probe.slices]


def run_until_slices(
    place: Workplace, started: list[subprocess.Popen[str]], *, slices: int, delay: float = 0.02
) -> list[ProbeRecord]:
    """Starts a run of some seconds and waits until a slice is under way after so many were carried out."""
    place.write_job(("nodes = [1, 2]", "nodes = [2]"), ("high = 0.1", "high = 0.002"), delay=delay)
    started.append(place.start("run", "job.toml"))
    seen: list[ProbeRecord] = []

    def is_training() -> bool:
        assert started[-1].poll() is None, started[-1].communicate()
        if not (place.folder / "paceline.db").exists():
            return False
        try:
            seen[:] = place.study()[1]
        except IndexError:
            return False
        held = [probe for probe in seen if probe.lease is not None]
        return len(slices_of(seen)) >= slices and bool(held) and bool(_ranks(place))

    wait_until(is_training, f"{slices} slices")
    return place.study()[1]


def stop(process: subprocess.Popen[str]) -> None:
    """Stops a process, and waits until it stands still."""
    os.kill(process.pid, signal.SIGSTOP)
    state = Path(f"/proc/{process.pid}/stat")
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] in "TZ", "a stopped process")


def stop_in_a_slice(place: Workplace, process: subprocess.Popen[str]) -> list[ProbeRecord]:
    """Stops a tuner that holds a probe whose ranks run, and that writes nothing just then."""
    found: list[ProbeRecord] = []

    def is_stopped() -> bool:
        assert process.poll() is None, process.communicate()
        stop(process)
        with contextlib.closing(sqlite3.connect(place.folder / "paceline.db", timeout=0.0)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
            except sqlite3.OperationalError:
                os.kill(process.pid, signal.SIGCONT)
                return False
        found[:] = place.study()[1]
        if any(probe.lease is not None for probe in found) and _ranks(place):
            return True
        os.kill(process.pid, signal.SIGCONT)
        return False

    wait_until(is_stopped, "a slice under way")
    return found


def _ranks(place: Workplace) -> list[int]:
    """Processes of the ranks of the slice under way."""
    return [process for ranks in place.ranks().values() for process in ranks]


def assert_went_on(
    before: Sequence[ProbeRecord], after: Sequence[ProbeRecord], *, was_ended: bool = False
) -> None:
    """Every slice from before is there unchanged, and no configuration was begun anew.

    A slice that was ended with the budget shows scores beyond its checkpoint, which the next one
    passes again.
    """
    by_id = {probe.probe_id: probe for probe in after}
    for probe in before:
        assert by_id[probe.probe_id].slices[: len(probe.slices)] == probe.slices
    for probe in after:
        # A slice that was ended with the budget took its run no further than the checkpoint before.
        samples = [m.samples for m, trained in paid_slices(probe) if not is_interrupted(m, trained)]
        assert samples == sorted(set(samples))
        curves = [[point.samples for point in m.curve] for m in probe.slices]
        curves = curves if was_ended else [[samples for curve in curves for samples in curve]]
        assert all(curve == sorted(set(curve)) for curve in curves)
    started_anew = [
        probe.configuration.without("nodes")
        for probe in after
        if probe.purpose is not Purpose.TIMING and probe.slices and probe.slices[0].charged_seconds > 0
    ]
    assert max(Counter(started_anew).values()) == 1


def assert_recommended(ended: Ended, place: Workplace) -> None:
    assert ended.code == 0, ended.stderr
    assert "Recommended for tiny" in ended.stdout
    assert "is in use by" not in ended.stderr
    place.assert_nobody_left()


@pytest.mark.parametrize("whom", ["the tuner", "the process group"])
def test_a_killed_run_goes_on_without_waiting(
    workplace: Workplace, started: list[subprocess.Popen[str]], whom: str
) -> None:
    before = run_until_slices(workplace, started, slices=2)
    if whom == "the tuner":
        os.kill(started[0].pid, signal.SIGKILL)
    else:
        os.killpg(started[0].pid, signal.SIGKILL)
    started[0].wait()
    workplace.assert_nobody_left()
    assert any(probe.lease is not None for probe in workplace.study()[1])
    again = workplace.call("run", "job.toml")
    assert_recommended(again, workplace)
    assert "resuming a study that has spent" in again.stderr
    assert_went_on(before, workplace.study()[1])


@pytest.mark.parametrize("numbers", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_an_interrupted_run_says_how_to_go_on(
    workplace: Workplace, started: list[subprocess.Popen[str]], numbers: list[signal.Signals]
) -> None:
    before = run_until_slices(workplace, started, slices=1)
    for number in numbers:
        # As a terminal does it: everyone in the foreground group hears of it.
        os.killpg(started[0].pid, number)
        time.sleep(0.2)
    out, err = started[0].communicate(timeout=60)
    assert started[0].returncode == 130, err
    assert out == ""
    assert "paceline: interrupted; run the same command to resume" in err.strip().splitlines()
    assert "Traceback" not in err
    workplace.assert_nobody_left()
    interrupted = workplace.study()[1]
    assert all(probe.lease is None for probe in interrupted)
    # The slice that was interrupted is paid for, too.
    assert len(slices_of(interrupted)) > len(slices_of(before))
    assert slices_of(interrupted)[-1].charged_seconds > 0
    again = workplace.call("run", "job.toml")
    assert_recommended(again, workplace)
    assert_went_on(interrupted, workplace.study()[1], was_ended=True)


def test_ctrl_c_once_ends_the_slice_and_answers(
    workplace: Workplace, started: list[subprocess.Popen[str]]
) -> None:
    before = run_until_slices(workplace, started, slices=1)
    os.killpg(started[0].pid, signal.SIGINT)
    out, err = started[0].communicate(timeout=60)
    assert started[0].returncode == 130, err
    assert "Interrupted: finishing the slice, then answering; press Ctrl-C again to stop at once" in err
    assert "Recommended for tiny" in out
    assert "The search was interrupted" in " ".join(out.split())
    assert (workplace.folder / "paceline-out/tiny/report.html").is_file()
    assert "Traceback" not in err
    workplace.assert_nobody_left()
    interrupted = workplace.study()[1]
    assert all(probe.lease is None for probe in interrupted)
    assert len(slices_of(interrupted)) == len(slices_of(before)) + 1
    assert slices_of(interrupted)[-1].error is None
    again = workplace.call("run", "job.toml")
    assert_recommended(again, workplace)
    assert_went_on(interrupted, workplace.study()[1], was_ended=True)


def test_a_killed_rank_costs_a_slice_and_not_the_run(
    workplace: Workplace, started: list[subprocess.Popen[str]]
) -> None:
    # Slices of the tuner's own length, whose steps are so long that the run is far from its end.
    before = run_until_slices(workplace, started, slices=1, delay=0.1)

    def failures() -> list[ProbeRecord]:
        return [probe for probe in workplace.study()[1] if probe.outcome is Outcome.FAILED]

    while not failures():
        # A tuner that stands still begins no slice and ends none. Its ranks may just have done theirs: one
        # of them that is killed then costs nothing, and the next slice's turn comes.
        seen = stop_in_a_slice(workplace, started[0])
        try:
            with contextlib.suppress(ProcessLookupError):
                os.kill(_ranks(workplace)[-1], signal.SIGKILL)
        finally:
            os.kill(started[0].pid, signal.SIGCONT)
        num_slices = len(slices_of(seen))

        def has_ended(num_slices: int = num_slices) -> bool:
            return len(slices_of(workplace.study()[1])) > num_slices or started[0].poll() is not None

        wait_until(has_ended, "the slice to end")
        assert started[0].poll() is None or failures(), started[0].communicate()
    out, err = started[0].communicate(timeout=90)
    assert started[0].returncode == 0, err
    assert "Recommended for tiny" in out
    probes = workplace.study()[1]
    failed = [probe for probe in probes if probe.outcome is Outcome.FAILED]
    assert len(failed) == 1
    assert "SIGKILL" in (failed[0].slices[-1].error or "")
    by_id = {probe.probe_id: probe for probe in probes}
    assert all(by_id[p.probe_id].slices[: len(p.slices)] == p.slices for p in before)
    workplace.assert_nobody_left()


def test_a_second_tuner_on_the_same_study_is_refused_and_harms_nothing(
    workplace: Workplace, started: list[subprocess.Popen[str]]
) -> None:
    run_until_slices(workplace, started, slices=1)
    # One that stands still lives, and does not finish while the second looks.
    stop_in_a_slice(workplace, started[0])
    try:
        second = workplace.call("run", "job.toml")
    finally:
        os.kill(started[0].pid, signal.SIGCONT)
    assert second.code == 6
    assert second.stdout == ""
    assert "study tiny is in use by" in second.stderr
    assert f":{started[0].pid}" in second.stderr
    assert "--fresh" in second.stderr
    _, err = started[0].communicate(timeout=90)
    assert started[0].returncode == 0, err


def test_what_was_tuned_is_reported_again_at_once_and_changes_go_on_from_it(workplace: Workplace) -> None:
    # One configuration: a search with a higher target cannot prefer another one to the one that is trained.
    only = [
        ("nodes = [1, 2]", "nodes = [1]"),
        ("batch_size = [16, 32]", "batch_size = [16]"),
        ("learning_rate = { low = 0.001, high = 0.1 }", "learning_rate = [0.001]"),
    ]
    workplace.write_job(*only)
    first = workplace.call("run", "job.toml", "--format", "json")
    assert first.code == 0, first.stderr
    reported, probes = json.loads(first.stdout), workplace.study()[1]

    again = workplace.call("run", "job.toml", "--format", "json")
    assert again.code == 0, again.stderr
    assert json.loads(again.stdout)["choice"] == reported["choice"]
    assert workplace.study()[1] == probes

    # A higher target: the run that arrived goes on from its checkpoint.
    workplace.write_job(*only, ("target = 0.97", "target = 0.985"))
    higher = workplace.call("run", "job.toml", "--format", "json")
    assert higher.code == 0, higher.stderr
    after = workplace.study()[1]
    assert_went_on(probes, after)
    transferred = [probe for probe in after if probe.slices and probe.slices[0].charged_seconds == 0]
    assert transferred
    assert transferred[0].slices[1].samples > transferred[0].slices[0].samples > 0
    assert json.loads(higher.stdout)["verified"]["value"] >= 0.985

    # A new study beside it begins from nothing.
    fresh = workplace.call("run", "job.toml", "--fresh", "--format", "json")
    assert fresh.code == 0, fresh.stderr
    assert json.loads(fresh.stdout)["study_name"] == "tiny-2"
    assert workplace.study()[1][0].slices[0].curve[0].samples == 0


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(workplace: Workplace) -> None:
    slow = [("nodes = [1, 2]", "nodes = [1]"), ("high = 0.1", "high = 0.002")]
    workplace.write_job(*slow, delay=0.03)
    short = workplace.call("run", "job.toml", "--budget", "12s", "--strict")
    assert short.code == 4, short.stderr
    assert "(provisional)" in short.stdout
    assert "The time budget of 12 s is used up" in short.stdout
    assert "paceline: the answer is provisional, and --strict makes this an error" in short.stderr
    assert "Next: paceline run job.toml --verify" in short.stderr
    before = workplace.study()[1]
    longer = workplace.call("run", "job.toml", "--strict")
    assert longer.code == 0, longer.stderr
    assert "(verified)" in longer.stdout
    assert_went_on(before, workplace.study()[1], was_ended=True)


def test_a_database_that_another_process_locks_for_a_while_is_waited_for(workplace: Workplace) -> None:
    with open_storage(f"sqlite:///{workplace.folder / 'paceline.db'}"):
        pass
    locked, done = threading.Event(), threading.Event()

    def pause() -> None:
        connection = sqlite3.connect(workplace.folder / "paceline.db", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        locked.set()
        done.wait(6.0)
        connection.execute("ROLLBACK")
        connection.close()

    holder = threading.Thread(target=pause)
    holder.start()
    locked.wait()
    ended = workplace.call("run", "job.toml")
    holder.join()
    assert ended.code == 0, ended.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    made = subprocess.run(mount, check=False, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no small disk can be mounted: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_a_run_that_goes_on_after_room_was_made(
    workplace: Workplace, small_disk: Path
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1024 * 1024 - 4096 * 3))
    full = workplace.call("run", "job.toml", "--output", str(small_disk / "out"))
    assert full.code == 6, full.stderr
    assert full.stdout == ""
    last = full.messages[-1]
    assert last.startswith("paceline: ")
    assert "No space left on device" in last
    filler.unlink()
    again = workplace.call("run", "job.toml", "--output", str(small_disk / "out"))
    assert_recommended(again, workplace)
    assert_went_on([], workplace.study()[1])
