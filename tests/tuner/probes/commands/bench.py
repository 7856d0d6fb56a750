"""A folder with scripts, and probers of them, for tests of slices that run a command."""

from __future__ import annotations

import sys
from pathlib import Path

from search_spaces import Configuration
from tests.tuner.probes.commands.shell_launcher import ShellLauncher
from tests.tuner.probes.conformance import ended
from tuner.domain.measurement import Measurement, Purpose
from tuner.job import Job
from tuner.launchers import CommandLauncher, JobHandle, JobStatus, Launcher, LocalNodes
from tuner.probes import Until
from tuner.probes.commands.prober import CommandProber

PYTHON = sys.executable
#: An interpreter in which nothing of ours is installed.
OTHER_PYTHON = Path(sys.base_prefix) / "bin" / "python3"
CONFIGURATION = Configuration(nodes=1, batch_size=10, learning_rate=0.5, strategy="all_reduce")

#: Trains nothing: its accuracy follows from the samples, and a step takes a hundredth of a second.
SCRIPT = """
import json, os, sys, time
from paceline_client import begin, checkpoint_path, report, should_stop

options = dict(word.split("=") for word in sys.argv[1:])
batch, every = int(options.get("batch", 10)), int(options.get("every", 5))
step = 0
if "resume" in options:
    step = json.load(open(options["resume"]))["step"]
time.sleep(float(options.get("startup", 0)))
begin(step=step, samples=step * batch)
if step == 0:
    report(step=0, samples=0, value=0.1)
while step < int(options.get("steps", 100000)):
    time.sleep(float(options.get("delay", 0.01)))
    step += 1
    samples = step * batch
    report(step=step, samples=samples)
    if step % every == 0:
        time.sleep(float(options.get("scoring", 0)))
        report(step=step, samples=samples, value=samples / (samples + 1000))
    if should_stop():
        break
with open(checkpoint_path(), "w") as file:
    json.dump({"step": step}, file)
"""


def job_of(command: str, *, target: float = 0.99, **more: object) -> Job:
    workload = {"command": command, **more}
    probe = workload.pop("probe", {})
    return Job.model_validate(
        {
            "workload": workload,
            "goal": {"metric": "accuracy", "target": target},
            "space": {"batch_size": (10, 20), "learning_rate": (0.5,)},
            "cluster": {"nodes": (1, 2)},
            "probe": probe,
        }
    )


class Bench:
    """A folder with scripts, and probers of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._probers: list[CommandProber] = []

    def prober(self, job: Job, launcher: Launcher | None = None) -> CommandProber:
        prober = CommandProber(job, self.folder, launcher or CommandLauncher(LocalNodes()))
        self._probers.append(prober)
        return prober

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def slice(
        self,
        job: Job,
        until: Until,
        *,
        purpose: Purpose = Purpose.STATISTICS,
        probe: str = "probe",
        configuration: Configuration = CONFIGURATION,
        launcher: Launcher | None = None,
    ) -> Measurement:
        prober = self.prober(job, launcher)
        return ended(prober, prober.start(configuration, purpose, until, self.folder / probe))

    def commands(self, probe: str = "probe") -> list[str]:
        """The command of each attempt at each slice, in order."""
        return [path.read_text() for path in sorted((self.folder / probe / "slices").glob("*/command.sh"))]

    def close(self) -> None:
        for prober in self._probers:
            prober.close()


def resumable(options: str = "", **more: object) -> Job:
    command = f"{PYTHON} train.py batch={{batch_size}} {options}"
    return job_of(command, resume="resume={checkpoint}", **more)


def repeating(options: str = "", **more: object) -> Job:
    return job_of(f"{PYTHON} train.py batch={{batch_size}} {options}", **more)


def values(measurement: Measurement) -> list[float]:
    return [point.value for point in measurement.curve]


class LosesOneThatSaved(ShellLauncher):
    """Its first job loses its nodes once it has saved."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        self._checkpoint: Path | None = checkpoint

    def poll(self, handle: JobHandle) -> JobStatus:
        if self._checkpoint is not None and self._checkpoint.exists():
            self._checkpoint = None
            self._lost_at[handle.identity] = 0.0
        return super().poll(handle)
