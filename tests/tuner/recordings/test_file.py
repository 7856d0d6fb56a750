import gzip
import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.recorded_grid import grid, write_grid
from tuner.domain.errors import JobError, StorageError
from tuner.recordings.file import load_recording, write_recording

REAL = Path(__file__).resolve().parents[4] / "shared" / "recordings"

HEADER = {
    "recording": "small",
    "source": "made up",
    "metric": "accuracy",
    "direction": "maximize",
    "target": 0.9,
    "curve": ["seconds", "step", "value"],
    "machines": {"a": {"cores": 2, "dollars_per_hour": 0.5}, "b": {"cores": 4, "dollars_per_hour": 1.0}},
    "batch_size_scope": "rank",
    "extra_nodes": 1,
    "startup_seconds": 1.5,
}
ROW = {
    "configuration": {"nodes": 2, "machine": "a", "batch_size": 16, "learning_rate": 1, "strategy": "sync"},
    "data_fraction": 0.5,
    "step_seconds": 0.25,
    "seconds_std": 0.1,
    "end": "time limit",
    "curve": [[1.0, 4, 0.3], [2.0, 8, 0.5]],
}


def without(table, key):
    return {name: value for name, value in table.items() if name != key}


def written(folder, header=HEADER, *rows, zipped=True):
    path = folder / ("r.jsonl.gz" if zipped else "r.jsonl")
    text = "\n".join(json.dumps(line) for line in (header, *(rows or (ROW,)))) + "\n"
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if zipped else text.encode())
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_every_key_of_the_format_is_read(tmp_path, zipped):
    recording = load_recording(written(tmp_path, zipped=zipped))
    assert (recording.name, recording.source, recording.metric) == ("small", "made up", "accuracy")
    assert (recording.maximize, recording.target, recording.extra_nodes) == (True, 0.9, 1)
    assert (recording.batch_size_scope, recording.startup_seconds) == ("rank", 1.5)
    assert recording.machines["b"].cores == 4
    (run,) = recording.runs
    assert run.configuration.as_dict() == {**ROW["configuration"], "learning_rate": 1.0}
    assert type(run.configuration["learning_rate"]) is float
    assert (run.data_fraction, run.step_seconds, run.end) == (0.5, 0.25, "time limit")
    assert (run.seconds_std, run.value_std) == (0.1, None)
    assert run.curve.tolist() == ROW["curve"]


def test_columns_of_the_curve_may_stand_in_another_order(tmp_path):
    header = {**HEADER, "curve": ["loss", "value", "step", "seconds"]}
    row = {**ROW, "curve": [[9.0, 0.3, 4, 1.0]]}
    (run,) = load_recording(written(tmp_path, header, row)).runs
    assert run.curve.tolist() == [[1.0, 4, 0.3]]


def test_what_was_written_is_read_again_and_written_the_same(tmp_path):
    recording = write_grid(tmp_path / "new" / "one.jsonl.gz")
    again = load_recording(tmp_path / "new" / "one.jsonl.gz")
    assert again.configurations() == recording.configurations()
    assert (again.machines, again.extra_nodes) == (recording.machines, recording.extra_nodes)
    for before, after in zip(recording.runs, again.runs, strict=True):
        assert np.array_equal(before.curve, after.curve)
        assert (before.end, before.step_seconds) == (after.end, after.step_seconds)
        assert recording.truth_seconds(before) == again.truth_seconds(after)
    write_recording(again, tmp_path / "two.jsonl.gz")
    assert (tmp_path / "two.jsonl.gz").read_bytes() == (tmp_path / "new" / "one.jsonl.gz").read_bytes()


def test_a_file_is_read_once_while_it_stays_as_it_is(tmp_path):
    path = tmp_path / "grid.jsonl.gz"
    recording = write_grid(path)
    first = load_recording(path)
    assert load_recording(path) is first
    write_recording(replace(recording, name="changed", runs=recording.runs[:3]), path)
    again = load_recording(path)
    assert again.name == "changed"
    assert again.digest != first.digest


def test_notes_of_the_source_are_passed_over(tmp_path):
    header = {**HEADER, "licence": "MIT"}
    assert load_recording(written(tmp_path, header, {**ROW, "repetitions": 3})).name == "small"


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        (without(HEADER, "target"), ROW, "line 1: target: is missing"),
        ({**HEADER, "target": "high"}, ROW, 'line 1: target: must be a finite number, not "high"'),
        ({**HEADER, "direction": "up"}, ROW, "line 1: direction: must be 'maximize' or 'minimize'"),
        ({**HEADER, "curve": ["seconds", "value"]}, ROW, "line 1: curve: must be a list of column names"),
        (
            {**without(HEADER, "startup_seconds"), "startup_second": 2},
            ROW,
            "line 1: startup_second: is unknown; did you mean 'startup_seconds'",
        ),
        (
            {**HEADER, "machines": {"a": {"cores": 0, "dollars_per_hour": 1}}},
            ROW,
            "line 1: machines.a.cores: must be a whole number from 1 to 1099511627776, not 0",
        ),
        (HEADER, without(ROW, "curve"), "line 2: curve: is missing"),
        (HEADER, {**ROW, "step_seconds": 0}, "line 2: step_seconds: must be a finite number above 0"),
        (HEADER, {**ROW, "data_fraction": 2}, "line 2: data_fraction: .* at most 1, not 2"),
        (HEADER, {**ROW, "curve": [[1.0, 4]]}, "line 2: curve: every row must have a number for each"),
        (HEADER, {**ROW, "curve": [[2, 4, 0.1], [1, 8, 0.2]]}, "line 2: curve: .* seconds must not decrease"),
        (HEADER, {**ROW, "curve": [[1, 4, 0.1], [2, 4, 0.2]]}, "steps must increase"),
        (HEADER, {**ROW, "curve": [[1, 4, float("nan")]]}, "line 2: curve: must have finite numbers"),
        (HEADER, {**ROW, "configuration": {}}, "line 2: configuration: must have from 1 to 100 axes, not 0"),
        (
            HEADER,
            {**ROW, "configuration": {**ROW["configuration"], "nodes": 0}},
            "line 2: configuration.nodes: must be a whole number from 1 to 1099511627776, not 0",
        ),
        (
            HEADER,
            {**ROW, "configuration": {**ROW["configuration"], "machine": "aa"}},
            "line 2: configuration.machine: must be one of the header's machines: a, b; did you mean 'a'",
        ),
        (
            HEADER,
            {**ROW, "configuration": without(ROW["configuration"], "machine")},
            "line 2: configuration.machine: is missing: state one of a, b",
        ),
        (
            HEADER,
            {**ROW, "configuration": {**ROW["configuration"], "layers": [1]}},
            "line 2: configuration.layers: must be a string, a number",
        ),
        ({**HEADER, "target": 10**400}, ROW, "line 1: target: must be a finite number"),
        (HEADER, {**ROW, "step_seconds": 10**400}, "line 2: step_seconds: must be a finite number"),
        (HEADER, {**ROW, "curve": [[1.0, 10**400, 0.3]]}, "line 2: curve: every row must have a number"),
        ({**HEADER, "extra_nodes": 10**400}, ROW, "line 1: extra_nodes: must be a whole number"),
        (
            {**HEADER, "startup_seconds": 1e300},
            ROW,
            "line 1: startup_seconds: .* at most 1e\\+30 in absolute value",
        ),
        ({**HEADER, "source": "x" * 10_001}, ROW, "line 1: source: must be a string of at most 10000"),
        (
            HEADER,
            {**ROW, "curve": [[1.0, 1e300, 0.3]]},
            "line 2: curve: .* numbers only, up to 1e\\+30",
        ),
        (
            HEADER,
            {**ROW, "configuration": {**ROW["configuration"], "batch_size": 1e308}},
            "line 2: configuration.batch_size: must be a whole number from 1 to 1099511627776, not 1e\\+308",
        ),
        (
            HEADER,
            {**ROW, "configuration": {**ROW["configuration"], "momentum": 10**400}},
            "line 2: configuration.momentum: must be a finite number",
        ),
        (
            HEADER,
            {**ROW, "configuration": {f"a{i}": i for i in range(101)}},
            "line 2: configuration: must have from 1 to 100 axes, not 101",
        ),
    ],
)
def test_what_is_wrong_is_reported_with_line_and_key(tmp_path, header, row, words):
    path = written(tmp_path, header, row)
    with pytest.raises(JobError, match=words) as caught:
        load_recording(path)
    assert str(path) in str(caught.value)


def test_the_same_run_twice_is_refused(tmp_path):
    with pytest.raises(JobError, match=r"line 3: configuration: line 2 has the same configuration"):
        load_recording(written(tmp_path, HEADER, ROW, ROW))


def test_runs_of_one_strategy_with_other_axes_are_refused(tmp_path):
    other = {**ROW, "configuration": {**ROW["configuration"], "depth": 2}}
    with pytest.raises(
        JobError, match=r"line 3: configuration: .* same axes, but earlier lines differ in depth"
    ):
        load_recording(written(tmp_path, HEADER, ROW, other))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"[1, 2]\n", "line 1: must be a JSON object"),
        (b"{not json\n", "line 1: is not JSON"),
        (json.dumps(HEADER).encode(), "has a header but no run"),
        (b"\xff\xfe{}", "is not text in UTF-8"),
        (gzip.compress(b"x" * 1000, mtime=0)[:-12], "is not a whole gzip file"),
        (b"[" * 100_000, "line 1: is nested too deeply"),
    ],
)
def test_a_file_that_is_no_recording_is_refused(tmp_path, content, words):
    path = tmp_path / "bad.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(JobError, match=words):
        load_recording(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(JobError, match="the recording cannot be read: No such file"):
        load_recording(tmp_path / "gone.jsonl.gz")


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_recording(grid(), tmp_path / "file" / "grid.jsonl.gz")


@pytest.mark.slow  # needs recordings of real runs
@pytest.mark.parametrize("name", ["trimtuner-cnn", "trimtuner-rnn"])
def test_recordings_of_a_public_data_set_are_read(name):
    path = REAL / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the recordings are not here: no {path}")
    recording = load_recording(path)
    assert len(recording.runs) == 1440
    assert len(recording.configurations(1.0)) == len(recording.configurations()) == 288
    assert recording.extra_nodes == 1
    truths = [recording.truth_seconds(recording.run(c)) for c in recording.configurations()]
    assert 0.2 < np.isfinite(truths).mean() < 0.4


def test_a_small_file_that_unpacks_to_a_huge_line_is_refused(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(b"".join(gzip.compress(bytes(2**20), mtime=0) for _ in range(100)))
    tracemalloc.start()
    with pytest.raises(JobError, match=r"bomb.jsonl.gz, line 1: has more than 8 MiB, which is the limit"):
        load_recording(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 * 2**20


def test_a_small_file_that_unpacks_to_many_lines_is_refused(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    lines = gzip.compress(b" " * (2**20 - 1) + b"\n", mtime=0)
    path.write_bytes(gzip.compress(json.dumps(HEADER).encode() + b"\n", mtime=0) + 200 * lines)
    with pytest.raises(JobError, match=r"bomb.jsonl.gz, line 129: the file has more than 128 MiB"):
        load_recording(path)


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(JobError, match="is not a regular file"):
        load_recording(tmp_path / "pipe.jsonl")


def test_many_unknown_keys_are_passed_over(tmp_path):
    notes = {f"startup_{i}_note": i for i in range(20_000)}
    assert load_recording(written(tmp_path, {**HEADER, **notes})).name == "small"
