"""The fuzzer finds no broken rule in a short run, and its own rules find what breaks them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.soak_fuzz import problems_of, run_fuzz
from benchmarks.soak_fuzz_guard import limited_memory, names_a_remedy
from benchmarks.soak_fuzz_target import EXAMPLES, Problem, Target, call_cli
from benchmarks.soak_record import SoakRecord


def test_200_hostile_inputs_break_no_rule() -> None:
    record = SoakRecord(name="fuzz", seed=22, seconds=100.0, report=lambda line: None)
    run_fuzz(record, num_inputs=200, num_seeds=1)
    assert record.broken == []
    assert sum(record.counts.values()) == 200


class Writer(Target):
    """Writes to the path that it is fed."""

    name = "writer"

    def make(self, rng: random.Random) -> bytes:
        return b""

    def problems(self, data: bytes) -> Iterator[Problem]:
        Path(data.decode()).write_text("x")
        return iter(())


def test_a_file_outside_the_folder_of_the_case_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    target = Writer(folder)
    assert problems_of(target, b"inside") == []
    ((rule, facts),) = problems_of(target, b"../outside")
    assert rule == "no file outside the case's folder is changed"
    assert facts["files"] == [str(tmp_path / "outside")]


def test_memory_above_the_limit_is_an_error() -> None:
    with limited_memory(), pytest.raises(MemoryError):
        np.empty(3 * 2**30, dtype=np.uint8)


def test_a_message_without_a_remedy_is_found() -> None:
    assert names_a_remedy("job.toml: goal.target is missing")
    assert not names_a_remedy("job.toml: maximum recursion depth exceeded")


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "job.toml", "--storage", f"sqlite:///{'x' * 300}"),
        ("import-runs", "job.toml", "--from", "x" * 300),
        ("run", "job.toml", "--output", "x" * 300),
    ],
)
def test_a_path_that_is_too_long_is_named(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for script in EXAMPLES.glob("numpy_script.*"):
        shutil.copy(script, tmp_path)
    (tmp_path / "numpy_script.toml").rename(tmp_path / "job.toml")
    code, _, err = call_cli(*arguments)
    assert code == 6
    assert "x" * 300 in err
    assert "File name too long. Choose another path" in err
