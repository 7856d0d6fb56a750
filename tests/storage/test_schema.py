from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, inspect, text

from storage import open_storage
from storage.engine import engine_for, parsed
from storage.schema import HEAD, REVISIONS, VERSION_TABLE, alembic_config
from storage.tables import PREFIX, metadata
from storage.transactions import writing
from tuner.domain.errors import StorageError


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = engine_for(parsed(database_url))
    yield engine
    engine.dispose()


def test_upgrading_from_empty_makes_every_table(database_url: str, engine: Engine) -> None:
    open_storage(database_url).close()
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, VERSION_TABLE}
    assert all(name.startswith(PREFIX) for name in metadata.tables)


def test_upgrading_twice_changes_nothing_and_loses_nothing(database_url: str) -> None:
    open_storage(database_url).close()
    with open_storage(database_url) as storage:
        study = storage.ledger.open_study("digits", "f1", {})
    open_storage(database_url).close()
    with open_storage(database_url) as storage:
        assert storage.ledger.studies() == [study]


def test_alembic_finds_nothing_to_change_beside_optunas_tables(database_url: str, engine: Engine) -> None:
    from alembic import command

    with open_storage(database_url) as storage:
        storage.optuna_storage()
    assert inspect(engine).has_table("trials")
    with engine.connect() as connection:
        command.check(alembic_config(connection))


def test_the_listed_revisions_are_those_of_the_migrations(engine: Engine) -> None:
    from alembic.script import ScriptDirectory

    with engine.connect() as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
    walked = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(walked)) == REVISIONS
    assert scripts.get_current_head() == HEAD


def test_going_down_leaves_optunas_tables_alone(database_url: str, engine: Engine) -> None:
    from alembic import command

    with open_storage(database_url) as storage:
        storage.optuna_storage()
    with writing(engine) as connection:
        command.downgrade(alembic_config(connection), "base")
    left = set(inspect(engine).get_table_names())
    assert "trials" in left
    assert left & set(metadata.tables) == set()
    open_storage(database_url).close()


def test_a_database_of_a_newer_paceline_is_left_alone(database_url: str, engine: Engine) -> None:
    open_storage(database_url).close()
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0999'"))
    with pytest.raises(StorageError, match=r"has revision 0999, but this Paceline supports"):
        open_storage(database_url)


def test_a_migration_that_fails_half_way_leaves_nothing_behind(
    database_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE paceline_recommendations (mine INTEGER)"))
    with pytest.raises(StorageError, match=r"paceline_recommendations.* already exists"):
        open_storage(database_url).close()
    assert inspect(engine).get_table_names() == ["paceline_recommendations"]
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE paceline_recommendations"))
    open_storage(database_url).close()
    inspect(engine).clear_cache()
    assert set(metadata.tables) <= set(inspect(engine).get_table_names())
