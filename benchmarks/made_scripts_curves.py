"""Made training scripts with known learning curves."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from benchmarks.own_scripts_jobs.pretended import Recipe
from search_spaces import Configuration
from tuner.job import Job
from tuner.probes.recorded import DIVERGED_END
from tuner.recordings.recording import RecordedRun, Recording

Array = npt.NDArray[np.float64]
Shape = Literal["early", "power", "late", "sigmoid", "overfits", "plateau"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
BATCH_SIZES = (16, 32, 64, 128, 256, 512)
LEARNING_RATES = (0.001, 0.00316, 0.01, 0.0316, 0.1, 0.316, 1.0)
BASELINE = Configuration(nodes=1, batch_size=32, learning_rate=0.01, strategy="all_reduce")
#: A job may spend so many times the training seconds of its best configuration.
BUDGET_TRAININGS = 30.0
#: Standard deviation of the logarithm of a configuration's own bend of the curve.
_BEND_SD = 0.1
#: A target that is not to be reached lies at least so many standard deviations of a score above the best.
_CLEAR_OF_NOISE = 6.0
#: Of short scripts: seconds of the present settings over the best, start-up over the best training, how many
#: trainings the answer serves, and how many of the first shapes they have, those whose target is reached.
_SLOWER, _LONG_STARTUP, SHORT_TRAININGS, _NUM_REACHED = (5.0, 50.0), (1.0, 5.0), 20, 4
#: Standard deviation of a step's seconds, over their mean.
_STEP_SPREAD = 0.1


def configurations() -> list[Configuration]:
    """All that a job may choose: one node, six batch sizes, seven learning rates."""
    pairs = itertools.product(BATCH_SIZES, LEARNING_RATES)
    return [BASELINE.replaced(batch_size=batch, learning_rate=rate) for batch, rate in pairs]


@dataclass(frozen=True, kw_only=True)
class MadeScript:
    """A script whose accuracy after any number of samples is known.

    Accuracy follows `recipe`, but each configuration bends the curve a little: progress p counts as p^bend,
    log(bend) being normal. So configurations do not share one curve exactly, and real ones do not either.

    Args:
        seed: Of the bends and of the noise.
        shape: The curve's: that of the recipe, or `plateau`, which levels off below the target.
        recipe: Seconds of a step and the curve. The script ends by itself after its `max_epochs`.
        scores_per_epoch: Scores an epoch, evenly by samples.
        edge_rate: Largest learning rate that trains. With a larger one the run ends as diverged, with a first
            score at the chance level.
        target: Accuracy that is searched for.
        startup_share: Start-up of each slice, over the training seconds of the best configuration.
        resumes: Whether the script resumes from a checkpoint. Otherwise each slice starts the run over.
        baseline: The user's present settings.
        trainings: How many trainings the answer serves.
    """

    seed: int
    shape: Shape
    recipe: Recipe
    scores_per_epoch: int
    edge_rate: float
    target: float
    startup_share: float
    resumes: bool
    baseline: Configuration = BASELINE
    trainings: int = 1

    @cached_property
    def recording(self) -> Recording:
        """The runs of all configurations, without start-up."""
        return Recording(
            name=f"made {self.seed}",
            metric="accuracy",
            maximize=True,
            target=self.target,
            runs=tuple(map(self.run, configurations())),
        )

    def run(self, configuration: Configuration) -> RecordedRun:
        """A training until it reaches the target, diverges or the script ends."""
        recipe, batch = self.recipe, configuration.batch_size
        step_seconds = recipe.step_seconds + recipe.sample_seconds * batch
        num = recipe.max_epochs * self.scores_per_epoch
        samples: Array = recipe.epoch_samples * np.arange(1.0, num + 1.0) / self.scores_per_epoch
        values = self.values(configuration, samples)
        end: str | None = "end of the script"
        past = np.flatnonzero(values >= self.target)
        if configuration.learning_rate > self.edge_rate:
            values, end = np.array([recipe.start]), DIVERGED_END
        elif len(past):
            values, end = values[: past[0] + 1], None
        steps = samples[: len(values)] / batch
        seconds = steps * step_seconds
        return RecordedRun(
            configuration=configuration,
            step_seconds=step_seconds,
            curve=np.stack([seconds, steps, values], axis=1),
            end=end,
            seconds_std=_STEP_SPREAD * float(seconds[-1]),
        )

    def progress(self, configuration: Configuration, samples: Array) -> Array:
        """Progress after so many samples, `(num,)`; see `Recipe.progress`."""
        return samples * self.recipe.progress(1.0, configuration.batch_size, configuration.learning_rate)

    def values(self, configuration: Configuration, samples: Array) -> Array:
        """Accuracy after so many samples, `(num,)`; the noise is by position."""
        recipe, rate = self.recipe, round(1e6 * configuration.learning_rate)
        rng = np.random.default_rng([self.seed, configuration.batch_size, rate])
        bent = self.progress(configuration, samples) ** math.exp(_BEND_SD * rng.standard_normal())
        share = np.array([recipe.share(progress) for progress in bent])
        values = recipe.start + (recipe.best - recipe.start) * share
        values += recipe.noise * rng.standard_normal(len(samples))
        return np.asarray(np.round(np.clip(values, 0.0, 1.0), recipe.digits))

    def seconds_to_target(self, configuration: Configuration) -> float:
        """Training seconds to the first score at the target; infinite if there is none."""
        run = self.recording.run(configuration)
        return run.seconds if run.end is None else math.inf

    @cached_property
    def best_seconds(self) -> float:
        """Training seconds to target of the best configuration; infinite if none reaches it."""
        return min(map(self.seconds_to_target, configurations()))

    @cached_property
    def unit_seconds(self) -> float:
        """`best_seconds`, or the seconds of the fastest unit of progress if nothing reaches the target."""
        if self.best_seconds < math.inf:
            return self.best_seconds
        steady = [c for c in configurations() if c.learning_rate <= self.edge_rate]
        steps = [1.0 / float(self.progress(c, np.array(float(c.batch_size)))) for c in steady]
        return min(n * self.recording.run(c).step_seconds for n, c in zip(steps, steady, strict=True))

    @property
    def budget_seconds(self) -> float:
        """What the job may spend: many times the best training, or the start-up if that takes longer."""
        return BUDGET_TRAININGS * max(self.unit_seconds, self.startup_seconds)

    @property
    def startup_seconds(self) -> float:
        """Charged for each slice."""
        return self.startup_share * self.unit_seconds

    def job(self) -> Job:
        """The job file that a user would write."""
        resume = {"resume": "--resume {checkpoint}"} if self.resumes else {}
        command, size = "train.py {batch_size} {learning_rate}", self.recipe.epoch_samples
        return Job.model_validate(
            {
                "workload": {"command": command, "epoch_samples": size, **resume},
                "goal": {"metric": "accuracy", "target": self.target, "trainings": self.trainings},
                "space": {"batch_size": list(BATCH_SIZES), "learning_rate": list(LEARNING_RATES)},
                "baseline": {name: self.baseline[name] for name in ("nodes", "batch_size", "learning_rate")},
                "budget": {"time": f"{self.budget_seconds:.6f}s"},
            }
        )


def made_script(seed: int) -> MadeScript:
    """A random script; shapes take turns by seed.

    Sizes and noise are log-uniform. Nothing reaches the target of `plateau`, nor of about half of `overfits`.
    """
    rng = np.random.default_rng([77, seed])

    def between(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    shape = SHAPES[seed % len(SHAPES)]
    start, top = float(rng.choice([0.5, 0.1, 0.1, 0.01, 0.001])), float(rng.uniform(0.5, 0.85))
    epoch_samples, sample_seconds = round(between(1e3, 5e4)), between(2e-5, 2e-3)
    noise = between(1e-3, 1.2e-2)
    recipe = Recipe(
        epoch_samples=epoch_samples,
        step_seconds=sample_seconds * between(3, 200),
        sample_seconds=sample_seconds,
        needed_samples=epoch_samples * between(2, 40),
        noise_batch=between(30, 2_000),
        best_rate=between(0.02, 0.6),
        rate_width=float(rng.uniform(0.9, 2.0)),
        shape="early" if shape == "plateau" else shape,
        start=start,
        best=start + (1 - start) * (top if shape == "plateau" else 1.0),
        noise=(1 - start) * noise,
        max_epochs=400,
    )
    aim = float(rng.uniform(0.75, 0.95))
    if shape == "plateau":
        aim = top + max(between(0.03, 0.13), _CLEAR_OF_NOISE * noise)
    elif shape == "overfits":
        peak = max(map(recipe.share, np.linspace(0.0, 2.0, 401)))
        aim = 0.95 * peak if rng.random() < 0.5 else peak + max(0.08 * peak, _CLEAR_OF_NOISE * noise)
    return MadeScript(
        seed=seed,
        shape=shape,
        recipe=recipe,
        scores_per_epoch=int(rng.choice([1, 1, 1, 4])),
        edge_rate=between(0.3, 3.0),
        target=round(start + (1 - start) * aim, 4),
        startup_share=between(0.003, 0.2),
        resumes=bool(rng.random() < 0.5),
    )


def short_script(seed: int) -> MadeScript:
    """A script whose start-up takes longer than its best training, with present settings far from the best.

    It has the curve of a `made_script` that reaches its target, and scores more often. The baseline is one of
    the configurations that need 5 to 50 times the best training's seconds. The answer serves 20 trainings.
    """
    rng = np.random.default_rng([78, seed])
    while True:
        made = made_script(int(rng.integers(1_000, 1_000_000)) * len(SHAPES) + seed % _NUM_REACHED)
        script = replace(
            made,
            scores_per_epoch=int(rng.choice([1, 4, 16])),
            startup_share=float(np.exp(rng.uniform(*np.log(_LONG_STARTUP)))),
            trainings=SHORT_TRAININGS,
        )
        slower = np.array([script.seconds_to_target(c) for c in configurations()]) / script.best_seconds
        far = np.flatnonzero((slower >= _SLOWER[0]) & (slower <= _SLOWER[1]))
        if len(far):
            return replace(script, baseline=configurations()[int(rng.choice(far))])
