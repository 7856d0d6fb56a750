from __future__ import annotations

import io
import os
import re
import signal
from pathlib import Path

import pytest
from rich.text import Text

from search_spaces import Configuration
from tests.tuner.search.scripted import GOOD, Scripted, small_world, start
from tests.tuner.search.world import World
from tuner.domain.job_progress import Interval
from tuner.search.events import SearchEvent
from tuner.search.model_policy import ModelPolicy
from tuner.service.job_progress import ProgressWatch
from tuner.service.live_console import LinesAbove, LiveConsole, Screen, _Stops
from tuner.service.live_view import LiveView, _interval_words, decision_words

OTHER = Configuration(nodes=4, batch_size=64, learning_rate=0.05, strategy="all_reduce")


def view_of(folder: Path, *, is_ascii: bool = False) -> LiveView:
    """The view of a search that has probed one configuration."""
    world = small_world(folder)
    world.search(Scripted(start(GOOD, 40.0))).run()
    watch = ProgressWatch()
    watch.watch(world.state(), believed(world))
    return LiveView(job=world.job, has_prices=False, watch=watch, is_ascii=is_ascii)


def believed(world: World) -> object:
    return ModelPolicy().decide(world.state()).beliefs


def texts(lines: list[Text]) -> list[str]:
    return [line.plain for line in lines]


def words(lines: list[Text]) -> str:
    return " ".join(" ".join(texts(lines)).split())


@pytest.mark.slow
@pytest.mark.parametrize("width", [59, 100])
def test_the_view_shows_the_best_and_the_budget_and_fits(tmp_path: Path, width: int) -> None:
    lines = view_of(tmp_path).lines(65.0, width)
    assert max(line.cell_len for line in lines) <= width
    shown = words(lines)
    assert "1 probe, 1m 05s" in shown
    assert re.search(r"best .*batch.* predicted: .* \(.* to .*\) of training to the target", shown)
    assert re.search(r"budget time .* of 20m 00s \(\d+%\) · node hours", shown)
    assert "money" not in shown


def test_no_line_needs_more_than_ascii_where_the_terminal_has_no_more(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    view = LiveView(job=world.job, has_prices=True, watch=ProgressWatch(), is_ascii=True)
    assert all(text.isascii() for text in texts(view.lines(1.0, 60)))
    assert view.curve([0.1, 0.5, 0.9]) == "_=#"


def test_a_curve_has_the_last_scores_and_a_bounded_width(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    view = LiveView(job=world.job, has_prices=True, watch=ProgressWatch())
    assert view.curve([0.5]) == "▁"
    assert view.curve([float(n) for n in range(8)]) == "▁▂▃▄▅▆▇█"
    assert len(view.curve([float(n) for n in range(500)])) == 16


def test_decisions_are_in_plain_words() -> None:
    event = SearchEvent(
        kind="decision", text=f"statistics: {OTHER} - a first short training", configuration=OTHER
    )
    expected = "probe 4 nodes, batch 64, learning rate 0.05, all_reduce: a first short training"
    assert decision_words(event) == expected


def test_an_interval_says_where_nothing_bounds_it() -> None:
    def shown(value: float) -> str:
        return f"{value:g}"

    assert _interval_words(Interval(low=1.0, median=2.0, high=None), shown) == "2 (1 to no upper bound)"
    assert _interval_words(Interval(low=1.0, median=None, high=None), shown) == "at least 1"


def test_a_screen_moves_up_over_its_own_lines_only() -> None:
    written, size = io.StringIO(), [80, 10]
    screen = Screen(written, lambda: (size[0], size[1]))
    screen.draw([Text("above")], [Text("one"), Text("two")])
    assert written.getvalue() == "\rabove\x1b[K\none\x1b[K\ntwo\x1b[K\n\x1b[J"
    written.truncate(0)
    screen.draw([], [Text("one"), Text("two")])
    assert written.getvalue() == ""  # Nothing has changed.
    screen.draw([], [Text("one"), Text("three")])
    assert "\x1b[2A" in written.getvalue()
    screen.forget()
    written.truncate(0)
    screen.draw([], [Text("one")])
    assert "A" not in written.getvalue()


def test_a_resized_screen_is_drawn_anew_with_its_last_lines() -> None:
    written, size = io.StringIO(), [80, 6]
    screen = Screen(written, lambda: (size[0], size[1]))
    screen.draw([Text(f"event {number}") for number in range(9)], [Text("x" * 79)])
    size[0] = 40
    written.seek(written.truncate(0))
    screen.draw([], [Text("x" * 79)])
    lines = written.getvalue().split("\n")
    assert lines[0].startswith("\x1b[2J\x1b[H")
    assert [line.removesuffix("\x1b[K")[-7:] for line in lines[:4]] == [f"event {n}" for n in range(5, 9)]
    assert len(re.sub(r"\x1b\[\w", "", lines[4])) <= 39


def test_a_view_is_never_higher_than_the_terminal() -> None:
    written = io.StringIO()
    Screen(written, lambda: (80, 4)).draw([], [Text(str(number)) for number in range(30)])
    assert written.getvalue().count("\n") == 3


def test_in_the_background_nothing_is_drawn(tmp_path: Path) -> None:
    written, is_foreground = io.StringIO(), [False]
    view = LiveView(job=small_world(tmp_path).job, has_prices=False, watch=ProgressWatch())
    live = LiveConsole(view, written, size=lambda: (80, 24), is_foreground=lambda: is_foreground[0])
    live.show(SearchEvent(kind="plan", text="the plan"))
    assert written.getvalue() == ""
    is_foreground[0] = True
    live.close()
    assert "the plan" in written.getvalue()


def test_lines_of_other_code_appear_above_the_view(tmp_path: Path) -> None:
    written = io.StringIO()
    view = LiveView(job=small_world(tmp_path).job, has_prices=False, watch=ProgressWatch())
    live = LiveConsole(view, written, size=lambda: (80, 24), is_foreground=lambda: True)
    above = LinesAbove(live, io.StringIO())
    print("a note", "of a library", file=above)
    live.close()
    assert "a note of a library" in written.getvalue()


def test_a_stop_of_the_process_is_noticed_once() -> None:
    stops = _Stops()
    assert not stops.happened()
    with stops.noticed():
        assert not stops.happened()
        os.kill(os.getpid(), signal.SIGCONT)
        assert stops.happened()
        assert not stops.happened()
    os.kill(os.getpid(), signal.SIGCONT)
    assert not stops.happened()


def test_after_another_program_used_the_terminal_the_view_is_drawn_below() -> None:
    written, was_used = io.StringIO(), [False]
    screen = Screen(written, lambda: (80, 10), lambda: was_used[0])
    screen.draw([], [Text("one")])
    was_used[0] = True
    written.seek(written.truncate(0))
    screen.draw([], [Text("one")])
    assert written.getvalue() == "\rone\x1b[K\n\x1b[J"
