"""Made recording of 400 configurations with known curves, and the probes of a search in the middle of it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.replay_problem import Problem, problem
from benchmarks.replay_search import new_probe
from search_spaces import Configuration
from tuner.domain.cluster import Machine
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.recordings.file import write_recording
from tuner.recordings.recording import RecordedRun, Recording

#: So many that each configuration is worth a probe.
MADE_TRAININGS = 1_000_000_000
_TARGET = 0.85
_NUM_SCORES = 60
_SLICES_OF_A_RUN = 5
#: Each run goes on to this share of its recorded seconds, where it has not reached the target yet.
_LAST_SHARE = 0.3
_MACHINES = {
    "small": Machine(cores=2, dollars_per_hour=0.05),
    "large": Machine(cores=8, dollars_per_hour=0.2),
}


def made_problem(folder: Path) -> Problem:
    """Writes the recording to a folder, and returns the search over it, which serves many trainings.

    Args:
        folder: Gets the file `made.jsonl.gz`.
    """
    rng = np.random.default_rng(0)
    axes = itertools.product(
        (1, 2, 4, 8), _MACHINES, (32, 64, 128, 256, 512), (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), ("sync", "async")
    )
    names = ("nodes", "machine", "batch_size", "learning_rate", "strategy")
    runs = [_recorded_run(Configuration(dict(zip(names, values, strict=True))), rng) for values in axes]
    recording = Recording(
        name="made",
        source="made from a known law (benchmarks/made_recording.py)",
        metric="accuracy",
        maximize=True,
        target=_TARGET,
        machines=_MACHINES,
        startup_seconds=1.0,
        runs=tuple(runs),
    )
    path = folder / "made.jsonl.gz"
    write_recording(recording, path)
    return problem(path, "seconds", trainings=MADE_TRAININGS)


def recorded_probes(made: Problem, num_slices: int, *, seed: int = 0) -> list[ProbeRecord]:
    """Probes of a search of the recording that have so many slices together, at most five each.

    Args:
        made: As `made_problem` returns it.
        num_slices: At most five for each configuration.
        seed: Of the order in which configurations were probed.
    """
    recording, prober = made.recording, made.prober()
    configurations = recording.configurations()
    if num_slices > _SLICES_OF_A_RUN * len(configurations):
        raise ValueError(f"num_slices is {num_slices}; at most {_SLICES_OF_A_RUN * len(configurations)}")
    order = [configurations[i] for i in np.random.default_rng(seed).permutation(len(configurations))]
    probes: list[ProbeRecord] = []
    left = num_slices
    for what in order:
        count = min(_SLICES_OF_A_RUN, left)
        if count == 0:
            break
        seconds = recording.run(what).seconds
        probe = new_probe(len(probes), what, Purpose.STATISTICS)
        for number in range(count):
            until = Until(training_seconds=seconds * _LAST_SHARE * (number + 1) / _SLICES_OF_A_RUN)
            handle = prober.start(what, Purpose.STATISTICS, until, Path(f"{probe.probe_id:04d}"))
            measured = prober.poll(handle)
            probe = replace(probe, slices=(*probe.slices, measured), outcome=measured.outcome)
        probes.append(probe)
        left -= count
    return probes


def _recorded_run(what: Configuration, rng: np.random.Generator) -> RecordedRun:
    """A run to twice its samples to target; each sixth one levels off below the target."""
    cores = _MACHINES[str(what["machine"])].cores
    step_seconds = 0.01 + 5e-4 * what.batch_size / (what.nodes * cores**0.75) + 2e-3 * what.nodes
    step_seconds *= math.exp(0.05 * rng.standard_normal())
    ratio = math.log(what.learning_rate / (0.05 / (1 + 150 / what.batch_size)))
    samples = 3e4 * (1 + what.batch_size / 150) * math.exp(0.6 * math.hypot(1.0, ratio) - 0.6)
    steps = np.unique(np.ceil(np.geomspace(0.01, 2.0, _NUM_SCORES) * samples / what.batch_size))
    seen = steps * what.batch_size / samples
    last = 0.8 if rng.random() < 1 / 6 else 0.95
    values = 0.1 + (last - 0.1) * (1 - (1 + 3.0 * seen) ** -1.5) + 0.004 * rng.standard_normal(len(steps))
    return RecordedRun(
        configuration=what,
        step_seconds=step_seconds,
        curve=np.stack([steps * step_seconds, steps, values], axis=1),
        end=None if (values >= _TARGET).any() else "one pass",
    )
