"""Of long files the beginning and the end are read, and num_left."""

from __future__ import annotations

from pathlib import Path

from tuner.launchers.log_ends import FIRST_BYTES, LAST_BYTES, read_ends, trim_file

LINE = f"a line of a log {'.' * 48}\n"


def long_file(folder: Path, num_bytes: int = 8 * 2**20) -> Path:
    path = folder / "long.log"
    path.write_text("first\n" + LINE * (num_bytes // len(LINE)) + "last\n")
    return path


def test_a_trimmed_file_says_how_much_is_left_out(tmp_path: Path) -> None:
    path = long_file(tmp_path)
    size_before, inode = path.stat().st_size, path.stat().st_ino
    trim_file(path)
    lines = path.read_text().splitlines(True)
    assert (lines[0], lines[-1]) == ("first\n", "last\n")
    notes = [line for line in lines if line.startswith("[...")]
    num_left = sum(map(len, lines)) - len(notes[0])
    assert notes == [f"[... {size_before - num_left} bytes are left out here ...]\n"]
    assert set(lines[1:-1]) - set(notes) == {LINE}, "whole lines stay"
    assert FIRST_BYTES + LAST_BYTES - 2 * len(LINE) <= num_left <= FIRST_BYTES + LAST_BYTES
    assert path.stat().st_ino == inode, "who still appends to it goes on"


def test_reading_the_ends_gives_what_trimming_leaves(tmp_path: Path) -> None:
    path = long_file(tmp_path)
    read = read_ends(path)
    trim_file(path)
    assert path.read_text() == read


def test_a_short_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "short.log"
    path.write_bytes(b"x" * (FIRST_BYTES + LAST_BYTES))
    trim_file(path)
    assert path.stat().st_size == FIRST_BYTES + LAST_BYTES
    assert len(read_ends(path)) == FIRST_BYTES + LAST_BYTES


def test_a_file_without_lines_is_trimmed_as_well(tmp_path: Path) -> None:
    path = tmp_path / "bar.log"
    path.write_bytes(b"\r" * 8 * 2**20)
    trim_file(path, note='{"left_out": %d}')
    assert b'\n{"left_out": 3145728}\n\r' in path.read_bytes()


def test_what_another_job_printed_before_stays(tmp_path: Path) -> None:
    path = long_file(tmp_path)
    start = path.stat().st_size
    with path.open("a") as file:
        file.write("own\n" + LINE * (8 * 2**20 // len(LINE)) + "last\n")
    read = read_ends(path, start=start)
    assert read.startswith("own\n")
    trim_file(path, start=start)
    assert path.stat().st_size == start + len(read)
    assert read_ends(path, start=start) == read


def test_a_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    trim_file(tmp_path / "none.log")
    assert read_ends(tmp_path / "none.log") == ""
    assert list(tmp_path.iterdir()) == []
