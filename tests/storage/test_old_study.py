"""A study that revision 0001 of the tables stored: it opens, reports the same, and continues."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

import paceline
from benchmarks.soak_service_jobs import differences
from storage import open_storage
from storage.engine import engine_for, parsed
from storage.schema import HEAD, VERSION_TABLE, alembic_config, is_at_head
from storage.transactions import writing
from tuner.domain.recommendation import Recommendation
from tuner.service.opening import open_job
from tuner.service.reporting import report_job
from tuner.service.views import explain_rows, status_rows, trial_rows

OLD = Path(__file__).parent / "study_of_revision_1"
ANSWER = json.loads((OLD / "recommendation.json").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the old job; its database is as revision 0001 left it."""
    for name in ("job.toml", "runs.jsonl"):
        shutil.copy(OLD / name, tmp_path)
    with sqlite3.connect(tmp_path / "paceline.db") as connection:
        connection.executescript((OLD / "paceline.sql").read_text())
    connection.close()
    return tmp_path


@pytest.fixture
def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'paceline.db'}"


def test_it_is_migrated_when_it_is_opened(url: str) -> None:
    engine = engine_for(parsed(url))
    assert not is_at_head(engine)
    open_storage(url).close()
    assert is_at_head(engine)
    columns = {c["name"] for c in inspect(engine).get_columns("paceline_predictions")}
    assert {"created_at", "seconds_observed"} <= columns
    assert columns.isdisjoint({"made_at", "seconds_known", "purpose"})
    engine.dispose()


def test_what_it_stores_is_read_under_the_new_names(url: str) -> None:
    with open_storage(url) as store:
        (study,) = store.ledger.studies()
        assert study.job["goal"]["consecutive_scores"] == 2
        assert "hold" not in study.job["goal"]
        assert [len(probe.slices) for probe in store.ledger.probes(study.study_id)] == [2, 13]
        assert len(store.ledger.predictions(study.study_id)) == 52
        assert {fit.model for fit in store.ledger.past_fits(study.fingerprint)} > {"seconds", "samples"}
        (given,) = store.ledger.recommendations(study.study_id)
        assert given.created_at == ANSWER["made_at"]
        assert Recommendation.from_dict(given.recommendation) == Recommendation.from_dict(ANSWER)
        output = Path("none")
        status = {row["name"]: row["value"] for row in status_rows(store.ledger, study, output)}
        assert status["stop reason"] == ANSWER["stopped_because"]
        assert len(trial_rows(store.ledger, study)) == 2
        assert explain_rows(store.ledger, study, 1)


@pytest.mark.filterwarnings("ignore:.*goal.hold is now called:FutureWarning")
def test_its_report_gives_the_same_answer(folder: Path, url: str) -> None:
    with open_storage(url) as store:
        files = report_job(open_job(folder / "job.toml"), store, folder / "out")
    again = json.loads(files["recommendation.json"].read_text())
    old = Recommendation.from_dict(ANSWER).to_dict()
    # The wording of a sentence may change between versions, but not the number of sentences.
    for key in ("evidence", "warnings"):
        assert len(again.pop(key)) == len(old.pop(key))
    # The older version did not have these.
    for key in ("analysis", "interval_check"):
        assert again.pop(key) is not None
        assert old.pop(key) is None
    assert (again.pop("stop_kind"), old.pop("stop_kind")) == ("arrived", "")
    # The models are fitted anew. Another processor rounds differently, so that posterior samples may take
    # other places, which changes quantiles by some percent.
    assert differences({**again, "created_at": 0}, {**old, "created_at": 0}, tolerance=0.2) == {}


@pytest.mark.filterwarnings("ignore:.*goal.hold is now called:FutureWarning")
def test_its_search_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    result = paceline.run_job("job.toml")
    assert result.study.name == "job"
    assert result.recommendation.tuning.num_probes == 2
    assert result.recommendation.choice.configuration.as_dict() == ANSWER["choice"]["configuration"]


def test_tables_of_revision_1_are_migrated_and_back(database_url: str) -> None:
    from alembic import command

    engine = engine_for(parsed(database_url))
    with writing(engine) as connection:
        command.upgrade(alembic_config(connection), "0001")
        values = {"name": "old", "job": json.dumps({"goal": {"hold": 3}}), "answer": json.dumps(ANSWER)}
        for statement in _ROWS:
            connection.execute(text(statement), values)
    with open_storage(database_url) as store:
        (study,) = store.ledger.studies()
        assert study.job == {"goal": {"consecutive_scores": 3}}
        assert [p.seconds_observed for p in store.ledger.predictions(1)] == [4.5]
        assert [r.recommendation["stop_reason"] for r in store.ledger.recommendations(1)] == [
            ANSWER["stopped_because"]
        ]
    with writing(engine) as connection:
        command.downgrade(alembic_config(connection), "0001")
        assert connection.execute(text("SELECT seconds_known, purpose FROM paceline_predictions")).one() == (
            4.5,
            "choice",
        )
        command.upgrade(alembic_config(connection), "head")
        assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one() == HEAD
        command.check(alembic_config(connection))
    engine.dispose()


def test_private_values_of_the_environment_are_removed(database_url: str) -> None:
    from alembic import command

    engine = engine_for(parsed(database_url))
    secret, other = "s3cret 'of mine' " * 500, "open"
    values = {"TOKEN": secret, "RATE": "{learning_rate}", "FLAGS": f"{secret}{{nodes}}"}
    line = f"export RATE=0.1 TOKEN={shlex.quote(secret)} FLAGS={shlex.quote(secret + '2')} && python train.py"
    with writing(engine) as connection:
        command.upgrade(alembic_config(connection), "0003")
        for number, workload in enumerate(
            (
                {"environment": values},
                {"environment": {"TOKEN": other}, "publish_environment": True},
                {"environment": {}},
            )
        ):
            job = json.dumps({"workload": workload, "goal": {"target": {"$float": "inf"}}})
            answer = json.dumps({"command": [line if number == 0 else f"TOKEN={other} python train.py"]})
            row = {"name": f"old-{number}", "job": job, "answer": answer, "number": number}
            for statement in (
                "INSERT INTO paceline_studies (study_id, name, job_name, fingerprint, job, created_at) "
                "VALUES (:number, :name, :name, 'f', :job, 1.0)",
                "INSERT INTO paceline_recommendations (recommendation_id, study_id, created_at, "
                "recommendation) VALUES (:number, :number, 3.0, :answer)",
            ):
                connection.execute(text(statement), row)
    engine.dispose()
    with open_storage(database_url) as store:
        first, second, _third = store.ledger.studies()
        hidden = "(not published)"
        assert first.job["workload"]["environment"] == {**values, "TOKEN": hidden, "FLAGS": hidden}
        assert first.job["goal"] == {"target": math.inf}
        assert second.job["workload"]["environment"] == {"TOKEN": other}
        (answer,) = store.ledger.recommendations(first.study_id)
        assert answer.recommendation == {
            "command": [f"export RATE=0.1 TOKEN='{hidden}' FLAGS='{hidden}' && python train.py"]
        }
        (answer,) = store.ledger.recommendations(second.study_id)
        assert answer.recommendation == {"command": [f"TOKEN={other} python train.py"]}
    file = parsed(database_url).database or ""
    if database_url.startswith("sqlite"):
        assert b"s3cret" not in Path(file).read_bytes()


_ROWS = (
    "INSERT INTO paceline_studies (study_id, name, job_name, fingerprint, job, created_at) "
    "VALUES (1, :name, :name, 'f', :job, 1.0)",
    "INSERT INTO paceline_predictions (prediction_id, study_id, configuration, made_at, quantiles, dollars, "
    "probability_of_reaching, num_slices, seconds_known, purpose) "
    """VALUES (1, 1, '{"nodes": 1}', 2.0, '[]', '[]', 0.5, 3, 4.5, 'choice')""",
    "INSERT INTO paceline_recommendations (recommendation_id, study_id, made_at, recommendation) "
    "VALUES (1, 1, 3.0, :answer)",
)
