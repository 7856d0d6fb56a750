"""Measurements made from known laws, seeded, for the models to learn from."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.rate_edge import RunEvidence
from tuner.analytic.samples_model import RatePrior
from tuner.domain.measurement import Measurement, Outcome, Purpose, RankTiming, Spread

Array = npt.NDArray[np.float64]

#: The recovered law: shared shape with a power tail.
HEIGHT, TAIL = 1.12, 0.8


def configuration(nodes: int = 1, batch_size: int = 64, learning_rate: float = 0.1) -> Configuration:
    """An all-reduce configuration."""
    return Configuration(
        nodes=nodes, batch_size=batch_size, learning_rate=learning_rate, strategy="all_reduce"
    )


def timed(what: Configuration, step_seconds: float, *, count: int = 40, cv: float = 0.1) -> Measurement:
    """A timing probe whose steps took so long."""
    spread = Spread(
        median=step_seconds,
        p10=0.9 * step_seconds,
        p90=1.1 * step_seconds,
        mean=step_seconds,
        std=cv * step_seconds,
        count=count,
    )
    nothing = Spread(median=0.0, p10=0.0, p90=0.0, mean=0.0, std=0.0, count=count)
    ranks = tuple(
        RankTiming(
            rank=rank,
            batch_size=math.ceil(what.batch_size / what.nodes),
            compute=spread,
            sync=nothing,
            input=nothing,
            step=spread,
        )
        for rank in range(what.nodes)
    )
    return Measurement(configuration=what, purpose=Purpose.TIMING, outcome=Outcome.STOPPED, ranks=ranks)


def progress_at(samples: Array, samples_to_target: float) -> Array:
    """Progress of a curve that reaches the target at `samples_to_target`, from `fit_curves`' own form."""
    inner = (1.0 - 1.0 / HEIGHT) ** (-1.0 / TAIL) - 1.0
    return np.asarray(HEIGHT * (1.0 - (1.0 + inner * samples / samples_to_target) ** -TAIL), dtype=float)


def run(
    what: Configuration,
    samples_to_target: float,
    *,
    share: float = 0.5,
    noise: float = 0.008,
    seed: int = 0,
    arrived: bool = False,
) -> RunEvidence:
    """What a run showed up to a share of its samples to target."""
    rng = np.random.default_rng(seed)
    samples = np.geomspace(0.02 * samples_to_target, share * samples_to_target, 18)
    progress = progress_at(samples, samples_to_target) + noise * rng.standard_normal(len(samples))
    return RunEvidence(
        configuration=what,
        samples=samples,
        progress=progress,
        samples_to_target=samples_to_target if arrived else None,
    )


def stuck(what: Configuration, samples: float = 5_000.0) -> RunEvidence:
    """A run that never left its start."""
    seen = np.geomspace(500.0, samples, 8)
    return RunEvidence(configuration=what, samples=seen, progress=np.full(8, 0.005))


def diverged(what: Configuration) -> RunEvidence:
    """A run that stopped being finite before its first scoring."""
    return RunEvidence(configuration=what, samples=np.zeros(0), progress=np.zeros(0), diverged=True)


def rate_prior(
    log_rate: float = math.log(0.01), *, largest_batch_size: float = 256.0, exponent: float = 1.0
) -> RatePrior:
    """Beliefs around a user's rate at batch 64."""
    return RatePrior(
        log_rate=log_rate,
        sd=1.6,
        batch_size=64.0,
        exponent=exponent,
        largest_batch_size=largest_batch_size,
        epoch_samples=20_000.0,
    )
