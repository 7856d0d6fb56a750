"""Logs that grow are read once, in bounded parts, and each line has the time it was written at."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from tuner.launchers.log_reader import LONGEST_LINE_BYTES, LogFile, LogReader


class Log:
    """A log and its notes, written as the node agent does; the reader's clock says 1000."""

    def __init__(self, folder: Path, *, notes: bool = True, start: int = 0) -> None:
        self.path = folder / "node-0.log"
        self.times = folder / "node-0.log.times" if notes else None
        self.now = 1000.0
        self.file = LogFile(path=self.path, times=self.times, start=start)
        self.reader = LogReader({0: self.file}, clock=lambda: self.now)

    def write(self, data: bytes | str, at: float | None = None) -> None:
        with self.path.open("ab") as log:
            log.write(data.encode() if isinstance(data, str) else data)
        if at is not None:
            self.note(at)

    def note(self, at: float) -> None:
        assert self.times is not None
        with self.times.open("a") as notes:
            notes.write(f"{at} {self.path.stat().st_size}\n")

    def texts(self, **more: object) -> list[str]:
        return [line.text for line in self.reader.read(**more)]  # type: ignore[arg-type]


def test_lines_carry_the_time_at_which_they_were_written(tmp_path: Path) -> None:
    """A reader that comes late still tells when each line was written."""
    log = Log(tmp_path)
    log.write("one\ntwo\n", at=10.0)
    log.write("three\n", at=12.5)
    assert log.reader.read() == [(0, "one", 10.0), (0, "two", 10.0), (0, "three", 12.5)]
    assert log.reader.read() == []
    log.write("four\n", at=14.0)
    assert log.reader.read() == [(0, "four", 14.0)]


def test_a_line_was_written_when_its_text_was(tmp_path: Path) -> None:
    """A progress bar ends its line only as it goes back for the next."""
    log = Log(tmp_path)
    log.write("10%", at=1.0)
    log.write("\r20%", at=2.0)
    assert log.reader.read() == [(0, "10%", 1.0)]
    log.write("\r30%\n", at=3.0)
    assert log.reader.read() == [(0, "20%", 2.0), (0, "30%", 3.0)]


def test_without_notes_lines_have_the_time_of_reading(tmp_path: Path) -> None:
    log = Log(tmp_path, notes=False)
    log.write("a line\n")
    assert log.reader.read() == [(0, "a line", 1000.0)]


def test_bytes_that_are_not_noted_yet_wait_for_their_note(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("one\n", at=5.0)
    log.write("two\n")
    assert log.texts() == ["one"]
    assert log.texts() == []
    log.note(6.0)
    assert log.reader.read() == [(0, "two", 6.0)]


def test_a_log_that_is_always_ahead_of_its_notes_has_their_times(tmp_path: Path) -> None:
    log, found = Log(tmp_path), []
    for second in range(10):
        log.write("noted\n", at=float(second))
        log.write("next\n")
        log.now += 0.5
        found += log.reader.read()
    assert [line.written_at for line in found if line.text == "noted"] == [float(n) for n in range(10)]
    assert [line.written_at for line in found if line.text == "next"] == [float(n) for n in range(1, 10)]


def test_a_note_that_never_comes_is_not_waited_for(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("one\n")
    assert log.reader.read() == []
    log.now += 2.0
    assert log.reader.read() == [(0, "one", 1002.0)]
    log.write("two\n")
    assert log.reader.read(has_ended=True) == [(0, "two", 1002.0)]


def test_an_incomplete_line_waits_until_it_ends(tmp_path: Path) -> None:
    log = Log(tmp_path, notes=False)
    log.write("accuracy 0.")
    assert log.texts() == []
    log.write("875\nloss")
    assert log.texts() == ["accuracy 0.875"]
    assert log.texts(has_ended=True) == ["loss"]
    assert log.texts(has_ended=True) == []


def test_a_bar_without_a_newline_yields_its_parts(tmp_path: Path) -> None:
    log = Log(tmp_path, notes=False)
    log.write("\r 1/3\r 2/3\r\n\r\n 3/3")
    assert log.texts() == [" 1/3", " 2/3"]
    assert log.texts(has_ended=True) == [" 3/3"]


def test_characters_that_are_cut_in_the_middle_are_whole(tmp_path: Path) -> None:
    log = Log(tmp_path, notes=False)
    whole = "Genauigkeit für 学习率: 0,91 €\n"
    for byte in whole.encode():
        log.write(bytes([byte]))
        assert "\ufffd" not in "".join(texts := log.texts(max_bytes=1))
    assert texts == [whole.strip()]
    log.write(b"\xff\xfe no text\n")
    assert log.texts() == ["\ufffd\ufffd no text"]


def test_a_line_that_never_ends_is_given_in_parts_of_whole_characters(tmp_path: Path) -> None:
    log = Log(tmp_path, notes=False)
    text = "." + "€" * LONGEST_LINE_BYTES
    log.write(text)
    found = log.texts()
    assert len(found) == 3
    assert all(len(part.encode()) in range(LONGEST_LINE_BYTES - 3, LONGEST_LINE_BYTES + 1) for part in found)
    assert "".join(found + log.texts(has_ended=True)) == text


def test_a_file_that_became_shorter_is_read_anew(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("a long line of the first attempt\nhalf", at=1.0)
    assert len(log.texts()) == 1
    log.path.write_text("second\n")
    log.note(7.0)
    assert log.reader.read() == [(0, "second", 7.0)]


def test_notes_that_were_thinned_out_are_read_anew(tmp_path: Path) -> None:
    log = Log(tmp_path)
    assert log.times is not None
    for second in range(10):
        log.write(f"line {second}\n", at=float(second))
    assert len(log.texts(max_bytes=14)) == 2
    thinned = [line for number, line in enumerate(log.times.read_text().splitlines()) if number % 2]
    (tmp_path / "new").write_text("\n".join(thinned) + "\n")
    (tmp_path / "new").replace(log.times)
    log.write("line 10\n", at=10.0)
    assert [line.written_at for line in log.reader.read()] == [3.0, 3.0, 5.0, 5.0, 7.0, 7.0, 9.0, 9.0, 10.0]


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    log = Log(tmp_path, notes=False)
    log.write("0123456789\n" * 10)
    assert len(log.texts(max_bytes=40)) == 3
    assert log.reader.num_unread == 70
    assert len(log.texts(max_bytes=40)) == 4
    # What comes while the rest of an ended log is unread is no end of a line.
    assert len(log.texts(max_bytes=25, has_ended=True)) == 2
    assert log.texts(has_ended=True) == ["0123456789"]
    assert log.reader.num_unread == 0


def test_a_quiet_copy_is_heard_beside_a_loud_one(tmp_path: Path) -> None:
    files = {copy: LogFile(path=tmp_path / f"rank-{copy}.log") for copy in range(3)}
    reader = LogReader(files)
    assert reader.read() == []
    files[0].path.write_text("loud\n" * 1000)
    files[2].path.write_text("quiet\n")
    heard = [line.copy for _ in range(3) for line in reader.read(50)]
    assert 2 in heard


def test_what_was_there_before_is_left_out(tmp_path: Path) -> None:
    log = Log(tmp_path, notes=False, start=8)
    log.write("earlier\nnow\n")
    assert log.texts() == ["now"]


def read_whole(log: Log, line: str, num_bytes: int) -> tuple[int, int]:
    """The lines that a log of so many bytes has, and the most memory taken while reading it."""
    block = line * (2**20 // len(line))
    with log.path.open("w") as file:
        for _ in range(num_bytes // 2**20):
            file.write(block)
    num_lines = 0
    tracemalloc.start()
    try:
        while True:
            num_lines += len(log.reader.read(has_ended=True))
            if log.reader.num_unread == 0:
                return num_lines, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "num_bytes", [20 * 2**20, pytest.param(200 * 2**20, marks=pytest.mark.slow)], ids=["20 MB", "200 MB"]
)
def test_memory_is_bounded_however_long_a_log_is(tmp_path: Path, num_bytes: int) -> None:
    line = f"step 100 loss=2.31 {'.' * 200}\n"
    num_lines, peak = read_whole(Log(tmp_path, notes=False), line, num_bytes)
    assert num_lines == num_bytes // 2**20 * (2**20 // len(line))
    assert peak < 10 * 2**20


def test_a_sparse_log_of_three_gigabytes_does_not_delay_its_first_lines(tmp_path: Path) -> None:
    log = Log(tmp_path, notes=False)
    log.write("first\n")
    with log.path.open("r+b") as file:
        file.truncate(3 * 2**30)
    tracemalloc.start()
    assert log.texts()[0] == "first"
    assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    tracemalloc.stop()
    assert log.reader.num_unread == 3 * 2**30 - 2**20
