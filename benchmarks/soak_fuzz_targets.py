"""What is fed with random inputs, and what must hold for each: job files, reports, recordings, databases."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import math
import random
import shutil
import tomllib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli
from benchmarks.soak_mutations import ODD_VALUES, mutated_bytes, mutated_table, toml_text, value_at
from search_spaces import Configuration
from storage import open_storage
from tuner.errors import JobError
from tuner.job import Job, MetricsSection, load_job
from tuner.launchers import JobHandle, JobState, JobStatus
from tuner.ledger import PredictionRecord
from tuner.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.probes import Until
from tuner.probes.command_slice import CommandSlice
from tuner.probes.metric_sources import CsvSource, JsonSource, MetricSource, OutputSource
from tuner.probes.probe_folder import ProbeFolder
from tuner.probes.progress_line import LineForm
from tuner.probes.slice_plan import SlicePlan
from tuner.recording_file import load_recording
from tuner.service.opening import open_job

EXAMPLES = Path(__file__).parents[1] / "examples"
Problem = tuple[str, dict[str, Any]]
_LARGEST = 2**63


class Target(ABC):
    """A place where the user's data enter.

    Args:
        folder: For its files; the current folder while it is checked.
    """

    name: str
    #: How many inputs it gets in turn.
    weight = 4
    #: Whether a broken input is worth storing; else seed and iteration make it again.
    is_short = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def make(self, rng: random.Random) -> bytes:
        """A random input."""

    @abstractmethod
    def problems(self, data: bytes) -> Iterator[Problem]:
        """The invariants that an input breaks. What it raises is a broken one too."""


class Jobs(Target):
    """Job files through `paceline status`, which reads, checks and refuses them as every command does."""

    name = "job file"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = folder / "job.toml"
        for script in EXAMPLES.glob("*.py"):
            shutil.copy(script, folder)
        texts = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.toml"))]
        self._originals = [(text, tomllib.loads(text.decode())) for text in texts]
        self._change: tuple[bytes, dict[str, Any], tuple[str, ...]] | None = None

    def make(self, rng: random.Random) -> bytes:
        text, table = rng.choice(self._originals)
        if rng.random() < 0.3:
            return mutated_bytes(text, rng)
        changed, kind, path = mutated_table(table, rng)
        data = toml_text(changed).encode()
        self._change = None if kind == "delete" else (data, table, path)
        return data

    def problems(self, data: bytes) -> Iterator[Problem]:
        self._path.write_bytes(data)
        code, _, err = call_cli("status", "job.toml")
        message = {"exit_code": code, "stderr": err[-1000:]}
        is_accepted = "there is no study of this job here yet" in err
        if code not in (2, 3) or "Traceback" in err:
            yield "a job file is accepted or refused with exit code 2 or 3", message
        if "job.toml" not in err:
            yield "the message names the file", message
        if len(err) > 20_000:
            yield "the message is short enough to read", {**message, "length": len(err)}
        change = self._change
        if change is None or change[0] != data:
            return
        _, table, path = change
        if not is_accepted and not any(part in err for part in path):
            yield "the message names a key on the way to the change", {**message, "changed": ".".join(path)}
        if is_accepted:
            (self.folder / "original.toml").write_text(toml_text(table))
            changed = tomllib.loads(data.decode())
            with contextlib.suppress(KeyError, TypeError):
                if value_at(table, path) == value_at(changed, path):
                    return
            if _same(load_job(self._path), load_job(self.folder / "original.toml")):
                facts = {"changed": ".".join(path), "value": repr(value_at(changed, path))[:200]}
                yield "no value is ignored", {**message, **facts}


def _same(one: Job, other: Job) -> bool:
    names = {"name"} if "name" not in one.model_fields_set & other.model_fields_set else set()
    return one.model_dump_json(exclude=names) == other.model_dump_json(exclude=names)


class Reports(Target):
    """What a script reports, as JSON lines, CSV rows and printed lines, up to the curve of a slice."""

    name = "metric report"
    _HEADS = ("json", "csv", "output")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        shutil.copy(EXAMPLES / "numpy_script.toml", folder)
        shutil.copy(EXAMPLES / "numpy_script.py", folder)
        self._opened = open_job(folder / "numpy_script.toml")
        self._number = 0

    def make(self, rng: random.Random) -> bytes:
        kind = rng.choice(self._HEADS)
        rows = [{"step": i * 10, "samples": i * 500, "value": round(1 - 0.8**i, 4)} for i in range(1, 12)]
        for _ in range(rng.randint(0, 4)):
            row: dict[str, Any] = rng.choice(rows)
            name = rng.choice(("step", "samples", "value", "epoch", "seconds", "time", "event", "process"))
            row[name] = rng.choice((*ODD_VALUES, "noise", "begin", "asks"))
            if row.get("event") == "noise":
                names = ("small_batch", "small_squared_norm", "large_batch", "large_squared_norm")
                row |= {name: rng.choice((1, 2, 3e15, 1e308, 1e-320, math.nan, "x")) for name in names}
        if kind == "json":
            text = "\n".join(json.dumps(row) for row in rows) + "\n"
        elif kind == "csv":
            names = list(dict.fromkeys(name for row in rows for name in row))
            out = io.StringIO()
            writer = csv.DictWriter(out, names)
            writer.writeheader()
            writer.writerows({key: _short(value) for key, value in row.items()} for row in rows)
            text = out.getvalue()
        else:
            lines = (f"step {_short(r.get('step'))} accuracy={_short(r.get('value'))}" for r in rows)
            text = "starts\n" + "\n".join(lines) + "\n"
        data = text.encode("utf-8", "surrogatepass")
        if rng.random() < 0.5:
            data = mutated_bytes(data, rng)
        return kind.encode() + b":" + data

    def problems(self, data: bytes) -> Iterator[Problem]:
        kind, _, content = data.partition(b":")
        self._number += 1
        path = self.folder / f"reports-{self._number}"
        source = self._source(kind.decode(), path, content)
        cut = len(content) // 2
        path.write_bytes(content[:cut])
        lines = source.read(0.0, has_ended=False)
        path.write_bytes(content)
        lines += source.read(1.0, has_ended=True)
        path.unlink()
        for line in lines:
            if not (0 <= line.step < _LARGEST and 0 <= line.samples < _LARGEST):
                yield "a report's place is a count", {"line": str(line)}
            if line.seconds is not None and not math.isfinite(line.seconds):
                yield "a report's clock is finite", {"line": str(line)}
            numbers = [] if line.noise is None else [line.noise.noise, line.noise.squared_gradient]
            if not all(map(math.isfinite, numbers)):
                yield "gradient noise is finite", {"line": str(line)}
        yield from self._slice_problems(self._source(kind.decode(), path, content), path, content)
        path.unlink(missing_ok=True)

    def _slice_problems(self, source: MetricSource, path: Path, content: bytes) -> Iterator[Problem]:
        """What the measurement of a slice holds that read these reports."""
        place = self.folder / f"probe-{self._number}"
        configuration = Configuration(nodes=1, batch_size=50, learning_rate=0.1, strategy="all_reduce")
        plan = SlicePlan(
            job=self._opened.job,
            job_folder=self.folder,
            configuration=configuration,
            purpose=Purpose.TRAINING,
            until=Until(steps=100),
            folder=place,
        )
        made = CommandSlice(plan=plan, folder=ProbeFolder(place), cluster=self._opened.cluster, started=0.0)
        handle = JobHandle(identity="fuzz", num_nodes=1, num_ranks=1, folder=place)
        made.submitted(handle, None, (source, None), 0.0)  # type: ignore[arg-type]
        path.write_bytes(content)
        made.hear(JobStatus(state=JobState.RUNNING), 0.5)
        made.hear(JobStatus(state=JobState.SUCCEEDED), 2.0)
        measurement = made.measurement(Outcome.PAUSED, 2.0)
        shutil.rmtree(place, ignore_errors=True)
        samples = [point.samples for point in measurement.curve]
        if samples != sorted(set(samples)):
            yield "a curve ascends", {"samples": samples}
        seconds = [measurement.training_seconds, measurement.scoring_seconds, measurement.startup_seconds]
        numbers = [*seconds, *(v for p in measurement.curve for v in (p.value, p.training_seconds))]
        if not all(map(math.isfinite, numbers)):
            yield "no score and no clock is NaN or infinite", {"measurement": str(measurement)[:500]}

    def _source(self, kind: str, path: Path, content: bytes) -> MetricSource:
        form = LineForm(metrics=MetricsSection(), batch_size=50, epoch_samples=1400)
        path.unlink(missing_ok=True)
        if kind == "json":
            return JsonSource(form, path)
        if kind == "csv":
            return CsvSource(form, path)
        pattern = r"step (?P<step>\S+) accuracy=(?P<value>\S+)"
        text = content.decode("utf-8", "replace")
        return OutputSource(form, pattern, lambda: {0: text})


def _short(value: Any) -> str:
    return "" if value is None else str(value)[:200_000] if not isinstance(value, int) else f"{value:d}"


class Recordings(Target):
    """Files of recorded runs."""

    name = "recording"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        header = {
            "recording": "small",
            "source": "made up",
            "metric": "accuracy",
            "direction": "maximize",
            "target": 0.9,
            "curve": ["seconds", "step", "value"],
            "machines": {"a": {"cores": 2, "dollars_per_hour": 0.5}},
            "startup_seconds": 1.5,
        }
        rows = [
            {
                "configuration": {"nodes": n, "machine": "a", "batch_size": 16, "learning_rate": 0.1 * n},
                "data_fraction": 1.0,
                "step_seconds": 0.25,
                "curve": [[1.0, 4, 0.3], [2.0, 8, 0.5 + 0.1 * n]],
            }
            for n in (1, 2, 3)
        ]
        self._tables: list[dict[str, Any]] = [header, *rows]
        self._number = 0

    def make(self, rng: random.Random) -> bytes:
        tables = list(self._tables)
        if rng.random() < 0.6:
            number = rng.randrange(len(tables))
            tables[number] = mutated_table(tables[number], rng)[0]
        data = "\n".join(json.dumps(table) for table in tables).encode()
        if rng.random() < 0.5:
            data = mutated_bytes(data, rng)
        if rng.random() < 0.3:
            data = gzip.compress(data, mtime=0)
            data = mutated_bytes(data, rng) if rng.random() < 0.7 else data
        return data

    def problems(self, data: bytes) -> Iterator[Problem]:
        self._number += 1
        path = self.folder / f"recording-{self._number}.jsonl"
        path.write_bytes(data)
        try:
            recording = load_recording(path)
        except JobError as error:
            if path.name not in str(error):
                yield "the message names the file", {"message": str(error)[:1000]}
            is_whole = "gzip" in str(error) or "UTF-8" in str(error) or "is empty" in str(error)
            if not is_whole and "line " not in str(error) and "no run" not in str(error):
                yield "the message names the line", {"message": str(error)[:1000]}
        else:
            numbers = [recording.target, *(n for run in recording.runs for n in run.curve.ravel().tolist())]
            if not all(map(math.isfinite, numbers)):
                yield "a recording holds finite numbers", {"recording": str(recording)[:500]}
        finally:
            path.unlink()


class Databases(Target):
    """Study databases in SQLite that were cut or garbled, through commands that read them."""

    name = "study database"
    weight = 1
    is_short = False
    _COMMANDS = (
        ("status",),
        ("trials",),
        ("explain", "0"),
        ("record", "--output", "out.jsonl.gz", "--force"),
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        shutil.copy(EXAMPLES / "digits.toml", folder / "job.toml")
        path = folder / "whole.db"
        opened = open_job(folder / "job.toml")
        with open_storage(f"sqlite:///{path}") as store:
            _fill(store.ledger, opened)
            store.optuna_storage()
        self._whole = path.read_bytes()
        self._number = 0

    def make(self, rng: random.Random) -> bytes:
        data = bytearray(self._whole)
        kind = rng.randrange(4)
        if kind == 0:
            return bytes(data[: rng.randrange(len(data))])
        if kind == 1:
            return mutated_bytes(bytes(data), rng)
        words = (
            b"paused",
            b"training",
            b"null",
            b'"',
            b"{",
            b"0.5",
            b"learning_rate",
            b"accuracy",
            b"digits",
        )
        for _ in range(rng.randint(1, 30)):
            place = rng.randrange(len(data))
            if kind == 2:
                found = data.find(rng.choice(words), place)
                place = found + rng.randrange(3) if found >= 0 else place
            data[min(place, len(data) - 1)] = rng.randrange(256)
        return bytes(data)

    def problems(self, data: bytes) -> Iterator[Problem]:
        self._number += 1
        path = self.folder / f"study-{self._number}.db"
        try:
            path.write_bytes(data)
            command = self._COMMANDS[self._number % len(self._COMMANDS)]
            url = f"sqlite:///{path.name}"
            code, _, err = call_cli(command[0], "job.toml", *command[1:], "--storage", url)
            facts = {"command": list(command), "exit_code": code, "stderr": err[-1000:]}
            # A study that cannot be found any more is no study: the garbled part was its name.
            if code not in (0, 2, 6) or "Traceback" in err:
                yield "a garbled database ends with the storage error", facts
            if code == 6 and path.name not in err:
                yield "the message names the database", facts
        finally:
            for file in self.folder.glob(f"{path.name}*"):
                file.unlink()


def _fill(ledger: Any, opened: Any) -> None:
    study = ledger.open_study(opened.job.name, opened.fingerprint, opened.job.model_dump(mode="json"))
    for number in range(4):
        configuration = Configuration(
            nodes=1, batch_size=8 * 2**number, learning_rate=0.01, strategy="all_reduce"
        )
        lease = ledger.start_probe(
            study.study_id,
            configuration,
            Purpose.TRAINING,
            trial_number=number,
            owner="nobody:1:1:a",
            lease_seconds=1.0,
        )
        for part in range(1, 4):
            point = CurvePoint(training_seconds=part, step=part * 10, samples=part * 100, value=0.2 * part)
            ledger.append_slice(
                lease,
                Measurement(
                    configuration=configuration,
                    purpose=Purpose.TRAINING,
                    outcome=Outcome.PAUSED,
                    curve=(point,),
                    step=part * 10,
                    samples=part * 100,
                    training_seconds=float(part),
                    charged_seconds=1.5,
                ),
            )
        ledger.release(lease)
        ledger.add_prediction(
            PredictionRecord(
                study_id=study.study_id,
                configuration=configuration,
                made_at=1.0,
                quantiles={0.05: 1.0, 0.5: 2.0, 0.95: 4.0},
                dollars={},
                probability_of_reaching=0.9,
                num_slices=3,
                seconds_known=3.0,
            )
        )


def call_cli(*arguments: str) -> tuple[int, str, str]:
    """Calls the command in this process: exit code, stdout, stderr. What it does not handle is raised."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cli.main(list(arguments))
        except SystemExit as ending:
            code = ending.code
    return (code if isinstance(code, int) else 1), out.getvalue(), err.getvalue()


TARGETS = (Jobs, Reports, Recordings, Databases)
