from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory_ledger import MemoryLedger
from search_spaces import Configuration
from tests.tuner.service.desk import Desk
from tuner.domain.errors import JobError, StorageError
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.probes.commands.slice_curve import known_point, rebuild_records
from tuner.probes.probe_folder import ProbeFolder
from tuner.search.events import SearchEvent
from tuner.search.lost_slices import probe_folder
from tuner.service.artifacts import Artifacts
from tuner.service.run import RunOptions, run_job
from tuner.service.takeover import SyncedProber, open_artifacts, restore

fsspec = pytest.importorskip("fsspec", reason="needs the extra `artifacts`")


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A URL that stands for S3."""
    if request.param == "file":
        yield f"file://{tmp_path}/bucket"
        return
    yield "memory://bucket/paceline"
    fsspec.filesystem("memory").rm("/", recursive=True)


def probe_of(artifacts: Artifacts) -> Path:
    folder = artifacts.output_folder(7) / "probes" / "study-1" / "0001"
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return folder


def test_another_host_continues_with_the_files_of_the_last_slice(url: str, tmp_path: Path) -> None:
    first = open_artifacts(url, tmp_path / "a", attempt=1)
    folder = probe_of(first)
    (folder / "checkpoints" / "one").write_text("1")
    (folder / "metrics.jsonl").write_text("1\n")
    first.after_slice(folder)
    (folder / "checkpoints" / "one").unlink()
    (folder / "checkpoints" / "two").write_text("2")
    (folder / "metrics.jsonl").write_text("1\n2\n")
    first.after_slice(folder)

    second = open_artifacts(url, tmp_path / "b", attempt=2)
    there = probe_of(second)
    (there / "checkpoints" / "stale").write_text("of an earlier attempt on this host")
    assert second.fetch(there)
    found = {p.relative_to(there).as_posix(): p.read_text() for p in there.rglob("*") if p.is_file()}
    assert found == {"checkpoints/two": "2", "metrics.jsonl": "1\n2\n"}
    assert not second.fetch(there.with_name("0002"))


def test_a_worker_that_is_late_changes_nothing(url: str, tmp_path: Path) -> None:
    late, newest = (open_artifacts(url, tmp_path / str(n), attempt=n) for n in (1, 2))
    for artifacts, text in ((late, "late"), (newest, "newest"), (late, "very late")):
        (probe_of(artifacts) / "state").write_text(text)
        artifacts.after_slice(probe_of(artifacts))
    third = open_artifacts(url, tmp_path / "3", attempt=3)
    third.fetch(probe_of(third))
    assert (probe_of(third) / "state").read_text() == "newest"


def test_an_interrupted_upload_leaves_the_files_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/bucket"
    first = open_artifacts(url, tmp_path / "a", attempt=1)
    folder = probe_of(first)
    (folder / "a").write_text("old")
    first.after_slice(folder)
    (folder / "a").write_text("newer")
    (folder / "b").write_text("not stored")
    system: Any = first._system  # type: ignore[attr-defined]
    put = system.put_file

    def interrupted(path: str, remote: str) -> None:
        put(path, remote)
        raise ConnectionError("the network is gone")

    monkeypatch.setattr(system, "put_file", interrupted)
    with pytest.raises(StorageError, match=r"cannot be stored at file://.*: the network is gone; if another"):
        first.after_slice(folder)
    second = open_artifacts(url, tmp_path / "b", attempt=2)
    second.fetch(probe_of(second))
    assert [(p.name, p.read_text()) for p in probe_of(second).iterdir() if p.is_file()] == [("a", "old")]


def test_damaged_files_and_links_are_not_taken(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    first = open_artifacts(url, tmp_path / "a", attempt=1)
    folder = probe_of(first)
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "a").write_text("text")
    first.after_slice(folder)
    second = open_artifacts(url, tmp_path / "b", attempt=2)
    second.fetch(probe_of(second))
    assert [p.name for p in probe_of(second).iterdir() if not p.is_dir()] == ["a"]
    (stored,) = (p for p in (tmp_path / "bucket").rglob("*") if len(p.name) == 64)
    stored.write_text("evil")
    third = open_artifacts(url, tmp_path / "c", attempt=3)
    with pytest.raises(StorageError, match=r"cannot be fetched from file://.*: a is damaged"):
        third.fetch(probe_of(third))
    assert not (probe_of(third) / "a").exists()


def test_a_url_without_its_package_is_said_in_words(tmp_path: Path) -> None:
    for place in ("nosuchkind://bucket", "smb://host/share"):
        with pytest.raises(JobError, match=r"--artifacts .*: .*install `paceline\[artifacts\]`"):
            open_artifacts(place, tmp_path, attempt=1)


@pytest.mark.parametrize("has_records", [True, False])
@pytest.mark.parametrize("checkpoint", [None, "/gone/probes/s/0001/checkpoints/checkpoint"])
def test_a_command_whose_files_are_on_another_host_starts_again_and_says_so(
    tmp_path: Path, checkpoint: str | None, has_records: bool
) -> None:
    ledger = MemoryLedger()
    study = ledger.open_study("digits", "f", {"workload": {"command": "python train.py"}})
    configuration = Configuration(nodes=1, batch_size=64, learning_rate=0.1)
    lease = ledger.start_probe(
        study.study_id, configuration, Purpose.TRAINING, trial_number=0, owner="w", lease_seconds=60
    )
    measured = Measurement(
        configuration=configuration,
        purpose=Purpose.TRAINING,
        outcome=Outcome.PAUSED,
        curve=(CurvePoint(training_seconds=2.0, step=10, samples=640, value=0.5),),
        step=10,
        samples=640,
        training_seconds=2.0,
        checkpoint=checkpoint,
    )
    ledger.append_slice(lease, measured)
    folder = probe_folder(tmp_path / "jobs/1", study, lease.probe_id)
    if has_records:
        rebuild_records(folder, measured)
    events: list[SearchEvent] = []
    artifacts = open_artifacts(None, tmp_path / "jobs", attempt=2)
    restore(artifacts, ledger, study, tmp_path / "jobs/1", events.append)
    assert len(events) == (checkpoint is not None or not has_records)
    assert all("starts from the beginning" in event.text for event in events)
    assert known_point(folder).samples == 640
    assert ProbeFolder(folder).reported_points == list(measured.curve)


@pytest.mark.slow
@pytest.mark.parametrize("shares", [True, False])
def test_a_takeover_on_another_host_finishes_the_job(desk: Desk, tmp_path: Path, shares: bool) -> None:
    url = f"file://{tmp_path}/bucket" if shares else None
    first = open_artifacts(url, tmp_path / "a", attempt=1)

    class KilledError(Exception):
        """The worker is killed."""

    def dies(event: Any) -> None:
        if event.kind == "slice" and event.measurement.outcome is Outcome.PAUSED:
            raise KilledError

    def make(artifacts: Artifacts) -> Any:
        return lambda opened: SyncedProber(desk.make_prober(opened), artifacts, desk.events.append)

    options = RunOptions(output=first.output_folder(1), restart_lost=True)
    with pytest.raises(KilledError):
        run_job(desk.opened, desk.store, options, dies, make_prober=make(first))
    (tmp_path / "a").rename(tmp_path / "gone")

    second = open_artifacts(url, tmp_path / "b", attempt=2)
    output = second.output_folder(1)
    (study,) = desk.store.ledger.studies()
    restore(second, desk.store.ledger, study, output, desk.events.append)
    result = run_job(
        desk.opened,
        desk.store,
        replace(options, output=output),
        desk.events.append,
        make_prober=make(second),
    )
    assert result.recommendation.choice.measured_seconds is not None
    warned = any("its checkpoint is on another host" in event.text for event in desk.events)
    repeats = any(m.repeated_seconds > 0 for p in desk.store.ledger.probes(study.study_id) for m in p.slices)
    assert (warned, repeats) == (not shares, not shares)
