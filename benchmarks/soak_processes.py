"""Kills a tuner and its processes at random moments: two seconds later, no orphan may be left.

Each round starts `paceline run` on a job whose ranks are processes of Paceline, or on a job whose command is
a user's script, with one or two probes at a time. Often a rank, a process of the script or a helper (the fork
server, a node agent) is killed first; all processes below it must end. Then the tuner or its process group is
killed; all processes of the round must end.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.soak_record import SoakRecord, quantile
from benchmarks.soak_round import JOB, Round, command_of
from tuner.launchers.node_agent import descendants
from tuner.launchers.process_records import ProcessRecord

#: Seconds after which no process may be left.
LIMIT_SECONDS = 2.0
#: Longest wait before a kill; the start takes about two seconds, the import of torch as long.
_LONGEST_WAIT_SECONDS = 4.0
_LONGEST_START_SECONDS = 40.0
_WATCH_SECONDS = 15.0

COMMAND_JOB = """
name = "soak"
seed = {seed}
[workload]
command = "{{python}} train.py --lr {{learning_rate}} --batch-size {{batch_size}} --nodes {{nodes}}"
one_per = "{one_per}"
[cluster]
nodes = [1, 2]
[goal]
metric = "loss"
target = 0.0
[space]
batch_size = [16, 32]
learning_rate = {{ low = 0.001, high = 0.03 }}
[baseline]
nodes = {nodes}
batch_size = 32
learning_rate = 0.001
[budget]
time = "120s"
"""

#: Starts a child, as a script with workers that load its data does; the child would run for a minute.
SCRIPT = """
import json, os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with open(os.environ["PACELINE_METRICS"], "a") as metrics:
    for step in range(1, 2000):
        line = {"step": step, "samples": 16 * step, "value": 1 / step}
        print(json.dumps(line), file=metrics, flush=True)
        time.sleep(0.02)
"""


def run_processes(record: SoakRecord, *, most_kills: int | None = None) -> None:
    """Repeats rounds of kills until the time is up.

    Args:
        record: Receives counts, figures and broken invariants.
        most_kills: Number of kills after which the run ends earlier; None for no limit.
    """
    rng = random.Random(record.seed)
    seconds: dict[str, list[float]] = {}
    number = 0
    while number == 0 or not record.is_over:
        if most_kills is not None and record.counts["kills"] >= most_kills:
            break
        with tempfile.TemporaryDirectory(prefix="soak-processes-", ignore_cleanup_errors=True) as name:
            _round(record, Path(name), number, rng, seconds)
        number += 1
        record.figures = {
            "rounds": number,
            "seconds_until_all_had_ended": {
                whom: {"median": quantile(taken, 0.5), "max": max(taken)}
                for whom, taken in sorted(seconds.items())
            },
        }
        record.progress(f"round {number}, {record.counts['kills']} kills")


def _round(
    record: SoakRecord, folder: Path, number: int, rng: random.Random, seconds: dict[str, list[float]]
) -> None:
    is_command, parallel = rng.random() < 0.5, rng.choice((1, 2))
    nodes = rng.choice((1, 2))
    if is_command:
        job = COMMAND_JOB.format(seed=number, nodes=nodes, one_per=rng.choice(("rank", "node")))
        (folder / "train.py").write_text(SCRIPT)
    else:
        job = JOB.format(seed=number, nodes=nodes).replace("0.93", "0.9999")
    (folder / "job.toml").write_text(job)
    place = Round(folder=folder, options=("--parallel", str(parallel)))
    kind = f"{'command' if is_command else 'ranks'}, parallel {parallel}"
    process = place.start()
    try:
        if rng.random() < 0.7:
            whom = rng.choice(("rank", "helper"))
            _wait_for(place, process, whom, rng.uniform(0.0, _LONGEST_WAIT_SECONDS))
            _kill(record, place, process, whom, kind, rng, seconds)
        time.sleep(rng.uniform(0.0, _LONGEST_WAIT_SECONDS))
        whom = rng.choice(("tuner", "group"))
        _kill(record, place, process, whom, kind, rng, seconds)
    finally:
        for left in place.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
        process.wait()


def _kill(
    record: SoakRecord,
    place: Round,
    process: subprocess.Popen[bytes],
    whom: str,
    kind: str,
    rng: random.Random,
    seconds: dict[str, list[float]],
) -> None:
    """Kills a process, and checks that the processes which depend on it end in time.

    Args:
        record: Receives the kill and, if a process is left, a broken invariant.
        place: The round.
        process: The tuner.
        whom: Whom to kill: `tuner`, `group`, `rank` or `helper`.
        kind: Kind of the job, for the record.
        rng: Chooses among several processes.
        seconds: Receives the time until the last process had ended, by `whom`.
    """
    if process.poll() is not None:
        return
    if whom in ("tuner", "group"):
        victim = process.pid
    else:
        victims = helpers(place) if whom == "helper" else _ranks(place)
        if not victims:
            return
        victim = rng.choice(victims)
    below = [ProcessRecord.of(found) for found in descendants(victim)]
    killed_at = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if whom == "group" else os.kill)(victim, signal.SIGKILL)
    record.counts["kills"] += 1
    record.counts[f"{whom}: {kind}"] += 1
    ends_all = whom in ("tuner", "group")
    if ends_all:
        process.wait()
    while left := (place.processes() if ends_all else _alive(below)):
        if time.monotonic() - killed_at > _WATCH_SECONDS:
            break
        time.sleep(0.02)
    taken = round(time.monotonic() - killed_at, 2)
    seconds.setdefault(whom, []).append(taken)
    if taken > LIMIT_SECONDS:
        commands = {found: command_of(found) for found in left}
        record.breaks("no process is left", whom=whom, kind=kind, taken=taken, processes=commands)


def _wait_for(place: Round, process: subprocess.Popen[bytes], whom: str, seconds: float) -> None:
    """Waits until the round has a process that can be killed as `whom`, and then some seconds more."""
    find = helpers if whom == "helper" else _ranks
    deadline = time.monotonic() + _LONGEST_START_SECONDS
    while not find(place) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(seconds)


def helpers(place: Round) -> list[int]:
    """Returns the fork server and the node agents of a round."""
    return [found for found in place.processes() if _is_helper(command_of(found, 10_000))]


def _is_helper(command: str) -> bool:
    return "--watch-input" in command or "die_with_parent" in command


def _ranks(place: Round) -> list[int]:
    return place.ranks() or [found for found in place.processes() if "train.py" in command_of(found, 10_000)]


def _alive(records: Iterable[ProcessRecord | None]) -> list[int]:
    return [found.process for found in records if found is not None and found.is_alive]
