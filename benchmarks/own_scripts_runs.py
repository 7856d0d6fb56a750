"""Runs of the benchmark of own scripts: `paceline run` on a job, and its script without Paceline."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.own_scripts_jobs.pretended import RECIPES, TRACE_VARIABLE, Recipe
from search_spaces import Configuration
from storage import open_storage
from tuner.domain.measurement import Measurement
from tuner.domain.section import parse_duration

JOBS = Path(__file__).with_name("own_scripts_jobs")
#: A command that takes so many budgets, and a minute, is ended: it hangs.
_LONGEST_BUDGETS, _LONGEST_EXTRA_SECONDS = 3.0, 60.0
_POLL_SECONDS = 0.02
_GRACE_SECONDS = 20.0
_GRID_RATES = 7


@dataclass(frozen=True, kw_only=True)
class ScriptJob:
    """A script and the job file that tunes it.

    Args:
        name: The name of both.
        job: The job file as plain data.
    """

    name: str
    job: dict[str, Any]

    @classmethod
    def named(cls, name: str) -> ScriptJob:
        """The job of a script."""
        return cls(name=name, job=tomllib.loads((JOBS / f"{name}.toml").read_text()))

    @property
    def recipe(self) -> Recipe:
        """What the script pretends to train."""
        return RECIPES[self.name]

    @property
    def budget_seconds(self) -> float:
        """The time budget."""
        return float(parse_duration(self.job["budget"]["time"]))

    @property
    def grace_seconds(self) -> float:
        """The time that a script has to save."""
        return float(parse_duration(self.job["workload"]["grace"]))

    @property
    def baseline(self) -> tuple[int, float]:
        """Batch size and learning rate of the present settings."""
        return self.job["baseline"]["batch_size"], self.job["baseline"]["learning_rate"]

    def passes(self, value: float) -> bool:
        """Whether a score is past the target."""
        goal, target = self.job["goal"], float(self.job["goal"]["target"])
        return value >= target if goal["metric"] == "accuracy" else value <= target

    def seconds_to_target(self, batch: int, rate: float, seed: int) -> float:
        """True training seconds until the first score past the target; infinite if there is none."""
        scores = self.recipe.scores(batch, rate, seed)
        return next((score.seconds for score in scores if self.passes(score.value)), math.inf)

    def grid(self) -> Iterator[tuple[int, float]]:
        """Every batch size with some learning rates over the whole range."""
        space = self.job["space"]
        low, high = space["learning_rate"]["low"], space["learning_rate"]["high"]
        for batch in space["batch_size"]:
            for i in range(_GRID_RATES):
                yield batch, float(f"{low * (high / low) ** (i / (_GRID_RATES - 1)):.4g}")

    def best_of_grid(self, seed: int) -> tuple[int, float]:
        """Batch size and learning rate of the grid that reach the target first."""
        return min(self.grid(), key=lambda pair: self.seconds_to_target(pair[0], pair[1], seed))

    def copied(self, folder: Path, seed: int) -> Path:
        """The job file in a folder, with a seed, beside the script and what it imports."""
        for name in (f"{self.name}.py", "pretended.py"):
            shutil.copy(JOBS / name, folder)
        path = folder / f"{self.name}.toml"
        path.write_text(f"seed = {seed}\n" + (JOBS / f"{self.name}.toml").read_text())
        return path

    def command(self, batch: int, rate: float, seed: int, folder: Path) -> list[str]:
        """The script's own command line."""
        text: str = self.job["workload"]["command"]
        values = {"python": shlex.quote(sys.executable), "batch_size": batch, "learning_rate": rate}
        return shlex.split(text.format(**values, seed=seed, checkpoint=shlex.quote(str(folder / "saved"))))


@dataclass(frozen=True, kw_only=True)
class StoredSlice:
    """A slice of the study.

    Args:
        probe: Its probe.
        finished_at: Seconds since the epoch.
        measurement: What was read.
    """

    probe: int
    finished_at: float
    measurement: Measurement


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What `paceline run` left.

    Args:
        script: The script's name.
        seed: The job's seed.
        exit_code: Of the command; None if it hung and was ended.
        wall_seconds: From its start to its end.
        answer: What it printed as JSON; None if it recommended nothing.
        slices: Of the study, in the order in which they ended.
    """

    script: str
    seed: int
    exit_code: int | None
    wall_seconds: float
    answer: dict[str, Any] | None
    slices: tuple[StoredSlice, ...]

    @property
    def chosen(self) -> tuple[int, float] | None:
        """Batch size and learning rate of the answer."""
        if self.answer is None:
            return None
        configuration = self.answer["choice"]["configuration"]
        return configuration["batch_size"], configuration["learning_rate"]


def batch_and_rate(configuration: Configuration) -> tuple[int, float]:
    """Batch size and learning rate."""
    return configuration.batch_size, configuration.learning_rate


def tune(
    script: ScriptJob, seed: int, folder: Path, prepare: Callable[[Path], None] = lambda _: None
) -> Tuning:
    """Runs `paceline run` in a new folder, as a user would; messages go to stderr.txt there.

    Args:
        script: The script.
        seed: The job's seed.
        folder: The folder; must not exist.
        prepare: Gets the job file before the run; its time does not count.
    """
    folder.mkdir(parents=True)
    path = script.copied(folder, seed)
    prepare(path)
    paceline = Path(sys.executable).with_name("paceline")
    started = time.monotonic()
    with (folder / "stdout.json").open("w") as output, (folder / "stderr.txt").open("w") as messages:
        process = subprocess.Popen(
            [str(paceline), "run", path.name, "--format", "json"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=messages,
            start_new_session=True,
        )
        limit = _LONGEST_BUDGETS * script.budget_seconds + _LONGEST_EXTRA_SECONDS
        code = _wait(process, limit)
    return Tuning(
        script=script.name,
        seed=seed,
        exit_code=code,
        wall_seconds=time.monotonic() - started,
        answer=_answer((folder / "stdout.json").read_text()),
        slices=stored_slices(folder / "paceline.db"),
    )


def stored_slices(database: Path) -> tuple[StoredSlice, ...]:
    """The slices of the only study of a database, in the order in which they ended."""
    if not database.exists():
        return ()
    with open_storage(f"sqlite:///{database}") as store:
        probes = [probe for study in store.ledger.studies() for probe in store.ledger.probes(study.study_id)]
    connection = sqlite3.connect(database)
    try:
        rows = connection.execute("select probe_id, slice_index, finished_at from paceline_slices").fetchall()
    finally:
        connection.close()
    finished = {(probe, index): at for probe, index, at in rows}
    slices = [
        StoredSlice(
            probe=probe.probe_id, finished_at=finished[probe.probe_id, index], measurement=measurement
        )
        for probe in probes
        for index, measurement in enumerate(probe.slices)
    ]
    return tuple(sorted(slices, key=lambda stored: stored.finished_at))


def train_directly(script: ScriptJob, batch: int, rate: float, seed: int, limit: float) -> float | None:
    """Runs the script without Paceline until it reports a score past the target.

    Args:
        script: The script.
        batch: Batch size.
        rate: Learning rate.
        seed: Seed of its noise.
        limit: Seconds after which it is ended.

    Returns:
        Seconds on the wall clock from the first step to that score; None if there was none.
    """
    with tempfile.TemporaryDirectory(prefix="own-scripts-") as name:
        folder = Path(name)
        script.copied(folder, seed)
        trace = folder / "trace.jsonl"
        with (folder / "output.txt").open("w") as output:
            process = subprocess.Popen(
                script.command(batch, rate, seed, folder),
                cwd=folder,
                env={**os.environ, TRACE_VARIABLE: str(trace), "PACELINE_METRICS": str(folder / "metrics")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                return _watch(script, process, trace, limit)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()


def _watch(script: ScriptJob, process: subprocess.Popen[Any], trace: Path, limit: float) -> float | None:
    give_up = time.monotonic() + limit
    while True:
        has_ended = process.poll() is not None or time.monotonic() > give_up
        text = trace.read_text() if trace.exists() else ""
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        for line in lines:
            if line["value"] is not None and script.passes(line["value"]):
                return float(line["time"] - lines[0]["time"])
        if has_ended:
            return None
        time.sleep(_POLL_SECONDS)


def _wait(process: subprocess.Popen[Any], limit: float) -> int | None:
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return None


def _answer(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and found.get("choice") else None
