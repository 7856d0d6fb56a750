"""A small recording made up for tests: two machines, two node counts, two batches, three learning rates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces import Configuration
from tuner.domain.cluster import Machine
from tuner.recordings.file import write_recording
from tuner.recordings.recording import RecordedRun, Recording

MACHINES = {
    "small": Machine(cores=1, dollars_per_hour=0.36),
    "large": Machine(cores=4, dollars_per_hour=1.80),
}
TARGET = 0.9
STARTUP_SECONDS = 2.0


def configuration(
    nodes: int = 1,
    machine: str = "small",
    batch_size: int = 32,
    learning_rate: float = 0.1,
    strategy: str = "all_reduce",
) -> Configuration:
    """One of the grid's."""
    return Configuration(
        nodes=nodes,
        machine=machine,
        batch_size=batch_size,
        learning_rate=learning_rate,
        strategy=strategy,
    )


def recorded_run(
    what: Configuration, *, points: int = 12, data_fraction: float = 1.0, end: str | None = None
) -> RecordedRun:
    """A run by a plain law: more nodes and cores are faster, a rate of 0.1 needs the fewest samples.

    The last scoring is far beyond the target where the rate is not 0.001, which never gets there.
    """
    cores = MACHINES[str(what.get("machine", "small"))].cores
    step_seconds = 0.05 + 0.004 * what.batch_size / (what.nodes * math.sqrt(cores))
    samples = 4_000 * (1 + what.batch_size / 256) * (1 + math.log(what.learning_rate / 0.1) ** 2 / 4)
    steps = np.ceil(np.geomspace(0.1, 1.5, points) * samples / what.batch_size)
    best = 0.5 if what.learning_rate < 0.01 else 0.98
    values = best - (best - 0.1) * np.exp(-2.5 * steps * what.batch_size / samples)
    return RecordedRun(
        configuration=what,
        data_fraction=data_fraction,
        step_seconds=step_seconds,
        curve=np.stack([steps * step_seconds, steps, values], axis=1),
        end="one pass" if end is None and values[-1] < TARGET else end,
    )


def grid(
    strategies: Sequence[str] = ("all_reduce",),
    machines: Sequence[str] = tuple(MACHINES),
    *,
    prices: bool = True,
    **more: Any,
) -> Recording:
    """The recording, with or without prices; further keywords replace what its header says."""
    axes = itertools.product((1, 2), machines, (32, 128), (0.001, 0.03, 0.1), strategies)
    header: dict[str, Any] = {
        "name": "grid",
        "source": "made up for tests",
        "metric": "accuracy",
        "maximize": True,
        "target": TARGET,
        "machines": {name: MACHINES[name] for name in machines if prices},
        "extra_nodes": 1,
        "startup_seconds": STARTUP_SECONDS,
        "runs": tuple(recorded_run(configuration(*values)) for values in axes),
    }
    return Recording(**{**header, **more})


def write_grid(path: Path, **more: Any) -> Recording:
    """Writes the recording, and gives it."""
    recording = grid(**more)
    write_recording(recording, path)
    return recording


JOB = """
[probe]
kind = "recorded"
recording = "grid.jsonl.gz"
[goal]
trainings = 3
[budget]
time = "10m"
"""


def write_job(folder: Path, *changes: tuple[str, str], **more: Any) -> Path:
    """Writes the recording and a job over it, with some texts replaced; returns the job's path."""
    write_grid(folder / "grid.jsonl.gz", **more)
    text = JOB
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "replay.toml"
    path.write_text(text)
    return path
