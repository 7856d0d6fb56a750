"""A node agent's notes of how long logs are when."""

from __future__ import annotations

from pathlib import Path

from tuner.launchers.log_reader import LogFile, LogReader
from tuner.launchers.node_agent import LogNotes


def test_a_note_is_taken_only_when_the_log_has_grown(tmp_path: Path) -> None:
    log, times = tmp_path / "node-0.log", tmp_path / "node-0.log.times"
    notes = LogNotes(log)
    notes.take(1.0)
    assert not times.exists()
    for second, text in enumerate(["", "one\n", "", "two\n", ""], start=2):
        with log.open("a") as file:
            file.write(text)
        notes.take(float(second))
    assert times.read_text() == "3.000 4\n5.000 8\n"


def test_notes_of_a_day_are_few_and_exact_where_they_are_new(tmp_path: Path) -> None:
    """A day of a line every 0.05 s would take 40 MB of notes; an hour of it shows that they stay few."""
    log, times, num_notes = tmp_path / "node-0.log", tmp_path / "node-0.log.times", 72_000
    with log.open("wb") as file:
        notes = LogNotes(log)
        for note in range(1, num_notes + 1):
            file.truncate(8 * note)
            notes.take(1.7e9 + 0.05 * note)
    assert times.stat().st_size < 2**18 + 100
    stored = [line.split() for line in times.read_text().splitlines()]
    sizes = [int(size) for _, size in stored]
    assert sizes == sorted(sizes)
    # The newest are all there: who is four minutes behind loses nothing.
    assert sizes[-4800:] == [8 * note for note in range(num_notes - 4799, num_notes + 1)]
    # Of half an hour some are there.
    assert float(stored[-1][0]) - float(stored[0][0]) > 1800.0


def test_a_reader_that_is_far_behind_gets_times_that_do_not_go_back(tmp_path: Path) -> None:
    log = tmp_path / "node-0.log"
    notes, reader = LogNotes(log), LogReader({0: LogFile(path=log, times=tmp_path / "node-0.log.times")})
    with log.open("a") as file:
        for note in range(20_000):
            file.write("a line\n")
            file.flush()
            notes.take(100.0 + 0.05 * note)
            if note == 5_000:
                early = reader.read()
    assert early[-1].written_at == 100.0 + 0.05 * 5_000
    late = reader.read(has_ended=True)
    assert len(early) + len(late) == 20_000
    at = [line.written_at for line in early + late]
    assert at == sorted(at)
    assert at[-1] == 100.0 + 0.05 * 19_999
