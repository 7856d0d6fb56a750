from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.launchers.conformance import is_alive, wait_until
from tuner.launchers import end_orphans
from tuner.launchers.process_records import RECORD_NAME, ProcessRecord, write_record

WRITER = """
import sys
from pathlib import Path
from tuner.launchers.process_records import write_record
server, *ranks = map(int, sys.argv[2:])
write_record(Path(sys.argv[1]), server=server, ranks=dict(enumerate(ranks)))
"""

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def leftovers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Three processes, each leading its session: a server and two ranks."""
    found = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(3)]
    yield found
    for process in found:
        process.kill()
        process.wait()


def record_by_an_earlier_tuner(folder: Path, leftovers: list[subprocess.Popen[bytes]]) -> dict[str, Any]:
    subprocess.run(
        [sys.executable, "-c", WRITER, str(folder), *(str(process.pid) for process in leftovers)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    record: dict[str, Any] = json.loads((folder / RECORD_NAME).read_text())
    return record


def test_orphans_are_the_recorded_processes(tmp_path: Path, leftovers: list[subprocess.Popen[bytes]]) -> None:
    record_by_an_earlier_tuner(tmp_path, leftovers)
    server, *ranks = (process.pid for process in leftovers)
    assert sorted(end_orphans(tmp_path)) == sorted([server, *ranks])
    wait_until(lambda: not any(map(is_alive, [server, *ranks])), "the orphans are gone")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_merely_got_the_number_is_left_alone(
    tmp_path: Path, leftovers: list[subprocess.Popen[bytes]]
) -> None:
    record = record_by_an_earlier_tuner(tmp_path, leftovers)
    for process in (record["server"], *record["ranks"]):
        process["started"] -= 1
    (tmp_path / RECORD_NAME).write_text(json.dumps(record))
    assert end_orphans(tmp_path) == []
    assert all(is_alive(process.pid) for process in leftovers)


def test_processes_of_another_host_are_left_alone(
    tmp_path: Path, leftovers: list[subprocess.Popen[bytes]]
) -> None:
    record = record_by_an_earlier_tuner(tmp_path, leftovers)
    (tmp_path / RECORD_NAME).write_text(json.dumps({**record, "host": "elsewhere"}))
    assert end_orphans(tmp_path) == []
    assert all(is_alive(process.pid) for process in leftovers)


def test_a_job_of_this_very_tuner_is_left_alone(
    tmp_path: Path, leftovers: list[subprocess.Popen[bytes]]
) -> None:
    server, *ranks = (process.pid for process in leftovers)
    write_record(tmp_path, server=server, ranks=dict(enumerate(ranks)))
    assert end_orphans(tmp_path) == []
    assert all(is_alive(process.pid) for process in leftovers)


def test_the_server_of_a_tuner_that_lives_is_left_alone(
    tmp_path: Path, leftovers: list[subprocess.Popen[bytes]]
) -> None:
    record = record_by_an_earlier_tuner(tmp_path, leftovers)
    server, first, tuner = (process.pid for process in leftovers)
    record["ranks"] = record["ranks"][:1]
    record["tuner"] = {"process": tuner, "started": ProcessRecord.of(tuner).started}  # type: ignore[union-attr]
    (tmp_path / RECORD_NAME).write_text(json.dumps(record))
    assert end_orphans(tmp_path) == [first]
    assert is_alive(server)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"ranks": 3}'])
def test_a_folder_without_a_readable_record_has_no_orphans(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / RECORD_NAME).write_text(content)
    assert end_orphans(tmp_path) == []


def test_a_process_that_is_dead_has_no_record() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert ProcessRecord.of(process.pid) is None
    assert ProcessRecord.of(os.getpid()) is not None
