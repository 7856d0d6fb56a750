"""A folder with a tiny job in it, and the command as a user calls it there."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storage import open_storage
from tuner.domain.ledger import ProbeRecord, StudyRecord

PACELINE = Path(sys.executable).with_name("paceline")
#: The end of a test that waits for something that does not come.
TIMEOUT_SECONDS = 90.0

WORKLOAD = '''
import math
import os
import signal
import time

import torch
from torch import nn
from torch.utils.data import TensorDataset

from paceline import METRICS, DataNotFoundError, Workload


def points(count, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 8, generator=generator)
    return TensorDataset(x, (x @ torch.arange(1.0, 9.0) > 0).long())


class Lines(Workload):
    """Tells the two sides of a plane apart; `delay` makes a step take so many seconds."""

    metric = METRICS["accuracy"]

    def __init__(self, delay=0.0, fault=""):
        self.delay, self.fault = delay, fault

    def model(self):
        return nn.Linear(8, 2)

    def training_data(self):
        if self.fault == "no data":
            raise DataNotFoundError("the lines are not in /data/lines; get them with `fetch lines`")
        if self.fault == "broken data":
            raise KeyError("lines")
        return points(0 if self.fault == "empty data" else 2000, 1)

    def validation_data(self):
        return points(500, 2)

    def loss(self, model, batch):
        if self.delay:
            time.sleep(self.delay)
        if self.fault == "raise":
            raise ArithmeticError("the workload's own words")
        x, y = batch
        loss = nn.functional.cross_entropy(model(x), y)
        if self.fault == "not a scalar":
            return loss.repeat(3)
        return loss * math.nan if self.fault == "nan" else loss

    def score(self, model, data):
        x, y = data.tensors
        share = float((model(x).argmax(1) == y).double().mean())
        if self.fault == "never better":
            return 0.5
        return 100 * share if self.fault == "per cent" else share
'''

JOB = """
name = "tiny"
[workload]
path = "tiny_work:Lines"
parameters = {parameters}
[cluster]
nodes = [1, 2]
[goal]
target = 0.97
[space]
batch_size = [16, 32]
learning_rate = {learning_rate}
[baseline]
batch_size = 16
learning_rate = 0.001
[budget]
time = "60s"
probes = 8
"""


def toml_table(values: dict[str, object]) -> str:
    words = ", ".join(f"{key} = {value!r}" for key, value in values.items())
    return f"{{ {words} }}"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def messages(self) -> list[str]:
        """The lines on stderr, without the next command at the end."""
        return [line for line in self.stderr.strip().splitlines() if not line.startswith("Next: ")]


@dataclass(frozen=True)
class Workplace:
    """A user's folder.

    Args:
        folder: The folder.
    """

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "tiny_work.py").write_text(WORKLOAD)
        self.write_job()

    @property
    def job(self) -> Path:
        return self.folder / "job.toml"

    def write_job(self, *changes: tuple[str, str], **parameters: object) -> None:
        """Writes the job with some texts replaced and with the workload's parameters."""
        text = JOB.replace("{parameters}", toml_table(parameters))
        text = text.replace("{learning_rate}", "{ low = 0.001, high = 0.1 }")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.job.write_text(text)

    def call(self, *arguments: str, **environment: str) -> Ended:
        """Calls the command and waits for its end."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
        return Ended(code=process.returncode, stdout=out, stderr=err)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Starts the command in a session of its own."""
        return subprocess.Popen(
            [str(PACELINE), *arguments],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def study(self) -> tuple[StudyRecord, list[ProbeRecord]]:
        """The newest study with its probes."""
        with open_storage(f"sqlite:///{self.folder / 'paceline.db'}") as store:
            study = store.ledger.studies()[-1]
            return study, store.ledger.probes(study.study_id)

    def processes(self) -> set[int]:
        """Every process that works in this folder, or was started from it."""
        return processes_in(self.folder)

    def ranks(self) -> dict[Path, list[int]]:
        """Processes of the ranks that run a job, by the folder of their probe."""
        return running_ranks(self.folder)

    def assert_nobody_left(self) -> None:
        """Waits until no process works here any more; whoever stays is a failure."""
        wait_until(lambda: not self.processes(), "every process of the run to end")


def processes_in(folder: Path) -> set[int]:
    """Every process that works in a folder, but for this one."""
    return {process for process in _all_processes() if _place(process) == str(folder)} - {os.getpid()}


def running_ranks(folder: Path) -> dict[Path, list[int]]:
    """Processes of ranks that print to a log below a folder, by the folder of the log; in order of rank."""
    found: dict[Path, list[tuple[str, int]]] = {}
    for process in _all_processes():
        with contextlib.suppress(OSError):
            log = Path(f"/proc/{process}/fd/1").readlink()
            if log.name.startswith("rank") and log.is_relative_to(folder.resolve()) and _leads(process):
                found.setdefault(log.parent, []).append((log.name, process))
    return {place: [process for _, process in sorted(ranks)] for place, ranks in found.items()}


def _leads(process: int) -> bool:
    """Whether a process leads its session, as ranks do and what they start does not."""
    return os.getsid(process) == process


def _all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _place(process: int) -> str:
    try:
        if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return ""
        return str(Path(f"/proc/{process}/cwd").readlink())
    except OSError:
        return ""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Waits for something to come true; a test that waits in vain fails."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def kill_session(process: subprocess.Popen[str]) -> None:
    """Kills a command, ranks included where they are of its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
