from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tuner.domain.errors import StorageError
from tuner.domain.recommendation import Recommendation
from tuner.report import write_report

NAMES = {"recommendation.json", "report.html", "report.md", "trials.csv", "launch.sh"}


def test_every_file_is_written_and_nothing_else(tmp_path: Path, builder: ModuleType) -> None:
    folder = tmp_path / "new" / "folder"
    written = write_report(builder.content(), folder)
    assert set(written) == NAMES
    assert {path.name for path in folder.iterdir()} == NAMES
    assert all(path == folder / name for name, path in written.items())


def test_the_json_is_the_recommendation(tmp_path: Path, builder: ModuleType) -> None:
    content = builder.content()
    path = write_report(content, tmp_path)["recommendation.json"]
    assert Recommendation.from_dict(json.loads(path.read_text())) == content.recommendation


def test_the_launch_script_alone_may_be_executed(tmp_path: Path, builder: ModuleType) -> None:
    written = write_report(builder.content(), tmp_path)
    executable = {name for name, path in written.items() if path.stat().st_mode & 0o100}
    assert executable == {"launch.sh"}


def test_a_recommendation_without_a_command_has_no_launch_script(tmp_path: Path, builder: ModuleType) -> None:
    answer = replace(builder.recommendation(), command="")
    assert set(write_report(builder.content(answer=answer), tmp_path)) == NAMES - {"launch.sh"}


def test_a_later_report_replaces_the_earlier(tmp_path: Path, builder: ModuleType) -> None:
    write_report(builder.content(), tmp_path)
    answer = replace(builder.recommendation(), job_name="second")
    written = write_report(builder.content(answer=answer), tmp_path)
    assert "second" in written["report.md"].read_text()
    assert {path.name for path in tmp_path.iterdir()} == NAMES


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path, builder: ModuleType) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(StorageError, match=r"file/out cannot be written: .*another path"):
        write_report(builder.content(), occupied / "out")


def test_a_link_in_the_folder_is_not_followed_and_nothing_is_written(
    tmp_path: Path, builder: ModuleType
) -> None:
    folder, outside = tmp_path / "out", tmp_path / "outside"
    folder.mkdir()
    outside.write_text("untouched")
    (folder / "trials.csv").symlink_to(outside)
    with pytest.raises(StorageError, match=r"trials\.csv cannot be written: it is a symbolic link"):
        write_report(builder.content(), folder)
    assert outside.read_text() == "untouched"
    assert [path.name for path in folder.iterdir()] == ["trials.csv"]


def test_control_sequences_of_names_reach_no_file(tmp_path: Path, builder: ModuleType) -> None:
    answer = replace(builder.recommendation(), job_name="a\x1b]0;title\x07\x1b[31mb", goal="x\r\x9by")
    for path in write_report(builder.content(answer=answer), tmp_path).values():
        assert not set("\x1b\x07\r\x9b") & set(path.read_bytes().decode()), path.name


def test_a_file_that_cannot_be_replaced_stays_and_leaves_no_remains(
    tmp_path: Path, builder: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = write_report(builder.content(), tmp_path)["report.html"].read_text()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device; free disk space"):
        write_report(builder.content(), tmp_path)
    assert (tmp_path / "report.html").read_text() == earlier
    assert {path.name for path in tmp_path.iterdir()} == NAMES
