"""A database that is lost while it is open: noticed at the next write, and its measurements are recovered."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

import cli
import paceline
from search_spaces import Configuration
from storage import Storage, open_storage
from storage.engine import parsed
from tuner.domain.errors import StorageError
from tuner.domain.ledger import FitRecord, Lease, PredictionRecord, ProbeRecord, RecommendationRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose

BATCHES = (8, 16, 32)


def slice_of(batch_size: int, number: int, outcome: Outcome = Outcome.PAUSED) -> Measurement:
    points = [
        CurvePoint(
            training_seconds=float(k), step=k, samples=k * batch_size, value=math.inf if k == 1 else 1 / k
        )
        for k in range(10 * number + 1, 10 * number + 11)
    ]
    return Measurement(
        configuration=Configuration(batch_size=batch_size),
        purpose=Purpose.TRAINING,
        outcome=outcome,
        training_seconds=points[-1].training_seconds,
        step=points[-1].step,
        samples=points[-1].samples,
        charged_seconds=12.5 + number,
        curve=tuple(points),
    )


def filled(storage: Storage) -> tuple[int, list[Lease]]:
    ledger = storage.ledger
    ledger.open_study("other", "f0", {})
    study = ledger.open_study("digits", "f1", {"goal": {"target": math.inf}})
    leases = []
    for number, batch_size in enumerate(BATCHES):
        lease = ledger.start_probe(
            study.study_id,
            Configuration(batch_size=batch_size),
            Purpose.TRAINING,
            trial_number=number,
            owner="me",
            lease_seconds=0.0,
        )
        ledger.append_slice(lease, slice_of(batch_size, 0))
        leases.append(lease)
    ledger.append_slice(leases[0], slice_of(BATCHES[0], 1, Outcome.REACHED))
    return study.study_id, leases


def probes_of(url: str) -> list[tuple[object, ...]]:
    with open_storage(url) as storage:
        found = [s for s in storage.ledger.studies() if s.job_name == "digits"]
        assert len(found) == 1
        assert found[0].job == {"goal": {"target": math.inf}}
        return [plain(probe) for probe in storage.ledger.probes(found[0].study_id)]


def plain(probe: ProbeRecord) -> tuple[object, ...]:
    return (probe.probe_id, probe.trial_number, probe.configuration, probe.outcome, probe.slices)


def delete(path: Path) -> None:
    path.unlink()


def replace_by_an_older_copy(path: Path) -> None:
    shutil.copy(path.with_name("older.db"), path.with_name("new.db"))
    path.with_name("new.db").replace(path)


def truncate(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("harm", "happened", "in_memory"),
    [
        (delete, "was deleted while it was in use", True),
        (delete, "was deleted while it was in use", False),
        (replace_by_an_older_copy, "was replaced by another file while it was in use", True),
        (replace_by_an_older_copy, "was replaced by another file while it was in use", False),
        (truncate, r"was truncated from \d+ to 0 bytes while it was in use", True),
        (halve, r"was truncated from \d+ to \d+ bytes while it was in use", True),
    ],
)
def test_a_lost_file_is_noticed_at_the_next_write_and_its_measurements_are_recovered(
    tmp_path: Path, sqlite_url: str, harm: Callable[[Path], None], happened: str, in_memory: bool
) -> None:
    path = Path(str(parsed(sqlite_url).database))
    with open_storage(sqlite_url) as storage:
        storage.ledger.open_study("digits", "f1", {"goal": {"target": math.inf}})
    shutil.copy(path, tmp_path / "older.db")
    with open_storage(sqlite_url) as storage:
        filled(storage)
    expected: list[ProbeRecord] = []

    def lose() -> None:
        with open_storage(sqlite_url) as storage:
            study = storage.ledger.open_study("digits", "f1", {"goal": {"target": math.inf}})
            expected[:] = storage.ledger.probes(study.study_id)
            lease = storage.ledger.take_probe(expected[1].probe_id, owner="me", lease_seconds=0.0)
            if not in_memory:
                storage.ledger._read_probes.clear()
            harm(path)
            storage.ledger.append_slice(lease, slice_of(BATCHES[1], 1, Outcome.DIVERGED))

    with pytest.raises(StorageError, match=happened) as caught:
        lose()
    (file,) = tmp_path.glob("study.db.recovery-*.jsonl")
    assert f"paceline db recover {file} {sqlite_url}" in str(caught.value)
    if harm in (truncate, halve):
        path.unlink()
    with open_storage(sqlite_url) as storage:
        added = storage.recover(file)
        assert (added.num_probes, added.num_slices) == (3, 5)
    found = probes_of(sqlite_url)
    wanted = [plain(probe) for probe in expected]
    slices = (*expected[1].slices, slice_of(BATCHES[1], 1, Outcome.DIVERGED))
    wanted[1] = (*wanted[1][:3], Outcome.DIVERGED, slices)
    assert found == wanted
    with open_storage(sqlite_url) as storage:
        again = storage.recover(file)
    assert (again.num_studies, again.num_probes, again.num_slices) == (0, 0, 0)
    assert probes_of(sqlite_url) == found


def test_a_file_that_vacuum_has_made_smaller_is_not_lost(sqlite_url: str) -> None:
    path = Path(str(parsed(sqlite_url).database))
    with open_storage(sqlite_url) as storage:
        study_id, leases = filled(storage)
        storage.ledger.open_study("digits", "f1", {"text": "x" * 100_000})
        checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)"
        with closing(sqlite3.connect(path)) as other:
            other.execute(checkpoint)
            storage.ledger.open_study("digits", "f1", {})
            before = path.stat().st_size
            other.execute("VACUUM")
            other.execute(checkpoint)
        assert path.stat().st_size < before - 90_000
        storage.ledger.append_slice(leases[1], slice_of(BATCHES[1], 1))
        assert [len(probe.slices) for probe in storage.ledger.probes(study_id)] == [2, 2, 1]


def test_predictions_fits_and_recommendations_are_recovered_once(tmp_path: Path, database_url: str) -> None:
    lost = f"sqlite:///{tmp_path}/lost.db"

    def lose() -> None:
        with open_storage(lost) as storage:
            study_id, _ = filled(storage)
            predictions = [prediction(study_id, number) for number in range(3)]
            storage.ledger.add_predictions(predictions)
            storage.ledger.add_fit(fit(study_id))
            for created_at in (1.5, 2.5):
                answer = RecommendationRecord(
                    study_id=study_id, created_at=created_at, recommendation={"seconds": math.inf}
                )
                storage.ledger.add_recommendation(answer)
            (tmp_path / "lost.db").unlink()

    with pytest.raises(StorageError, match="was deleted"):
        lose()
    (file,) = tmp_path.glob("lost.db.recovery-*.jsonl")
    with open_storage(database_url) as storage:
        for _ in range(2):
            storage.recover(file)
            study_id = storage.ledger.studies()[-1].study_id
            assert storage.ledger.predictions(study_id) == [prediction(study_id, n) for n in range(3)]
            assert storage.ledger.past_fits("f1") == [fit(study_id)]
            answers = storage.ledger.recommendations(study_id)
            assert [(r.created_at, r.recommendation["seconds"]) for r in answers] == [
                (1.5, math.inf),
                (2.5, math.inf),
            ]


def prediction(study_id: int, number: int) -> PredictionRecord:
    return PredictionRecord(
        study_id=study_id,
        configuration=Configuration(batch_size=8 * 2**number),
        created_at=5.5,
        quantiles={0.5: math.inf},
        dollars={0.5: 1.0},
        probability_of_reaching=0.75,
        num_slices=number,
        seconds_observed=2.0,
    )


def fit(study_id: int) -> FitRecord:
    return FitRecord(
        study_id=study_id,
        fingerprint="f1",
        model="seconds",
        created_at=5.5,
        num_slices=1,
        parameters={"a": (1.0, math.inf)},
        summary={"converged": True},
    )


def interrupted(url: str) -> None:
    with open_storage(url) as storage:
        filled(storage)
        raise RuntimeError("other")


def test_nothing_is_written_beside_a_file_that_stays_where_it_is(tmp_path: Path, sqlite_url: str) -> None:
    with pytest.raises(RuntimeError, match="other"):
        interrupted(sqlite_url)
    with open_storage(sqlite_url):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_a_recovery_file_is_merged_into_a_database_with_other_probes(
    tmp_path: Path, database_url: str
) -> None:
    expected: list[ProbeRecord] = []

    def lose() -> None:
        with open_storage(f"sqlite:///{tmp_path}/lost.db") as storage:
            study_id, _ = filled(storage)
            expected[:] = storage.ledger.probes(study_id)
            (tmp_path / "lost.db").unlink()

    with pytest.raises(StorageError, match="was deleted"):
        lose()
    (file,) = tmp_path.glob("lost.db.recovery-*.jsonl")
    with open_storage(database_url) as storage:
        mine = storage.ledger.open_study("digits", "another", {})
        for batch_size in (1, 2):
            storage.ledger.start_probe(
                mine.study_id,
                Configuration(batch_size=batch_size),
                Purpose.TIMING,
                trial_number=None,
                owner="me",
                lease_seconds=60.0,
            )
        added = storage.recover(file)
        assert (added.num_studies, added.num_probes, added.num_slices) == (2, 3, 4)
        study = storage.ledger.studies()[-1]
        assert study.name == "digits-2"
        found = storage.ledger.probes(study.study_id)
        assert [plain(probe)[1:] for probe in found] == [plain(probe)[1:] for probe in expected]
        assert min(probe.probe_id for probe in found) > 3
        lease = storage.ledger.start_probe(
            study.study_id,
            Configuration(batch_size=4),
            Purpose.TIMING,
            trial_number=None,
            owner="me",
            lease_seconds=60.0,
        )
        assert lease.probe_id > max(probe.probe_id for probe in found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}\n",
        "no json\n",
        '{"paceline_recovery": 2}\n',
        "[" * 100_000,
        '{"paceline_recovery": 1}\n{"study": 5}\n',
        '{"paceline_recovery": 1}\n{"study": {"job_name": "a"}}\n',
        '{"paceline_recovery": 1}\n{"study": {"study_id": 1, "name": "a", "job_name": "a", '
        '"fingerprint": "f", "job": {}, "created_at": 1.0}}\n'
        '{"conclusion": {"table": "paceline_fits", "row": {"x": 1}}}\n',
    ],
)
def test_another_file_is_refused(tmp_path: Path, sqlite_url: str, text: str) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text(text)
    with open_storage(sqlite_url) as storage, pytest.raises(StorageError, match="is not a recovery file"):
        storage.recover(file)
    with open_storage(sqlite_url) as storage, pytest.raises(StorageError, match="cannot be read: No such"):
        storage.recover(tmp_path / "gone.jsonl")
    with open_storage(sqlite_url) as storage, pytest.raises(StorageError, match="no regular file"):
        storage.recover(Path("/dev/zero"))


@pytest.mark.slow
def test_a_run_whose_database_was_deleted_goes_on_after_it_was_recovered(tmp_path: Path) -> None:
    old = Path(__file__).parent / "study_of_revision_1"
    shutil.copy(old / "runs.jsonl", tmp_path)
    job = (
        (old / "job.toml")
        .read_text()
        .replace("hold", "consecutive_scores")
        .replace("probes = 2", "probes = 4")
    )
    (tmp_path / "job.toml").write_text(job)
    database, url = tmp_path / "paceline.db", f"sqlite:///{tmp_path}/paceline.db"
    slices = 0

    def delete_after_three_slices(event: paceline.SearchEvent) -> None:
        nonlocal slices
        slices += event.kind == "slice"
        if slices == 3:
            database.unlink(missing_ok=True)

    with pytest.raises(StorageError, match=r"was deleted while it was in use.*paceline db recover"):
        paceline.run_job(tmp_path / "job.toml", output=tmp_path / "out", listener=delete_after_three_slices)
    (file,) = tmp_path.glob("paceline.db.recovery-*.jsonl")
    assert CliRunner().invoke(cli.app, ["db", "recover", str(file), url]).exit_code == 0
    with open_storage(url) as storage:
        (study,) = storage.ledger.studies()
        recovered = storage.ledger.probes(study.study_id)
    assert sum(len(probe.slices) for probe in recovered) == 3
    result = paceline.run_job(tmp_path / "job.toml", output=tmp_path / "out")
    assert result.study.name == study.name
    with open_storage(url) as storage:
        after = storage.ledger.probes(study.study_id)
        earlier = dict.fromkeys(m for probe in recovered for m in probe.slices)
        assert [m for probe in after for m in probe.slices if m in earlier] == list(earlier)
        assert sum(len(probe.slices) for probe in after) > 3
        trials = optuna.load_study(storage=storage.optuna_storage(), study_name=study.name).trials
        assert [t.number for t in trials] == [p.trial_number for p in after]
