from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.tuner.search.synthetic import Clock
from tests.tuner.service.test_console import SEEN
from tuner.domain.job_queue import Usage
from tuner.job import example_text
from tuner.search.events import SearchEvent
from tuner.service.console import JsonConsole, PlainConsole, QuietConsole
from tuner.service.foreground import INTERRUPT_WORDS, in_foreground
from tuner.service.opening import OpenedJob, open_job
from tuner.service.options import LogFormat
from tuner.service.output import say, set_log


@pytest.fixture
def opened(tmp_path: Path) -> OpenedJob:
    path = tmp_path / "job.toml"
    path.write_text(example_text("digits"))
    return open_job(path)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_ctrl_c_asks_a_search_to_end_and_the_second_stops_it(
    opened: OpenedJob, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with in_foreground(opened) as (shown, _), shown.interruption.deferred():
        press_ctrl_c()
        assert shown.interruption.is_requested
        assert INTERRUPT_WORDS in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_outside_of_a_search_stops_at_once(opened: OpenedJob) -> None:
    with in_foreground(opened) as (shown, _):
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()
        assert not shown.interruption.is_requested


def test_a_json_log_has_one_object_per_event() -> None:
    entries: list[dict[str, object]] = []
    clock = Clock()
    log = JsonConsole(entries.append, lambda: Usage(seconds=5.0, node_hours=0.1, dollars=0.2), clock=clock)
    decided = SearchEvent(kind="decision", text="training: why", probe_id=3, configuration=SEEN.configuration)
    log.show(decided)
    for _ in range(40):
        clock.now += 1.0
        log.show(SearchEvent(kind="progress", measurement=SEEN, probe_id=3))
    decision, *progress = (json.loads(json.dumps(entry)) for entry in entries)
    assert decision["kind"] == "decision"
    assert decision["probe"] == 3
    assert decision["configuration"]["batch_size"] == 32
    assert decision["spent"] == {"seconds": 5.0, "node_hours": 0.1, "dollars": 0.2}
    assert decision["measurement"] is None
    assert len(progress) == 2
    assert progress[0]["measurement"]["score"] == 0.81234
    assert progress[0]["measurement"]["step"] == 120
    assert progress[0]["text"].startswith("step 120")


def test_a_json_log_has_messages_and_errors_too(capsys: pytest.CaptureFixture[str]) -> None:
    set_log(LogFormat.JSON)
    try:
        say("paceline: the job is wrong", "error")
    finally:
        set_log()
    entry = json.loads(capsys.readouterr().err)
    assert (entry["kind"], entry["text"]) == ("error", "paceline: the job is wrong")


def test_quiet_prints_only_warnings() -> None:
    lines: list[str] = []
    quiet = QuietConsole(PlainConsole(lines.append, Clock()))
    for kind in ("plan", "decision", "warning", "slice", "end"):
        quiet.show(SearchEvent(kind=kind, text=f"a {kind}"))  # type: ignore[arg-type]
    quiet.close()
    assert [line.partition("] ")[2] for line in lines] == ["warning: a warning"]
