from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tuner.past_runs.formats import find_runs
from tuner.past_runs.found import Found

#: They need the package tensorboard, which `make test` does not install.
pytestmark = pytest.mark.slow


def write(folder: Path, values: dict[str, list[float]], **hyperparameters: float) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for tag, own in values.items():
        for place, value in enumerate(own, start=1):
            writer.add_scalar(tag, value, 100 * place)
    if hyperparameters:
        writer.add_hparams(hyperparameters, {"hparam/best": 1.0})
    writer.close()


def read(folder: Path) -> Found:
    return find_runs([folder], None, None)


def test_each_folder_is_a_run_with_its_scalars(tmp_path: Path) -> None:
    write(tmp_path / "a", {"val/acc": [0.5, 0.6, 0.7], "loss": [2.0, 1.0]})
    write(tmp_path / "b", {"val/acc": [0.4]})
    runs = {run.source.name: run for run in read(tmp_path).runs}
    assert set(runs) == {"a", "b"}
    assert [(row["step"], row.get("loss")) for row in runs["a"].rows] == [(100, 2.0), (200, 1.0), (300, None)]
    assert [row["val/acc"] for row in runs["a"].rows] == pytest.approx([0.5, 0.6, 0.7])
    assert all(row["time"] > 1e9 for row in runs["a"].rows)


def test_hyperparameters_of_the_folder_below_belong_to_the_run(tmp_path: Path) -> None:
    write(tmp_path / "a", {"val/acc": [0.5, 0.6]}, batch_size=64, lr=0.1)
    (run,) = read(tmp_path).runs
    assert (run.parameters["batch_size"], run.parameters["lr"]) == ("64.0", "0.1")


def test_arguments_that_are_logged_as_json_text_are_parameters(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    writer.add_text("args", '{"learning_rate": 0.01, "per_device_train_batch_size": 16}')
    writer.add_text("note", "no table")
    writer.add_scalar("eval/accuracy", 0.5, 10)
    writer.close()
    (run,) = read(tmp_path).runs
    assert run.parameters == {"learning_rate": "0.01", "per_device_train_batch_size": "16"}


def test_the_curve_of_the_training_data_is_left_out_beside_that_of_the_validation_data(
    tmp_path: Path,
) -> None:
    write(tmp_path / "m" / "train", {"epoch_accuracy": [0.5]})
    write(tmp_path / "m" / "validation", {"epoch_accuracy": [0.4]})
    found = read(tmp_path)
    assert [run.source.name for run in found.runs] == ["validation"]
    assert "training data" in found.left_out[0].reason


def test_scalars_that_are_stored_as_tensors_are_read(tmp_path: Path) -> None:
    """As TensorFlow 2 and Keras write them."""
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.plugins.scalar import metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util import tensor_util

    writer = EventFileWriter(str(tmp_path))
    for step in (0, 1):
        value = summary_pb2.Summary.Value(
            tag="epoch_accuracy",
            tensor=tensor_util.make_tensor_proto(0.5 + 0.25 * step, dtype=float),
            metadata=metadata.create_summary_metadata("epoch_accuracy", ""),
        )
        event = event_pb2.Event(step=step, wall_time=1.0 + step, summary=summary_pb2.Summary(value=[value]))
        writer.add_event(event)
    writer.close()
    (run,) = read(tmp_path).runs
    assert [(row["step"], row["epoch_accuracy"]) for row in run.rows] == [(0, 0.5), (1, 0.75)]


def test_files_that_are_no_event_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(b"\0" * 100)
    (tmp_path / "events.out.tfevents.2").write_bytes(b"hello, I am a text" * 50)
    (tmp_path / "events.out.tfevents.3").write_bytes(b"")
    found = read(tmp_path)
    assert not found.runs
    assert {Path(one.what).name[-1] for one in found.left_out} == {"1", "2", "3"}


def test_a_file_that_was_cut_off_gives_what_it_has(tmp_path: Path) -> None:
    write(tmp_path, {"acc": [0.1, 0.2, 0.3, 0.4]})
    (path,) = tmp_path.glob("*tfevents*")
    path.write_bytes(path.read_bytes()[:-20])
    (run,) = read(tmp_path).runs
    assert [row["acc"] for row in run.rows] == pytest.approx([0.1, 0.2, 0.3])


def test_without_the_package_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuner.domain.errors import JobError

    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(JobError, match=r"pip install 'paceline\[tensorboard\]'"):
        read(tmp_path)
