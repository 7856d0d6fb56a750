"""Trainings that sleep instead of computing, so that seconds and scores at every step are known.

The scripts of this folder differ in how they report. What they report comes from here: a recipe gives the
seconds of a step and the score after any number of samples, with noise that depends on the seed alone. The
benchmark computes the truth from the same recipe, and checks it against direct runs.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

#: A file for the wall clock of a direct run; searches do not set it.
TRACE_VARIABLE = "OWN_SCRIPTS_TRACE"

#: Late scores stay near chance until about two thirds of the samples, and pass 98% of the rise at the end.
_LATE_CENTER, _LATE_STEEPNESS = 0.8, 20.0
#: A sigmoid rises from the start, and passes 95% of the rise at the end.
_SIGMOID_CENTER, _SIGMOID_STEEPNESS = 0.5, 7.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A pretended training.

    Args:
        epoch_samples: Size of the training set.
        step_seconds: Seconds of a step without its samples.
        sample_seconds: Seconds that each sample of a batch adds to a step.
        needed_samples: Samples that one unit of progress needs, for a very small batch and the best rate.
        noise_batch: Batch size that needs twice the samples of a very small one.
        best_rate: Best learning rate of a very large batch.
        rate_width: How far a rate may be from the best, as a difference of natural logarithms, until the
            samples grow by a factor of exp(0.5).
        shape: How the score follows progress.
        start: Score before training.
        best: Score that is approached; for `overfits`, that of a training that did not turn back.
        noise: Standard deviation of a score.
        digits: Decimals of a score.
        score_steps: Steps between two scores; 0 scores after each epoch.
        max_epochs: Where the script ends by itself.
    """

    epoch_samples: int
    step_seconds: float
    sample_seconds: float
    needed_samples: float
    noise_batch: float
    best_rate: float
    rate_width: float
    shape: Literal["early", "power", "late", "sigmoid", "overfits"]
    start: float
    best: float
    noise: float
    digits: int = 4
    score_steps: int = 0
    max_epochs: int = 200

    def epoch_steps(self, batch: int) -> int:
        """Steps of an epoch; the last batch may be smaller."""
        return -(-self.epoch_samples // batch)

    def samples(self, step: int, batch: int) -> int:
        """Samples seen after so many steps.

        A script that scores by steps takes full batches from a stream; the others train in epochs.
        """
        if self.score_steps:
            return step * batch
        epochs, steps = divmod(step, self.epoch_steps(batch))
        return epochs * self.epoch_samples + steps * batch

    def seconds(self, step: int, batch: int) -> float:
        """Training seconds of so many steps."""
        return step * self.step_seconds + self.samples(step, batch) * self.sample_seconds

    def progress(self, samples: float, batch: int, rate: float) -> float:
        """How far a training is; 1 is about where a useful target lies."""
        best_rate = self.best_rate / (1 + self.noise_batch / batch)
        distance = math.log(rate / best_rate) / self.rate_width
        return samples / self.needed_samples / (1 + batch / self.noise_batch) / math.exp(distance**2 / 2)

    def score(self, step: int, batch: int, rate: float, seed: int) -> float:
        """The score after so many steps, rounded as scripts print it."""
        samples = self.samples(step, batch)
        share = self.share(self.progress(samples, batch, rate))
        noise = random.Random(f"{seed} {batch} {rate:.4g} {samples}").gauss(0.0, self.noise)
        return round(self.start + (self.best - self.start) * share + noise, self.digits)

    def scores(self, batch: int, rate: float, seed: int) -> Iterator[Score]:
        """Every score of a training that runs to its end."""
        interval = self.score_steps or self.epoch_steps(batch)
        for step in range(interval, self.last_step(batch) + 1, interval):
            yield Score(
                step=step,
                samples=self.samples(step, batch),
                seconds=self.seconds(step, batch),
                value=self.score(step, batch, rate, seed),
            )

    def last_step(self, batch: int) -> int:
        """Where the script ends by itself."""
        return self.max_epochs * self.epoch_steps(batch)

    def share(self, progress: float) -> float:
        """The part of the rise from `start` to `best`."""
        if self.shape == "early":
            return 1 - math.exp(-2.5 * progress)
        if self.shape == "power":
            return 1 - math.pow(1 + 4 * progress, -1.2)
        if self.shape == "late":
            return 1 / (1 + math.exp(-_LATE_STEEPNESS * (progress - _LATE_CENTER)))
        if self.shape == "sigmoid":
            untrained = 1 / (1 + math.exp(_SIGMOID_STEEPNESS * _SIGMOID_CENTER))
            return 1 / (1 + math.exp(-_SIGMOID_STEEPNESS * (progress - _SIGMOID_CENTER))) - untrained
        return 1 - math.exp(-3 * progress) - 0.35 * max(progress - 0.8, 0.0)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score of a training.

    Args:
        step: Steps done.
        samples: Samples seen.
        seconds: Training seconds since the first step of the run.
        value: The score, as a fraction where a script prints percent.
    """

    step: int
    samples: int
    seconds: float
    value: float


RECIPES = {
    "epoch_line": Recipe(
        epoch_samples=2_000,
        step_seconds=0.012,
        sample_seconds=1e-4,
        needed_samples=16_000,
        noise_batch=90,
        best_rate=0.6,
        rate_width=1.3,
        shape="early",
        start=0.1,
        best=0.93,
        noise=0.003,
    ),
    "percent": Recipe(
        epoch_samples=2_400,
        step_seconds=0.010,
        sample_seconds=1.5e-4,
        needed_samples=14_000,
        noise_batch=70,
        best_rate=0.25,
        rate_width=1.2,
        shape="power",
        start=0.05,
        best=0.96,
        noise=0.002,
    ),
    "keras_fit": Recipe(
        epoch_samples=1_500,
        step_seconds=0.016,
        sample_seconds=8e-5,
        needed_samples=14_000,
        noise_batch=120,
        best_rate=0.02,
        rate_width=1.4,
        shape="late",
        start=0.1,
        best=0.9,
        noise=0.003,
    ),
    "progress_bar": Recipe(
        epoch_samples=5_000,
        step_seconds=0.014,
        sample_seconds=1.2e-4,
        needed_samples=12_000,
        noise_batch=60,
        best_rate=0.008,
        rate_width=1.2,
        shape="late",
        start=0.125,
        best=0.95,
        noise=0.003,
        score_steps=25,
    ),
    "csv_folders": Recipe(
        epoch_samples=1_800,
        step_seconds=0.011,
        sample_seconds=1.3e-4,
        needed_samples=18_000,
        noise_batch=100,
        best_rate=0.9,
        rate_width=1.3,
        shape="early",
        start=0.25,
        best=0.88,
        noise=0.003,
    ),
    "json_lines": Recipe(
        epoch_samples=6_000,
        step_seconds=0.015,
        sample_seconds=9e-5,
        needed_samples=16_000,
        noise_batch=50,
        best_rate=0.004,
        rate_width=1.1,
        shape="power",
        start=3.9,
        best=1.1,
        noise=0.01,
        score_steps=40,
    ),
    "step_in_epoch": Recipe(
        epoch_samples=1_920,
        step_seconds=0.013,
        sample_seconds=1e-4,
        needed_samples=17_000,
        noise_batch=110,
        best_rate=0.3,
        rate_width=1.2,
        shape="early",
        start=0.02,
        best=0.85,
        noise=0.003,
    ),
    "epoch_seconds": Recipe(
        epoch_samples=2_200,
        step_seconds=0.012,
        sample_seconds=1.1e-4,
        needed_samples=15_000,
        noise_batch=80,
        best_rate=0.5,
        rate_width=1.4,
        shape="power",
        start=0.3,
        best=0.99,
        noise=0.002,
    ),
    "plateau": Recipe(
        epoch_samples=1_600,
        step_seconds=0.012,
        sample_seconds=1e-4,
        needed_samples=9_000,
        noise_batch=90,
        best_rate=0.4,
        rate_width=1.5,
        shape="early",
        start=0.1,
        best=0.71,
        noise=0.003,
    ),
    "overfits": Recipe(
        epoch_samples=4_000,
        step_seconds=0.013,
        sample_seconds=1.2e-4,
        needed_samples=9_000,
        noise_batch=70,
        best_rate=0.006,
        rate_width=1.3,
        shape="overfits",
        start=4.2,
        best=1.4,
        noise=0.01,
        score_steps=30,
    ),
}


class Training:
    """A pretended training in real time.

    Args:
        name: Its recipe.
        batch: Batch size.
        rate: Learning rate.
        seed: Seed of the noise.
        step: Steps that a checkpoint holds.
    """

    def __init__(self, name: str, *, batch: int, rate: float, seed: int, step: int = 0) -> None:
        self.recipe = RECIPES[name]
        self.step = step
        self._batch, self._rate, self._seed = batch, rate, seed
        self._zero = 0.0

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return self.recipe.epoch_steps(self._batch)

    @property
    def last_step(self) -> int:
        """Where the script ends by itself."""
        return self.recipe.last_step(self._batch)

    def advance(self) -> None:
        """Makes a step; sleeps until a clock without delays shows its end."""
        if not self._zero:
            self._zero = time.monotonic() - self.recipe.seconds(self.step, self._batch)
            self._trace(None)
        self.step += 1
        end = self._zero + self.recipe.seconds(self.step, self._batch)
        time.sleep(max(end - time.monotonic(), 0.0))

    def score(self) -> float:
        """The score now, which takes no time."""
        value = self.recipe.score(self.step, self._batch, self._rate, self._seed)
        self._trace(value)
        return value

    def _trace(self, value: float | None) -> None:
        path = os.environ.get(TRACE_VARIABLE)
        if path:
            with open(path, "a") as file:  # noqa: PTH123
                file.write(json.dumps({"step": self.step, "value": value, "time": time.monotonic()}) + "\n")
