"""`paceline run` killed again and again at random moments: nothing is paid twice, nobody stays behind.

Each round tunes a small job in a new folder with real ranks. The tuner, its process group or one rank is
killed some times, the same command is started again each time, and the last start runs to its answer. After
every end the database is compared with what it held before.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.soak_record import SoakRecord, quantile
from storage import open_storage
from tuner.errors import TunerError
from tuner.ledger import ProbeRecord
from tuner.measurement import Purpose

ROOT = Path(__file__).parents[1]
MARK = "PACELINE_SOAK_MARK"
MOST_KILLS = 5
#: The search ends after three failed probes in a row, which is right: fewer ranks are killed.
_MOST_RANKS_KILLED = 1
_GRACE_SECONDS = 30.0
_LONGEST_RUN_SECONDS = 240.0
_INTERRUPTED = 130

_JOB = """
name = "soak"
seed = {seed}
[workload]
path = "tuner.workloads.digits:Digits"
parameters = {{ network = "mlp", width = 8 }}
[cluster]
nodes = [1, 2]
[goal]
metric = "accuracy"
target = 0.93
[space]
batch_size = [16, 32]
learning_rate = {{ low = 0.001, high = 0.03 }}
[baseline]
nodes = {nodes}
batch_size = 32
learning_rate = 0.001
[budget]
time = "120s"
probes = 8
"""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One way to end a run.

    Args:
        name: Of the way.
        number: The signal.
        whom: `tuner`, `group` or `rank`.
    """

    name: str
    number: signal.Signals
    whom: str


KILLS = (
    Kill(name="SIGKILL to the tuner", number=signal.SIGKILL, whom="tuner"),
    Kill(name="SIGKILL to the process group", number=signal.SIGKILL, whom="group"),
    Kill(name="SIGTERM to the tuner", number=signal.SIGTERM, whom="tuner"),
    Kill(name="SIGINT to the process group", number=signal.SIGINT, whom="group"),
    Kill(name="SIGKILL to a rank", number=signal.SIGKILL, whom="rank"),
)


@dataclass(kw_only=True)
class Snapshot:
    """What a study database held at one moment.

    Args:
        probes: Of the newest study.
        finished_at: When the newest slice was stored, seconds since the epoch; None before the first.
        num_recommendations: Recommendations of the study.
        integrity: What SQLite's integrity check said.
    """

    probes: Sequence[ProbeRecord] = ()
    finished_at: float | None = None
    num_recommendations: int = 0
    integrity: str = "ok"

    @property
    def charged_seconds(self) -> float:
        """Seconds charged for all slices."""
        return sum(m.charged_seconds for probe in self.probes for m in probe.slices)


@dataclass(kw_only=True)
class Round:
    """One job from its first start to its answer.

    Args:
        folder: Where it is tuned.
        mark: In the environment of all of its processes.
        kills: What was done so far, for the record of a broken invariant.
    """

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    kills: list[str] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def start(self) -> subprocess.Popen[bytes]:
        """Starts the command that a user gives."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PACELINE_")}
        kept |= {MARK: self.mark, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "cli", "run", "job.toml"],
                cwd=self.folder,
                env=kept,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def text(self, name: str) -> str:
        """What the command printed so far."""
        return (self.folder / name).read_text(errors="replace")

    def processes(self) -> set[int]:
        """Every living process of the round."""
        found = {process for process in all_processes() if self.mark in _environment(process)}
        self.seen |= found
        return found

    def ranks(self) -> list[int]:
        """Ranks of the slice in flight."""
        found: list[int] = []
        for record in self.folder.glob("paceline-out/soak/probes/*/*/ranks.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                found += [rank["process"] for rank in json.loads(record.read_text())["ranks"]]
        return sorted(set(found) & self.processes())

    def shared_files(self) -> list[str]:
        """Files in shared memory that name a process of the round, or Paceline."""
        try:
            names = [path.name for path in Path("/dev/shm").iterdir()]
        except OSError:
            return []
        numbers = {str(process) for process in self.seen}
        return [n for n in names if "paceline" in n or numbers & set(n.replace("-", "_").split("_"))]

    def snapshot(self) -> Snapshot:
        """What the database holds.

        Raises:
            TunerError: The database cannot be read.
        """
        path = self.folder / "paceline.db"
        if not path.exists():
            return Snapshot()
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
            integrity = ", ".join(row[0] for row in connection.execute("PRAGMA integrity_check"))
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            newest = "SELECT max(finished_at) FROM paceline_slices"
            finished = connection.execute(newest).fetchone()[0] if "paceline_slices" in tables else None
        with open_storage(f"sqlite:///{path}") as store:
            studies = store.ledger.studies()
            if not studies:
                return Snapshot(integrity=integrity)
            study_id = studies[-1].study_id
            return Snapshot(
                probes=store.ledger.probes(study_id),
                finished_at=finished,
                num_recommendations=len(store.ledger.recommendations(study_id)),
                integrity=integrity,
            )


def all_processes() -> list[int]:
    """Every process of this machine."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environment(process: int) -> str:
    try:
        if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return ""
        return Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def held(snapshot: Snapshot) -> set[tuple[int, str]]:
    """The leases: probe and owner."""
    return {(probe.probe_id, probe.lease.owner) for probe in snapshot.probes if probe.lease is not None}


def check_resumed(before: Snapshot, after: Snapshot) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a run may not do to what was stored before it."""
    by_id = {probe.probe_id: probe for probe in after.probes}
    for probe in before.probes:
        later = by_id.get(probe.probe_id)
        if later is None or tuple(later.slices[: len(probe.slices)]) != tuple(probe.slices):
            yield "no slice vanishes or changes", {"probe": probe.probe_id, "slices": len(probe.slices)}
    if after.charged_seconds < before.charged_seconds:
        yield (
            "charged seconds never fall",
            {"before": before.charged_seconds, "after": after.charged_seconds},
        )
    if after.integrity != "ok":
        yield "the database passes its integrity check", {"answer": after.integrity}
    yield from check_paid_once(after.probes)


def check_paid_once(probes: Sequence[ProbeRecord]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Samples that were paid for twice: within a run, or by a second run of the same configuration."""
    begun: Counter[str] = Counter()
    for probe in probes:
        whole = [m for m in probe.slices if not m.outcome.is_fault]
        samples = [m.samples for m in whole]
        points = [point.samples for m in whole for point in m.curve]
        if samples != sorted(set(samples)) or points != sorted(set(points)):
            yield (
                "no sample is trained twice",
                {"probe": probe.probe_id, "samples": samples, "scored": points},
            )
        trained = probe.purpose is not Purpose.TIMING and whole and whole[0].charged_seconds > 0
        # A run that goes on with other nodes starts with a slice that cost nothing. Where a rank was killed,
        # the run may have to be trained again.
        if trained and len(whole) == len(probe.slices):
            begun[str(probe.configuration.without("nodes"))] += 1
    for configuration, count in begun.items():
        if count > 1:
            yield "no configuration is started twice", {"configuration": configuration, "count": count}


def check_end(
    code: int, stderr: str, *, kill: Kill | None, leases: int, left: Mapping[int, str], files: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What holds after every end of the command.

    Args:
        code: Its exit code.
        stderr: What it printed there.
        kill: What ended it; None where it ended by itself, or only a rank was killed.
        leases: Leases still held; after an interrupt those that it took itself, since it may come before
            the command has freed what a killed tuner held.
        left: Processes still alive after the grace, with their command lines.
        files: Our files in shared memory.
    """
    facts = {"exit_code": code, "stderr": stderr[-1500:]}
    allowed = {0}
    if kill is not None:
        # Before the first word, the interpreter itself answers to the signal.
        early = {-kill.number, 1} if kill.number != signal.SIGKILL and "plan:" not in stderr else set()
        allowed |= {-signal.SIGKILL} if kill.number == signal.SIGKILL else {_INTERRUPTED} | early
    if code not in allowed:
        yield "the command ends with the exit code of its end", {**facts, "allowed": sorted(allowed)}
    if "Traceback" in stderr and "plan:" in stderr:
        yield "no traceback reaches the user", facts
    if code in (0, _INTERRUPTED) and leases:
        yield "no lease is left after a clean end", {**facts, "leases": leases}
    if left:
        yield "no process outlives the tuner", {**facts, "processes": dict(left)}
    if files:
        yield "no file stays in shared memory", {**facts, "files": list(files)}


def run_kill(record: SoakRecord) -> None:
    """Rounds of kills until the time is up; the last round is finished without kills."""
    rng = random.Random(record.seed)
    lost: list[float] = []
    restarts: list[int] = []
    number = 0
    while number == 0 or not record.is_over:
        with tempfile.TemporaryDirectory(prefix="soak-kill-", ignore_cleanup_errors=True) as name:
            place = Round(folder=Path(name))
            (place.folder / "job.toml").write_text(_JOB.format(seed=number, nodes=rng.choice((1, 2))))
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
    return {process: _command(process) for process in left}


def _command(process: int) -> str:
    try:
        return (
            Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
        )
    except OSError:
        return ""


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
