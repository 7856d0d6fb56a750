"""A trainer that Paceline cannot start: it asks a server for work. It needs only Python's standard library.

The training is made up: the accuracy follows a formula with noise, and one step takes a few milliseconds.

    PACELINE_TOKEN=... python remote_trainer.py http://127.0.0.1:8080 [JOB]
"""

import json
import math
import random
import sys
import time
from pathlib import Path

import paceline_client
import paceline_remote


class Training:
    """A made-up training. Its state is the number of samples processed."""

    def __init__(self, batch_size: int, learning_rate: float) -> None:
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.samples = 0

    def step(self) -> None:
        """Trains on one batch."""
        time.sleep(0.002 + 2e-5 * self.batch_size)
        self.samples += self.batch_size

    def accuracy(self) -> float:
        """Evaluates the model: larger batches need more samples, and one learning rate is best."""
        scale = 4000.0 * (1.0 + self.batch_size / 256) * (1.0 + math.log(self.learning_rate / 0.1) ** 2)
        return 1.0 - 0.9 * math.exp(-self.samples / scale) + random.gauss(0.0, 0.002)


def train(work: paceline_remote.Slice, folder: Path) -> None:
    """Trains one slice, from its checkpoint on if it has one."""
    training = Training(work.values["batch_size"], work.values["learning_rate"])
    if work.checkpoint is not None:
        training.samples = json.loads(Path(work.checkpoint).read_text())
    checkpoint = folder / f"{work.run}.json"
    work.begin(samples=training.samples)
    num_steps = 0
    while True:
        training.step()
        num_steps += 1
        accuracy = training.accuracy() if num_steps % 20 == 0 else None
        goes_on = work.report(samples=training.samples, value=accuracy)
        if accuracy is not None or not goes_on:
            checkpoint.write_text(json.dumps(training.samples))
        if not goes_on:
            work.finish(checkpoint=str(checkpoint.resolve()))
            return
        if accuracy is not None:
            work.saved(str(checkpoint.resolve()))


def main() -> None:
    """Works for a study until its search has ended."""
    server = paceline_client.connect(sys.argv[1])
    here = Path(__file__).parent
    study = server.study(int(sys.argv[2])) if len(sys.argv) > 2 else server.open(here / "remote_trainer.toml")
    print(f"job {study.job_id}", flush=True)
    for work in study.slices():
        try:
            train(work, Path())
        except Exception as error:
            work.fail(repr(error))
    print(study.state, study.reason)
    if study.recommendation is not None:
        print(study.recommendation["choice"]["configuration"])


if __name__ == "__main__":
    main()
