"""A trial run ends in time with all that it started, and says what was printed and written."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tuner.drafting.trial_run import run_for


def test_output_files_and_exit_code_are_seen(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("old")
    code = "import os; print('one'); print('two\\rthree', flush=True); open('new.csv', 'w'); os._exit(3)"
    run = run_for(f'{sys.executable} -c "{code}"', folder=tmp_path, seconds=30, environment={})
    assert run.lines[:3] == ("one", "two", "three")
    assert (run.exit_code, run.failed) == (3, True)
    assert [path.name for path in run.files] == ["new.csv"]


def test_a_run_that_goes_on_is_ended_with_its_children(tmp_path: Path) -> None:
    (tmp_path / "child.sh").write_text("while true; do date +%s%N > beat; sleep 0.05; done")
    started = time.monotonic()
    command = "trap '' TERM; bash child.sh & while true; do echo tick; sleep 0.1; done"
    run = run_for(command, folder=tmp_path, seconds=1.0, environment={}, grace=0.5)
    assert run.exit_code is None
    assert time.monotonic() - started < 5
    assert run.lines[0] == "tick"
    beat = (tmp_path / "beat").read_text()
    time.sleep(0.3)
    assert (tmp_path / "beat").read_text() == beat


def test_daemons_are_ended_too(tmp_path: Path) -> None:
    (tmp_path / "child.sh").write_text("while true; do date +%s%N > beat; sleep 0.05; done")
    run_for("setsid bash child.sh & sleep 0.5", folder=tmp_path, seconds=10, environment={})
    time.sleep(0.3)
    beat = (tmp_path / "beat").read_text()
    time.sleep(0.3)
    assert (tmp_path / "beat").read_text() == beat


@pytest.mark.slow
def test_a_killed_paceline_leaves_no_process_of_the_trial_run(tmp_path: Path) -> None:
    (tmp_path / "child.sh").write_text("while true; do date +%s%N > $1; sleep 0.05; done")
    command = "setsid bash child.sh daemon & bash child.sh child & wait"
    code = (
        "import pathlib; from tuner.drafting.trial_run import run_for; "
        f"run_for({command!r}, folder=pathlib.Path('.'), seconds=60, environment={{}})"
    )
    paceline = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    beats = [tmp_path / "daemon", tmp_path / "child"]
    deadline = time.monotonic() + 30
    while not all(path.exists() for path in beats) and time.monotonic() < deadline:
        time.sleep(0.05)
    paceline.kill()
    paceline.wait()
    time.sleep(2)
    before = [path.read_text() for path in beats]
    time.sleep(0.5)
    assert [path.read_text() for path in beats] == before


@pytest.mark.parametrize(
    ("printed", "code", "said"),
    [
        (
            "epoch 1\\nTraceback (most recent call last):\\n  File 1\\nValueError: no data",
            1,
            "ValueError: no data",
        ),
        ("usage: x\\ntrain.py: error: the following arguments are required: --lr", 2, "required: --lr"),
        ("all is well\\nbut not here", 9, "but not here"),
    ],
)
def test_the_error_of_a_failed_run_is_quoted(tmp_path: Path, printed: str, code: int, said: str) -> None:
    run = run_for(f"printf '{printed}'; exit {code}", folder=tmp_path, seconds=30, environment={})
    assert run.failed
    assert said in run.error()
    assert "epoch 1" not in run.error()
