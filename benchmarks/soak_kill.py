"""`paceline run` killed again and again at random moments: nothing is paid twice, nobody stays behind.

Each round tunes a small job in a new folder with real ranks. The tuner, its process group or one rank is
killed some times, the same command is started again each time, and the last start runs to its answer. After
every end the database is compared with what it held before.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.soak_kill_checks import KILLS, Kill, check_end, check_resumed, held
from benchmarks.soak_record import SoakRecord, quantile
from benchmarks.soak_round import JOB, Round, Snapshot, command_of
from tuner.domain.errors import TunerError

MOST_KILLS = 5


#: The search ends after three failed probes in a row, which is right: fewer ranks are killed.
_MOST_RANKS_KILLED = 1


_GRACE_SECONDS = 30.0


_LONGEST_RUN_SECONDS = 240.0


def run_kill(record: SoakRecord) -> None:
    """Rounds of kills until the time is up; the last round is finished without kills."""
    rng = random.Random(record.seed)
    lost: list[float] = []
    restarts: list[int] = []
    number = 0
    while number == 0 or not record.is_over:
        with tempfile.TemporaryDirectory(prefix="soak-kill-", ignore_cleanup_errors=True) as name:
            place = Round(folder=Path(name))
            (place.folder / "job.toml").write_text(JOB.format(seed=number, nodes=rng.choice((1, 2))))
            kills = _kills(rng)
            starts = _round(record, place, number, kills, rng, lost)
        restarts.append(starts - 1)
        number += 1
        record.figures = {
            "answers": record.counts["answers"],
            "restarts_per_answer": {"median": quantile(restarts, 0.5), "max": max(restarts)},
            "seconds_lost_per_kill": {
                "median": quantile(lost, 0.5), "p90": quantile(lost, 0.9), "max": quantile(lost, 1.0)
            },
        }  # fmt: skip


def _kills(rng: random.Random) -> list[Kill]:
    kills = [rng.choice(KILLS) for _ in range(rng.randint(1, MOST_KILLS))]
    ranks = [kill for kill in kills if kill.whom == "rank"][_MOST_RANKS_KILLED:]
    for kill in ranks:
        kills.remove(kill)
    return kills


def _round(
    record: SoakRecord,
    place: Round,
    number: int,
    kills: list[Kill],
    rng: random.Random,
    lost: list[float],
) -> int:
    """Tunes one job to its answer; returns how often the command was started."""
    before = Snapshot()
    for starts in range(1, MOST_KILLS + 3):
        process = place.start()
        began = time.time()
        kill = kills.pop(0) if kills and not record.is_over else None
        try:
            ended_by = None
            if kill is not None:
                ended_by = _strike(record, place, process, kill, rng)
            try:
                code = process.wait(timeout=_LONGEST_RUN_SECONDS)
            except subprocess.TimeoutExpired:
                record.breaks("the command ends", **_facts(place, number))
                return starts
            ended = time.time()
            left = _left(place)
            try:
                after = place.snapshot()
            except (TunerError, sqlite3.Error) as error:
                record.breaks("the database can be read", error=str(error), **_facts(place, number))
                return starts
            leases = len(held(after) - (held(before) if code else set()))
            problems = [
                *check_resumed(before, after),
                *check_end(
                    code,
                    place.text("stderr"),
                    kill=ended_by,
                    leases=leases,
                    left=left,
                    files=place.shared_files(),
                ),
            ]
            for invariant, facts in problems:
                record.breaks(invariant, **facts, **_facts(place, number))
            if ended_by is not None and code != 0:
                lost.append(round(ended - max(began, after.finished_at or 0.0), 2))
            before = after
        finally:
            _end_all(place)
        record.progress(f"round {number}, {', '.join(place.kills) or 'no kill yet'}; ended with {code}")
        if code == 0:
            _check_answer(record, place, number, after)
            return starts
    record.breaks("the command answers after its kills", **_facts(place, number))
    return MOST_KILLS + 2


def _strike(
    record: SoakRecord, place: Round, process: subprocess.Popen[bytes], kill: Kill, rng: random.Random
) -> Kill | None:
    """Sends the signal at a random moment; None where the command ended before, or goes on."""
    if kill.whom != "rank" and rng.random() < 0.3:
        _wait(process, rng.uniform(0.0, 10.0), lambda: False)
    else:
        _wait(process, 60.0, lambda: bool(place.ranks()))
        _wait(process, rng.uniform(0.0, 6.0), lambda: False)
    place.processes()
    if process.poll() is not None:
        return None
    with contextlib.suppress(ProcessLookupError):
        if kill.whom == "rank":
            ranks = place.ranks()
            if not ranks:
                return None
            os.kill(rng.choice(ranks), kill.number)
        elif kill.whom == "group":
            os.killpg(process.pid, kill.number)
        else:
            os.kill(process.pid, kill.number)
        record.counts["kills"] += 1
        record.counts[kill.name] += 1
        place.kills.append(kill.name)
        return None if kill.whom == "rank" else kill
    return None


def _wait(process: subprocess.Popen[bytes], seconds: float, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None and not condition():
        time.sleep(0.05)


def _left(place: Round) -> dict[int, str]:
    deadline = time.monotonic() + _GRACE_SECONDS
    while (left := place.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return {process: command_of(process) for process in left}


def _end_all(place: Round) -> None:
    for process in place.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _check_answer(record: SoakRecord, place: Round, number: int, after: Snapshot) -> None:
    record.counts["answers"] += 1
    written = place.folder / "paceline-out" / "soak" / "recommendation.json"
    if "Recommended for soak" not in place.text("stdout") or not written.exists():
        record.breaks(
            "an answer holds a recommendation", stdout=place.text("stdout")[-500:], **_facts(place, number)
        )
    if not after.num_recommendations:
        record.breaks("the database holds the recommendation", **_facts(place, number))


def _facts(place: Round, number: int) -> dict[str, Any]:
    return {"round": number, "kills": list(place.kills)}
