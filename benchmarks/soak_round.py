"""One job of a kill run: how it is started, which processes it has, what its database holds."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from storage import open_storage
from tuner.domain.ledger import ProbeRecord

ROOT = Path(__file__).parents[1]


TAG = "PACELINE_SOAK_MARK"


JOB = """
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
        options: Further options of the command.
        tag: In the environment of all of its processes.
        kills: What was done so far, for the record of a broken invariant.
    """

    folder: Path
    options: tuple[str, ...] = ()
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)
    kills: list[str] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def start(self) -> subprocess.Popen[bytes]:
        """Starts the command that a user gives."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PACELINE_")}
        environment |= {TAG: self.tag, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "cli", "run", "job.toml", *self.options],
                cwd=self.folder,
                env=environment,
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
        found = {process for process in all_processes() if self.tag in _environment(process)}
        self.seen |= found
        return found

    def ranks(self) -> list[int]:
        """Ranks of the slice in flight."""
        found = []
        for process in self.processes():
            with contextlib.suppress(OSError):
                log = Path(f"/proc/{process}/fd/1").readlink()
                # A rank leads its session; what it starts does not.
                if re.fullmatch(r"rank\d+\.log", log.name) and os.getsid(process) == process:
                    found.append(process)
        return sorted(found)

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


def command_of(process: int, most: int = 200) -> str:
    try:
        return (
            Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:most]
        )
    except OSError:
        return ""
