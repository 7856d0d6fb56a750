from __future__ import annotations

import contextlib
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from search_spaces import Configuration
from storage import Storage, open_storage
from storage.engine import engine_for, parsed
from storage.failures import is_temporary, storage_error
from tuner.domain.errors import DatabaseUnavailableError, StorageError
from tuner.domain.ledger import PredictionRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder other users can reach; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def opened_by_another_user(url: str) -> str:
    """What opening says to a user without special rights."""
    # The rights are dropped after the imports: the interpreter itself may lie where others cannot read.
    code = (
        "import os, sys\n"
        "from storage import open_storage\n"
        "from tuner.domain.errors import StorageError\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: open_storage(sys.argv[1]).close(); print('opened')\n"
        "except StorageError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, url], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_curves_can_be_queried_with_sql(database_url: str) -> None:
    with open_storage(database_url) as storage:
        study = storage.ledger.open_study("digits", "f1", {})
        configuration = Configuration(batch_size=8)
        lease = storage.ledger.start_probe(
            study.study_id, configuration, Purpose.TRAINING, trial_number=0, owner="w", lease_seconds=60
        )
        point = CurvePoint(training_seconds=1.5, step=3, samples=24, value=0.75)
        for _ in range(2):
            storage.ledger.append_slice(
                lease,
                Measurement(
                    configuration=configuration,
                    purpose=Purpose.TRAINING,
                    outcome=Outcome.PAUSED,
                    curve=(point,),
                ),
            )
    engine = engine_for(parsed(database_url))
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT study_id, probe_id, slice_index, training_seconds, step, samples, value "
                "FROM paceline_curve_points ORDER BY slice_index"
            )
        ).all()
    engine.dispose()
    expected = [(study.study_id, lease.probe_id, index, 1.5, 3, 24, 0.75) for index in (0, 1)]
    assert [tuple(row) for row in found] == expected


def test_optuna_and_the_ledger_share_one_database(database_url: str) -> None:
    import optuna

    with open_storage(database_url) as storage:
        study = optuna.create_study(storage=storage.optuna_storage(), study_name="digits")
        study.tell(study.ask(), 0.5)
        storage.ledger.open_study("digits", "f1", {})
        assert storage.optuna_storage() is storage.optuna_storage()
    with open_storage(database_url) as storage:
        again = optuna.load_study(storage=storage.optuna_storage(), study_name="digits")
        assert [trial.value for trial in again.trials] == [0.5]
        assert [found.name for found in storage.ledger.studies()] == ["digits"]


def test_a_path_may_hold_braces_percents_and_blanks(tmp_path: Path) -> None:
    folder = tmp_path / "a {b} %c"
    folder.mkdir()
    with open_storage(f"sqlite:///{folder}/study.db") as storage:
        storage.ledger.open_study("digits", "f1", {})
        assert storage.optuna_storage().get_all_studies() == []
    assert sorted(path.name for path in folder.iterdir()) == ["study.db"]


def test_a_relative_path_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_storage("sqlite:///study.db") as storage:
        monkeypatch.chdir("/")
        storage.ledger.open_study("digits", "f1", {})
        assert storage.optuna_storage().get_all_studies() == []
    assert (tmp_path / "study.db").is_file()


def test_sqlite_writes_ahead_and_syncs_each_commit(sqlite_url: str) -> None:
    open_storage(sqlite_url).close()
    engine = engine_for(parsed(sqlite_url))
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 20_000}


def test_opening_what_is_up_to_date_imports_neither_alembic_nor_optuna(sqlite_url: str) -> None:
    open_storage(sqlite_url).close()
    code = (
        "import sys; from storage import open_storage; open_storage(sys.argv[1]).ledger.studies()\n"
        "print([name for name in ('alembic', 'optuna', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sqlite_url], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


class TestRefusals:
    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("study.db", "'study.db' is no database URL; an example is sqlite:///study.db"),
            ("sqlite://", "has no file to store a study in"),
            ("sqlite:///:memory:", "has no file to store a study in"),
            ("mysql://me:secret@host/db", r"mysql://me:\*\*\*@host/db: studies are stored in SQLite or Post"),
            ("oracle:me:secret@host", r"'oracle:me:\*\*\*@host' is no database URL"),
            ("mysql://h/db?password=secret&a=b", r"mysql://h/db\?a=b&password=\*\*\*: studies are stored in"),
            ("mysql://h/db?sslpassword=secret", r"mysql://h/db\?sslpassword=\*\*\*: studies are stored in"),
            ("postgresql://me:secret/@h:abc/db", r"me:\*\*\*@h:abc/db': the port of a .* from 1 to 65535"),
            ("postgresql://h:abc/db?password=secret", r"abc/db\?password=\*\*\*': the port of a database"),
            ("postgresql://me:secret@h:70000/db", r"me:\*\*\*@h:70000/db': the port of a database URL must"),
        ],
    )
    def test_a_wrong_url_is_answered_with_a_right_one(self, url: str, message: str) -> None:
        with pytest.raises(StorageError, match=message) as caught:
            open_storage(url)
        assert "secret" not in str(caught.value)

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"needs the folder .*/gone, which does not exist; create it"):
            open_storage(f"sqlite:///{tmp_path}/gone/study.db")
        assert not (tmp_path / "gone").exists()

    def test_a_folder_is_no_database(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="is a folder; give a file in it"):
            open_storage(f"sqlite:///{tmp_path}")

    def test_an_unwritable_folder_is_named(self, shared_folder: Path) -> None:
        shared_folder.chmod(0o555)
        answer = opened_by_another_user(f"sqlite:///{shared_folder}/study.db")
        assert (
            f"is not writable: no permission to write {shared_folder}; grant this user the permission"
            in answer
        )

    def test_an_unwritable_file_is_named(self, shared_folder: Path) -> None:
        shared_folder.chmod(0o777)
        path = shared_folder / "study.db"
        open_storage(f"sqlite:///{path}")
        path.chmod(0o444)
        answer = opened_by_another_user(f"sqlite:///{path}")
        assert f"is not writable: no permission to write {path}; grant this user the permission" in answer

    def test_a_file_that_is_no_database_is_left_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("remember the milk\n" * 100)
        with pytest.raises(StorageError, match=r"notes.txt is not a SQLite database: .* give another file"):
            open_storage(f"sqlite:///{path}")
        assert path.read_text() == "remember the milk\n" * 100

    @pytest.mark.slow  # needs the driver, psycopg
    def test_a_refused_port_is_unreachable_and_the_password_hidden(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("storage.database.OPENING_SECONDS", 0.1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            with pytest.raises(StorageError, match=r"cannot be reached: .*start the server") as caught:
                open_storage(f"postgresql://me:secret@127.0.0.1:{port}/paceline")
        assert f"postgresql+psycopg://me:***@127.0.0.1:{port}/paceline" in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_a_database_the_server_does_not_have_is_to_be_created(self, postgres_url: str) -> None:
        with pytest.raises(StorageError, match=r"nowhere does not exist: .*createdb"):
            open_storage(postgres_url.rsplit("/", 1)[0] + "/nowhere")

    def test_a_role_without_rights_learns_which_it_needs(self, postgres_url: str) -> None:
        engine = create_engine(parsed(postgres_url))
        with engine.begin() as connection:
            connection.execute(text("CREATE ROLE paceline_reader LOGIN"))
        try:
            url = parsed(postgres_url).set(username="paceline_reader")
            with pytest.raises(StorageError, match=r"refuses the operation: permission denied.*grant"):
                open_storage(url.render_as_string(hide_password=False))
        finally:
            with engine.begin() as connection:
                connection.execute(text("DROP ROLE paceline_reader"))
            engine.dispose()

    def test_a_full_disk_says_so_and_keeps_what_was_whole(self, sqlite_url: str) -> None:
        with open_storage(sqlite_url) as storage:
            storage.ledger.open_study("digits", "f1", {})
            with storage._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA max_page_count = 1")
            with pytest.raises(StorageError, match="has no space left: database or disk is full"):
                storage.ledger.open_study("other", "f2", {"text": "x" * 100_000})
            assert [study.name for study in storage.ledger.studies()] == ["digits"]

    def test_a_database_locked_by_another_program_says_so(
        self, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("storage.engine.BUSY_TIMEOUT_SECONDS", 0.05)
        monkeypatch.setattr("storage.retries.RETRY_SECONDS", 0.1)
        with open_storage(sqlite_url) as storage:
            holder = sqlite3.connect(parsed(sqlite_url).database or "")
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match=r"is locked by another process: database is locked"):
                storage.ledger.open_study("digits", "f1", {})
            holder.close()
            assert storage.ledger.open_study("digits", "f1", {}).name == "digits"

    def test_errors_of_the_file_system_are_distinguished(self) -> None:
        url = parsed("sqlite:////data/study.db")
        assert "is not writable: Permission denied" in str(
            storage_error(PermissionError(13, "Permission denied"), url)
        )
        assert "has no space left: No space" in str(
            storage_error(OSError(28, "No space left on device"), url)
        )

    def test_values_of_a_row_in_a_message_do_not_decide(self) -> None:
        url = parsed("postgresql+psycopg://u@h/x")
        error = RuntimeError("duplicate key; DETAIL: Key (name)=(closed pipeline) already exists")
        error.sqlstate = "23505"  # type: ignore[attr-defined]
        assert "refused a statement" in str(storage_error(error, url))

    @pytest.mark.parametrize(
        "reason",
        [
            "FATAL:  the database system is starting up",
            "FATAL:  the database system is not yet accepting connections\n"
            "DETAIL:  Consistent recovery state has not been yet reached.",
            "FATAL:  the database system is in recovery mode",
            "FATAL:  das Datenbanksystem startet",
        ],
    )
    def test_a_server_that_restarts_is_unreachable_for_a_while(self, reason: str) -> None:
        text = f'connection failed: connection to server at "127.0.0.1", port 5432 failed: {reason}'
        error = OperationalError("SELECT 1", {}, RuntimeError(text))
        assert is_temporary(error)
        found = storage_error(error, parsed("postgresql+psycopg://u@h/x"))
        assert isinstance(found, DatabaseUnavailableError)
        assert "cannot be reached" in str(found)

    @pytest.mark.parametrize(
        "reason", ['password authentication failed for user "u"', 'database "x" does not exist']
    )
    def test_a_refusal_that_lasts_is_not_tried_again(self, reason: str) -> None:
        text = f'connection failed: connection to server at "127.0.0.1", port 5432 failed: FATAL:  {reason}'
        assert not is_temporary(OperationalError("SELECT 1", {}, RuntimeError(text)))

    def test_what_optuna_lets_through_becomes_a_storage_error_under_guard(self, sqlite_url: str) -> None:
        import optuna

        with open_storage(sqlite_url) as storage:
            optuna_storage = storage.optuna_storage()
            study = optuna.create_study(storage=optuna_storage)
            with optuna_storage.engine.begin() as connection:
                connection.exec_driver_sql("DROP TABLE trials")
            with (
                pytest.raises(StorageError, match=r"refused a statement: no such table: trials"),
                storage.guarded(),
            ):
                study.ask()

    def test_the_guard_lets_other_errors_be(self, sqlite_url: str) -> None:
        storage = open_storage(sqlite_url)
        with storage, pytest.raises(FileNotFoundError, match="metrics"), storage.guarded():
            raise FileNotFoundError("metrics")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE paceline_studies SET job = '{'",
        "UPDATE paceline_probes SET configuration = 'nonsense'",
        "UPDATE paceline_probes SET outcome = 'pauscd'",
        "UPDATE paceline_slices SET details = '{}'",
        "UPDATE paceline_slices SET details = '[1, '",
        "UPDATE paceline_slices SET details = replace(details, '8', '9') WHERE slice_index = 1",
        "UPDATE paceline_predictions SET quantiles = '[1]'",
    ],
)
def test_a_row_that_was_damaged_is_a_storage_error_with_a_remedy(sqlite_url: str, damage: str) -> None:
    configuration = Configuration(batch_size=8)
    with open_storage(sqlite_url) as storage:
        ledger = storage.ledger
        study = ledger.open_study("digits", "f1", {})
        lease = ledger.start_probe(
            study.study_id,
            configuration,
            Purpose.TRAINING,
            trial_number=None,
            owner="me",
            lease_seconds=60.0,
        )
        for _ in range(2):
            ledger.append_slice(
                lease,
                Measurement(configuration=configuration, purpose=Purpose.TRAINING, outcome=Outcome.PAUSED),
            )
        ledger.add_predictions(
            [
                PredictionRecord(
                    study_id=study.study_id,
                    configuration=configuration,
                    created_at=0.0,
                    quantiles={0.5: 1.0},
                    dollars={},
                    probability_of_reaching=0.5,
                    num_slices=1,
                    seconds_observed=0.0,
                )
            ]
        )
    with contextlib.closing(sqlite3.connect(str(parsed(sqlite_url).database))) as connection:
        connection.execute(damage)
        connection.commit()
    with (
        open_storage(sqlite_url) as storage,
        pytest.raises(
            StorageError, match=r"study\.db has a row that cannot be read: .* To do: restore a copy"
        ),
    ):
        _read_all(storage, study.study_id)


def _read_all(storage: Storage, study_id: int) -> None:
    storage.ledger.studies()
    storage.ledger.probes(study_id)
    storage.ledger.predictions(study_id)


def test_a_schema_that_is_no_text_any_more_is_a_storage_error(sqlite_url: str) -> None:
    with open_storage(sqlite_url):
        pass
    path = Path(str(parsed(sqlite_url).database))
    path.write_bytes(
        path.read_bytes().replace(b"CREATE TABLE paceline_probes", b"CREATE TA\x81LE paceline_probes")
    )
    with pytest.raises(StorageError, match=r"is damaged: .* To do: restore a copy"):
        open_storage(sqlite_url)


def test_optuna_is_imported_before_others_have_to_wait(sqlite_url: str) -> None:
    code = (
        "import sys, contextlib, storage.database as database\n"
        "@contextlib.contextmanager\n"
        "def watched(engine):\n"
        "    print('optuna.storages' in sys.modules)\n"
        "    yield\n"
        "with database.open_storage(sys.argv[1]) as storage:\n"
        "    database.one_at_a_time = watched\n"
        "    storage.optuna_storage()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sqlite_url], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"]
