"""Scores are found in the files that a run wrote, with the columns that say where they belong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuner.drafting.scored_files import read_files, read_reports


def test_a_csv_file_with_validation_and_steps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train_loss,val_acc\n0,49,1.2,\n0,99,,0.5\n1,149,0.8,\n1,199,,0.7\n")
    [reading, *_] = read_files({path: "{output_folder}/lightning_logs/version_3/metrics.csv"})
    assert reading.source == "csv"
    assert reading.path == "{output_folder}/lightning_logs/version_*/metrics.csv"
    assert dict(reading.columns) == {"value": "val_acc"}
    assert reading.values == (0.5, 0.7)
    assert reading.fields == {"step"}


def test_epochs_count_where_steps_do_not_rise(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("Epoch,batch,valid loss\n1,10,0.9\n2,10,0.7\n3,10,0.6\n")
    [reading] = read_files({path: "log.csv"})
    assert dict(reading.columns) == {"value": "valid loss", "epoch": "Epoch"}
    assert (reading.meaning.metric, reading.meaning.direction) == ("loss", "minimize")


def test_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [{"iteration": 10 * i, "eval/f1": 0.1 * i, "lr": 0.1, "nested": {"a": 1}} for i in range(1, 5)]
    path.write_text("not json\n" + "\n".join(map(json.dumps, rows)) + "\n{broken")
    [reading] = read_files({path: "{output_folder}/log.jsonl"})
    assert dict(reading.columns) == {"value": "eval/f1", "step": "iteration"}
    assert reading.meaning.metric == "f1"


@pytest.mark.slow
def test_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "tb")) as writer:
        for step in range(1, 4):
            writer.add_scalar("loss/train", 1 / step, step)
            writer.add_scalar("accuracy/val", step / 10, step)
    written = {path: f"{{output_folder}}/tb/{path.name}" for path in (tmp_path / "tb").iterdir()}
    [reading, *_] = read_files(written)
    assert (reading.source, reading.path) == ("tensorboard", "{output_folder}/tb")
    assert dict(reading.columns) == {"value": "accuracy/val"}
    assert reading.values == pytest.approx((0.1, 0.2, 0.3))
    dated = {path: f"runs/dqn__1__1795981539/{path.name}" for path in (tmp_path / "tb").iterdir()}
    assert read_files(dated)[0].path == "runs"


@pytest.mark.parametrize(
    ("values", "metric", "direction"),
    [
        ((0.1, 0.9), "accuracy", "maximize"),
        ((3.0, 1.0), "loss", "minimize"),
        ((1.0, 20.0), "score", "maximize"),
    ],
)
def test_reports_of_the_client_have_no_name(
    tmp_path: Path, values: tuple[float, ...], metric: str, direction: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "\n".join(json.dumps({"step": i, "samples": 8 * i, "value": v}) for i, v in enumerate(values))
    )
    [reading] = read_reports(path)
    assert (reading.meaning.metric, reading.meaning.direction) == (metric, direction)
    assert not reading.is_named


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "\0\0\0", "acc\n0.5\n0.6\n", "epoch,acc\nnan,inf\n", "{" * 10_000]
)
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json"])
def test_files_without_scores_give_nothing(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_files({path: name}) == []
