"""Reports of scripts as a target of fuzzing."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.soak_fuzz_target import EXAMPLES, Problem, Target
from benchmarks.soak_mutations import ODD_VALUES, mutated_bytes
from search_spaces import Configuration
from tuner.domain.measurement import Outcome, Purpose
from tuner.job import MetricsSection
from tuner.launchers import JobHandle, JobState, JobStatus, LogFile
from tuner.probes import Until
from tuner.probes.commands.csv_source import CsvSource
from tuner.probes.commands.json_source import JsonSource
from tuner.probes.commands.metric_source import MetricSource
from tuner.probes.commands.output_source import OutputSource
from tuner.probes.commands.progress_line import LineForm
from tuner.probes.commands.run_clock import ReadPoint
from tuner.probes.commands.slice import CommandSlice
from tuner.probes.commands.task import CommandPlan
from tuner.probes.probe_folder import ProbeFolder
from tuner.probes.slice_plan import SlicePlan
from tuner.service.opening import open_job

_LARGEST = 2**63


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
        source = self._source(kind.decode(), path)
        part = len(content) // 2
        path.write_bytes(content[:part])
        lines = source.read(0.0, has_ended=False)
        path.write_bytes(content)
        lines += source.read(1.0, has_ended=True)
        path.unlink()
        for line in lines:
            if not all(
                0 <= place < _LARGEST for place in (line.step or 0, line.samples or 0, line.epoch or 0)
            ):
                yield "a report's place is a count", {"line": str(line)}
            if line.seconds is not None and not math.isfinite(line.seconds):
                yield "a report's clock is finite", {"line": str(line)}
            numbers = [] if line.noise is None else [line.noise.noise, line.noise.squared_gradient]
            if not all(map(math.isfinite, numbers)):
                yield "gradient noise is finite", {"line": str(line)}
        yield from self._slice_problems(self._source(kind.decode(), path), path, content)
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
        attempt = CommandPlan(plan=plan, known=ReadPoint(), folder=place / "slice", resumes=False)
        made.submitted(handle, attempt, (source, None), 0.0)
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

    def _source(self, kind: str, path: Path) -> MetricSource:
        form = LineForm(metrics=MetricsSection())
        path.unlink(missing_ok=True)
        if kind == "json":
            return JsonSource(form, path)
        if kind == "csv":
            return CsvSource(form, [str(path)])
        pattern = r"step (?P<step>\S+) accuracy=(?P<value>\S+)"
        return OutputSource(form, [pattern], lambda: {0: LogFile(path=path)})


def _short(value: Any) -> str:
    return "" if value is None else str(value)[:200_000] if not isinstance(value, int) else f"{value:d}"
