from __future__ import annotations

import json
import math
import sqlite3
from pathlib import Path

import pytest

from tuner.domain.errors import JobError
from tuner.past_runs import found as limits
from tuner.past_runs.formats import FORMATS, find_runs
from tuner.past_runs.found import Found, UnreadableError, flat_parameters, read_parameters

#: Written by MLflow 3.17 and Weights & Biases 0.31 (histories by pandas), without the paths of a machine.
FILES = Path(__file__).parent / "files"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def database(path: Path) -> Path:
    """MLflow's database, from its dump."""
    connection = sqlite3.connect(path)
    connection.executescript((FILES / "mlflow.sql").read_text())
    connection.commit()
    connection.close()
    return path


def read(*sources: Path, format_name: str | None = None, run_column: str | None = None) -> Found:
    return find_runs(sources, format_name, run_column)


def reasons(found: Found) -> str:
    return "\n".join(f"{one.what}: {one.reason}" for one in found.left_out)


def curve(found: Found, name: str, column: str, position: str = "step") -> list[tuple[float, float]]:
    run = next(run for run in found.runs if name in run.label)
    return [(row[position], row[column]) for row in run.rows if column in row]


MLFLOW_CURVE = [(100, 0.58), (200, 0.66), (300, 0.74), (400, 0.8200000000000001), (500, 0.9)]


def test_a_file_store_of_mlflow_is_read() -> None:
    found = read(FILES / "mlruns")
    assert {(run.name, run.format) for run in found.runs} == {
        ("run-64", "mlflow"),
        ("run-128", "mlflow"),
        ("nan", "mlflow"),
    }
    assert curve(found, "run-64", "val_accuracy") == MLFLOW_CURVE
    run = next(run for run in found.runs if run.name == "run-64")
    assert run.parameters == {"batch_size": "64", "lr": "0.1", "model": "mlp"}
    assert run.rows[0]["train/loss"] == 1.0
    assert run.rows[0]["time"] == pytest.approx(1795974079.308)
    assert run.origin == str(FILES / "mlruns")


def test_a_database_of_mlflow_holds_the_same_runs(tmp_path: Path) -> None:
    found = read(database(tmp_path / "mlflow.db"))
    assert curve(found, "run-64", "val_accuracy") == MLFLOW_CURVE
    assert {run.name: dict(run.parameters)["lr"] for run in found.runs} == {
        "run-64": "0.1",
        "run-128": "0.05",
        "nan": "3.0",
    }
    (diverged,) = [run for run in found.runs if run.name == "nan"]
    assert math.isnan(diverged.rows[-1]["val_accuracy"])


def test_deleted_runs_of_mlflow_are_left_out(tmp_path: Path) -> None:
    path = database(tmp_path / "mlflow.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'run-64'")
    found = read(path)
    assert "run-64: MLflow marks it as deleted" in reasons(found)
    assert {run.name for run in found.runs} == {"run-128", "nan"}


def test_a_database_of_something_else_is_left_out(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE runs (a, b)")
    assert "not of a known format" in reasons(read(tmp_path / "other.db"))
    with pytest.raises(JobError, match="no file of a known format"):
        read(tmp_path)
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.executescript("CREATE TABLE runs (a); CREATE TABLE metrics (a); CREATE TABLE params (a)")
    assert "with other tables: " in reasons(read(tmp_path / "old.db"))
    (tmp_path / "cut.db").write_bytes((database(tmp_path / "whole.db")).read_bytes()[:5000])
    assert "not a database of MLflow" in reasons(read(tmp_path / "cut.db"))


def test_reading_a_database_does_not_change_it(tmp_path: Path) -> None:
    path = database(tmp_path / "mlflow.db")
    before = path.read_bytes()
    path.chmod(0o400)
    read(path)
    assert path.read_bytes() == before
    assert [inside.name for inside in tmp_path.iterdir()] == ["mlflow.db"]


def test_metrics_without_steps_stay_apart_by_time(tmp_path: Path) -> None:
    write(tmp_path / "run" / "meta.yaml", "run_id: a\n")
    write(tmp_path / "run" / "metrics" / "acc", "1000 0.1 0\n2000 0.2 0\nnonsense\n3000 0.3 0\n")
    assert curve(read(tmp_path), "run", "acc") == [(0, 0.1), (0, 0.2), (0, 0.3)]


def test_histories_of_wandb_get_the_configuration_beside_them() -> None:
    found = read(FILES / "wandb")
    assert {run.format for run in found.runs} == {"wandb"}
    assert curve(found, "run-64", "eval/accuracy", "trainer/global_step") == MLFLOW_CURVE
    parameters = {run.source.stem: dict(run.parameters) for run in found.runs}
    assert parameters["run-64"]["batch_size"] == "64"
    assert parameters["run-128"]["optimizer.lr"] == "0.05"


def test_a_chart_of_wandb_has_a_column_for_each_run(tmp_path: Path) -> None:
    write(
        tmp_path / "chart.csv",
        '"Step","run-1 - eval/loss","run-1 - eval/loss__MIN","run-1 - eval/loss__MAX","a - b - eval/loss"\n'
        "10,0.9,0.9,0.9,\n20,0.7,0.6,0.8,0.5\n",
    )
    write(tmp_path / "table.csv", "Name,State,batch_size,lr\nrun-1,finished,64,0.1\na - b,crashed,32,0.2\n")
    found = read(tmp_path)
    assert curve(found, "run-1", "eval/loss", "Step") == [(10, 0.9), (20, 0.7)]
    assert curve(found, "a - b", "eval/loss", "Step") == [(20, 0.5)]
    assert {run.name: run.parameters["lr"] for run in found.runs} == {"run-1": "0.1", "a - b": "0.2"}
    assert not any(
        name.endswith(("__MIN", "__MAX")) for run in found.runs for row in run.rows for name in row
    )


def test_the_binary_file_of_an_offline_run_is_left_out_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "run-x.wandb").write_bytes(b":W&B\0\0\0")
    assert "wandb sync" in reasons(read(tmp_path))


def test_a_long_table_is_divided_by_its_column_of_runs(tmp_path: Path) -> None:
    path = write(
        tmp_path / "all.csv",
        "run_id;batch_size;lr;step;acc\na;64;0.1;10;0.5\nb;32;0.2;10;0.4\na;64;0.1;20;0.6\n",
    )
    found = read(path)
    assert curve(found, "a", "acc") == [(10, 0.5), (20, 0.6)]
    assert {run.name: run.parameters["lr"] for run in found.runs} == {"a": "0.1", "b": "0.2"}
    by_other = read(path, run_column="lr")
    assert {run.name for run in by_other.runs} == {"0.1", "0.2"}


def test_a_file_of_one_run_has_its_constants_and_its_folder_s_configuration(tmp_path: Path) -> None:
    write(tmp_path / "version_0" / "metrics.csv", "step,val_acc,bs\n1,0.5,\n2,,64\n3,0.7,64\n")
    write(tmp_path / "version_0" / "hparams.yaml", "lr: 1e-3\nmodel: !!python/object:os.system {a: 1}\n")
    (run,) = read(tmp_path).runs
    assert run.parameters == {"lr": "1e-3", "bs": "64"}
    assert [row.get("val_acc") for row in run.rows] == [0.5, None, 0.7]


def test_a_configuration_file_belongs_to_no_run_if_several_lie_beside_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.csv", "step,acc\n1,0.5\n")
    write(tmp_path / "config.json", '{"lr": 0.1}')
    write(tmp_path / "b.json", '{"lr": 0.2}')
    assert {run.source.stem: run.parameters.get("lr") for run in read(tmp_path).runs} == {
        "a": None,
        "b": "0.2",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no header"),
        (b"step,acc\n", "no rows"),
        (b"only one column\n1\n", "no header"),
        (b"acc,acc,step\n1,2,3\n", "two of its columns"),
        (b'step,acc\n1,"' + b"x" * 200_000 + b'"\n', "not CSV"),
        (b"\0\0\0,\0\n" * 10, "no header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "no header"),
    ],
)
def test_a_file_that_is_not_csv_is_left_out(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    found = read(tmp_path / "a.csv")
    assert not found.runs
    assert words in reasons(found)


def test_numbers_that_no_float_holds_are_infinite(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"step,acc\n1,1e400\n2,{'9' * 5000}\n3,nan\n4,x\n")
    (run,) = read(path).runs
    assert [row.get("acc") for row in run.rows][:2] == [math.inf, math.inf]
    assert math.isnan(run.rows[2]["acc"])
    assert "acc" not in run.rows[3]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.json", '{"lr": ' + "9" * 5000 + "}", "not valid JSON"),
        ("c.json", "[" * 100_000, "not valid JSON"),
        ("c.json", "[1]", "no mapping of parameter names"),
        ("c.yaml", "a: &a [x, x]\nb: *a\n", "anchors"),
        ("c.yaml", "a: [", "not valid YAML"),
    ],
)
def test_a_damaged_configuration_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(UnreadableError, match=words):
        read_parameters(write(tmp_path / name, text))


def test_nested_parameters_are_named_by_their_path() -> None:
    data = json.loads(
        '{"lr": {"value": 0.1, "desc": null}, "_wandb": {"value": 1}, "opt": {"beta": [1], "b": true}}'
    )
    assert flat_parameters(data) == {"lr": "0.1", "opt.b": "True"}


def test_files_that_are_too_large_or_too_many_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.truncate(limits.MOST_BYTES + 1)
    assert "at most 256 MiB" in reasons(read(path))
    monkeypatch.setattr("tuner.past_runs.formats.MOST_FILES", 3)
    for number in range(4):
        write(tmp_path / "many" / f"{number}.txt", "")
    with pytest.raises(JobError, match="more than 3 files"):
        read(tmp_path / "many")


def test_links_are_not_followed_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "step,acc\n1,0.5\n")
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(read(tmp_path).runs) == 1


def test_what_is_not_there_or_of_no_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no such file or folder"):
        read(tmp_path / "absent")
    with pytest.raises(JobError, match="no file of a known format"):
        read(tmp_path)
    assert "not of a known format" in reasons(read(write(tmp_path / "a.txt", "hello")))
    write(tmp_path / "a.csv", "step,acc\n1,0.5\n")
    with pytest.raises(JobError, match=r"no file of a known format \(mlflow\)"):
        read(tmp_path, format_name="mlflow")


def test_each_format_has_a_name_of_its_own() -> None:
    assert [one.name for one in FORMATS] == ["tensorboard", "mlflow", "wandb", "csv"]
