"""Damaged study databases as a target of fuzzing."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.soak_fuzz_target import EXAMPLES, Problem, Target, call_cli
from benchmarks.soak_mutations import mutated_bytes
from search_spaces import Configuration
from storage import open_storage
from tuner.domain.ledger import PredictionRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.service.opening import open_job


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
        ledger.add_predictions(
            [
                PredictionRecord(
                    study_id=study.study_id,
                    configuration=configuration,
                    created_at=1.0,
                    quantiles={0.05: 1.0, 0.5: 2.0, 0.95: 4.0},
                    dollars={},
                    probability_of_reaching=0.9,
                    num_slices=3,
                    seconds_observed=3.0,
                )
            ]
        )
