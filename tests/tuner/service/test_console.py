from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from search_spaces import Configuration
from tests.tuner.search.synthetic import Clock
from tests.tuner.service.test_live_view import view_of
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.search.events import SearchEvent
from tuner.service.console import PlainConsole, progress_words
from tuner.service.live_console import LiveConsole
from tuner.service.options import Format
from tuner.service.output import print_rows, say, show

SEEN = Measurement(
    configuration=Configuration(nodes=1, batch_size=32, learning_rate=0.1, strategy="all_reduce"),
    purpose=Purpose.TRAINING,
    outcome=Outcome.RUNNING,
    step=120,
    samples=3840,
    training_seconds=4.25,
    curve=(CurvePoint(training_seconds=4.0, step=110, samples=3520, value=0.81234),),
)
PROGRESS = SearchEvent(kind="progress", text="", measurement=SEEN)


def test_progress_says_where_a_slice_stands() -> None:
    assert progress_words(SEEN) == "step 120, 3840 samples, 4.2 s of training, score 0.8123"
    words = progress_words(replace(SEEN, counts_startup=True))
    assert words == "step 120, 3840 samples, 4.2 s of training and start-up, score 0.8123"


def test_a_slice_that_waits_says_for_what() -> None:
    assert progress_words(replace(SEEN, waiting="nodes (Resources)")) == "waiting: nodes (Resources)"


def test_off_a_terminal_every_event_is_a_line_with_its_moment() -> None:
    lines: list[str] = []
    clock = Clock()
    plain = PlainConsole(lines.append, clock)
    clock.now += 2.5
    plain.show(SearchEvent(kind="decision", text="training: [bold]nodes=1[/bold] - why"))
    plain.show(SearchEvent(kind="warning", text="a rank died"))
    plain.close()
    assert lines == [
        "[   2.5 s] decision: training: [bold]nodes=1[/bold] - why",
        "[   2.5 s] warning: a rank died",
    ]


def test_off_a_terminal_progress_is_reported_now_and_then() -> None:
    lines: list[str] = []
    clock = Clock()
    plain = PlainConsole(lines.append, clock)
    for _ in range(100):
        clock.now += 1.0
        plain.show(PROGRESS)
    assert 5 <= len(lines) <= 7
    assert all("progress: step 120, 3840 samples" in line for line in lines)


def of_probe(probe_id: int) -> SearchEvent:
    return SearchEvent(kind="progress", text="", measurement=SEEN, probe_id=probe_id, num_slots=2)


def test_off_a_terminal_lines_name_their_probe_where_several_are_under_way() -> None:
    lines: list[str] = []
    clock = Clock()
    plain = PlainConsole(lines.append, clock)
    plain.show(SearchEvent(kind="decision", text="training: nodes=1 - why", probe_id=3, num_slots=2))
    for _ in range(40):
        clock.now += 1.0
        for probe_id in (3, 4):
            plain.show(of_probe(probe_id))
    assert lines[0] == "[   0.0 s] decision: probe 3: training: nodes=1 - why"
    reported = [line.partition("progress: ")[2].partition(":")[0] for line in lines[1:]]
    assert reported.count("probe 3") == reported.count("probe 4") == 2


def test_a_terminal_obeys_nothing_that_a_script_wrote(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hostile = "a\x1b]0;title\x07\x1b[2J\rb"
    say(hostile)
    show(hostile)
    for output_format in Format:
        print_rows([{"name": hostile, "value": 1.5}], output_format)
    out, err = capsys.readouterr()
    written = io.StringIO()
    live = LiveConsole(view_of(tmp_path), written, size=lambda: (80, 24), is_foreground=lambda: True)
    live.show(SearchEvent(kind="warning", text=hostile))
    live.close()
    drawn = re.sub(r"\x1b\[[KJ]|\x1b\[\d+A|\r(?!b)", "", written.getvalue())
    for text in (out, err, drawn):
        assert "ab" in text
        assert not set("\x1b\x07\r") & set(text)


def test_csv_output_contains_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"name": "=1+1", "value": -1.5}], Format.CSV)
    assert capsys.readouterr().out == "name,value\n'=1+1,-1.5\n"
