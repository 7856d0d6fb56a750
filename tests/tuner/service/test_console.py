from __future__ import annotations

import io

import pytest
from rich.console import Console as Terminal

from search_spaces import Configuration
from tests.tuner.search.synthetic import Clock
from tuner.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.search.events import SearchEvent
from tuner.service import console
from tuner.service.console import PlainConsole, RichConsole, progress_words

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
    assert progress_words(SEEN) == "step 120, 3840 samples, 4.2 s, 0.8123"


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


def test_off_a_terminal_progress_is_told_now_and_then() -> None:
    lines: list[str] = []
    clock = Clock()
    plain = PlainConsole(lines.append, clock)
    for _ in range(100):
        clock.now += 1.0
        plain.show(PROGRESS)
    assert 5 <= len(lines) <= 7
    assert all("progress: step 120, 3840 samples" in line for line in lines)


def test_on_a_terminal_progress_is_one_living_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Terminal(file=screen, force_terminal=True, width=100, highlight=False)
    monkeypatch.setattr(console, "Terminal", lambda **_: terminal)
    rich = RichConsole()
    rich.show(SearchEvent(kind="decision", text="training: batch [16, 32] - expected to arrive first"))
    for _ in range(3):
        rich.show(PROGRESS)
    rich.show(SearchEvent(kind="end", text="a run reached the target"))
    rich.close()
    shown = screen.getvalue()
    assert "batch [16, 32] - expected to arrive first" in shown
    assert "step 120" in shown
    assert "a run reached the target" in shown
    # What hides the cursor is undone.
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")
