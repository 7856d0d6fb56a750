"""The live view of `paceline run` on a pseudo-terminal."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.workplace import PACELINE, Workplace

pytest.importorskip("pyte")

from tests.cli.terminal import ShownTerminal, terminal

pytestmark = pytest.mark.slow

RUN = [str(PACELINE), "run", "job.toml"]
#: A sequence that only colors need.
COLOR = re.compile(rb"\x1b\[[0-9;]*3[0-9][;m]")


@pytest.fixture
def priced(tmp_path: Path) -> Path:
    """A folder with a job whose nodes have a price, and whose training takes some seconds."""
    place = Workplace(tmp_path)
    place.write_job(
        ("nodes = [1, 2]", "nodes = [1, 2]\ndollars_per_node_hour = 3.0"),
        ("high = 0.1", "high = 0.002"),
        ("probes = 8", "dollars = 5.0"),
        delay=0.02,
    )
    return tmp_path


def start(shown: ShownTerminal) -> None:
    """Answers the question, and waits until the view shows a best configuration."""
    shown.wait_for(lambda: "Start? [Y/n]" in shown.text, "the question")
    shown.type("\n")
    shown.wait_for(lambda: "predicted:" in shown.text and "Ctrl-C" in shown.text, "the live view")


def until_a_slice_runs(shown: ShownTerminal) -> None:
    shown.wait_for(lambda: any(line.startswith("running probe") for line in rows(shown)), "a slice")


def rows(shown: ShownTerminal) -> Iterator[str]:
    return (" ".join(line.split()) for line in shown.lines)


@pytest.mark.parametrize("columns", [60, 160])
def test_the_view_shows_plan_question_progress_and_answer(priced: Path, columns: int) -> None:
    with terminal(RUN, priced, columns=columns, rows=40) as shown:
        start(shown)
        assert "price: $3.00 to $6.00 an hour" in shown.text
        assert "at most: $0.10" in shown.text
        for label in ("running", "best", "budget", "Ctrl-C"):
            assert sum(line.startswith(f"{label} ") for line in shown.lines) == 1
        shown.wait_for(lambda: re.search(r"accuracy 0\.\d+ of 0\.97 [▁▂▃▄▅▆▇█]+", shown.text), "a curve")
        assert re.search(r"reaches the target after .* \(.* to .*\) of training; chance", shown.text)
        assert re.search(r"time .* of 1m 00s .* money \$.* of \$5\.00 .* node hours", shown.text)
        assert "first: " not in shown.text
        assert "the user's present settings are tried first" in shown.text
        assert max(map(len, shown.lines)) < columns
        assert COLOR.search(shown.written)
        assert shown.wait_for_end() == 0
        assert shown.is_usable
        assert "Recommended for tiny" in shown.log
        assert not any(line.startswith("running ") for line in shown.lines)
        assert shown.lines[-1].startswith("Next: paceline export job.toml")


def test_no_color_and_a_resize_in_the_middle(priced: Path) -> None:
    with terminal(RUN, priced, columns=120, rows=30, NO_COLOR="1") as shown:
        start(shown)
        for columns, height in ((62, 40), (140, 24)):
            shown.resize(columns, height)
            shown.read(1.0)
            until_a_slice_runs(shown)
            assert sum(line.startswith("budget ") for line in shown.lines) == 1
            assert max(map(len, shown.lines)) < columns
        assert not COLOR.search(shown.written)
        assert shown.wait_for_end() == 0


def test_a_dumb_terminal_gets_plain_lines(priced: Path) -> None:
    with terminal([*RUN, "--yes"], priced, TERM="dumb") as shown:
        assert shown.wait_for_end() == 0
        assert "] decision: " in shown.log
        assert "\x1b" not in shown.log


def test_ctrl_c_once_answers(priced: Path) -> None:
    with terminal([*RUN, "--yes"], priced, columns=100, rows=50) as shown:
        shown.wait_for(lambda: "predicted:" in shown.text, "the live view")
        until_a_slice_runs(shown)
        shown.type("\x03")
        shown.wait_for(lambda: "press Ctrl-C again to stop at once" in shown.text, "the notice")
        assert shown.wait_for_end() == 130
        assert "finishing the running slice" in shown.text
        assert "Recommended for tiny" in shown.text
        assert shown.lines[-1] == "Next: paceline run job.toml"
        assert shown.is_usable


@pytest.mark.parametrize("how", ["Ctrl-C twice", "SIGTERM"])
def test_stopping_at_once_leaves_the_terminal_usable(priced: Path, how: str) -> None:
    with terminal([*RUN, "--yes"], priced, columns=80, rows=30) as shown:
        shown.wait_for(lambda: "predicted:" in shown.text, "the live view")
        until_a_slice_runs(shown)
        if how == "SIGTERM":
            os.kill(shown.pid, signal.SIGTERM)
        else:
            shown.type("\x03")
            shown.read(0.05)
            shown.type("\x03")
        assert shown.wait_for_end() == 130
        assert "Recommended" not in shown.text
        assert "interrupted; run the same command to resume" in shown.text
        assert not any(line.startswith("running ") for line in shown.lines)
        assert shown.is_usable
        assert "Traceback" not in shown.log


def test_no_starts_nothing(priced: Path) -> None:
    with terminal(RUN, priced) as shown:
        shown.wait_for(lambda: "Start? [Y/n]" in shown.text, "the question")
        shown.type("n\n")
        assert shown.wait_for_end() == 0
        assert "nothing was started" in shown.text
    assert not (priced / "paceline-out/tiny/probes").exists()


def test_a_stopped_command_continues_below_what_the_shell_wrote(priced: Path) -> None:
    with terminal([*RUN, "--yes"], priced, columns=80, rows=150) as shown:
        shown.wait_for(lambda: "predicted:" in shown.text, "the live view")
        for number in range(5):
            os.kill(shown.pid, signal.SIGSTOP)
            shown.read(0.5 + 0.07 * number)
            assert shown.is_usable
            shown._stream.feed(f"[{number}]+  Stopped\r\n$ fg\r\n".encode())
            os.kill(shown.pid, signal.SIGCONT)
            shown.read(0.4)
        shown.read(1.0)
        for number in range(5):
            assert f"[{number}]+ Stopped $ fg" in shown.text
        assert shown.wait_for_end() == 0
