"""What is fed with random inputs, and what must hold for each: job files, reports, recordings, databases."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import random
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.soak_fuzz_databases import Databases
from benchmarks.soak_fuzz_files import HostileFiles
from benchmarks.soak_fuzz_guard import names_a_remedy
from benchmarks.soak_fuzz_reports import Reports
from benchmarks.soak_fuzz_target import EXAMPLES, Problem, Target, call_cli
from benchmarks.soak_mutations import mutated_bytes, mutated_table, toml_text, value_at
from tuner.domain.errors import JobError
from tuner.job import Job, load_job
from tuner.recordings.file import load_recording


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
        if not names_a_remedy(err):
            yield "the message names a remedy", message
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
            if not names_a_remedy(str(error)):
                yield "the message names a remedy", {"message": str(error)[:1000]}
            is_whole = "gzip" in str(error) or "UTF-8" in str(error) or "is empty" in str(error)
            if not is_whole and "line " not in str(error) and "no run" not in str(error):
                yield "the message names the line", {"message": str(error)[:1000]}
        else:
            numbers = [recording.target, *(n for run in recording.runs for n in run.curve.ravel().tolist())]
            if not all(map(math.isfinite, numbers)):
                yield "a recording holds finite numbers", {"recording": str(recording)[:500]}
        finally:
            path.unlink()


TARGETS = (Jobs, HostileFiles, Reports, Recordings, Databases)
