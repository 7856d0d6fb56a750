"""Timing probes of Pollux's table of steps, and what the product's model predicts from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.pollux_tables import Timings
from benchmarks.step_placements import all_reduce_steps, placements_of
from benchmarks.step_time import NOMINAL_BYTES, PARAMETER_BYTES, Timed, fit_product
from tuner.analytic.mixed_posterior import MixedPosterior
from tuner.analytic.step_rows import Steps

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class StepModel:
    """An app's steps as predicted from probes."""

    posterior: MixedPosterior

    def step_seconds(self, placements: Sequence[tuple[int, ...]], batch_sizes: Array) -> Array:
        """Seconds of a step at global batches, shared evenly by the GPUs, `(num,)`."""
        gpus = np.array([sum(placement) for placement in placements], dtype=float)
        return np.exp(self.posterior.predict(_steps(placements, batch_sizes / gpus).inputs())[0])


def draw_probes(timings: Timings, num_probes: int, max_nodes: int, rng: np.random.Generator) -> IntArray:
    """Rows of the table to probe: a quarter on one node, the rest anywhere up to `max_nodes`."""
    nodes = np.array([len(placement) for placement in timings.placements])
    few = rng.choice(np.flatnonzero(nodes == 1), num_probes // 4, replace=False)
    several = np.flatnonzero((nodes > 1) & (nodes <= max_nodes))
    return np.concatenate([few, rng.choice(several, num_probes - len(few), replace=False)])


def fit_steps(app: str, timings: Timings, probes: IntArray) -> StepModel:
    """The law fitted to some rows of an app's table."""
    steps = _steps([timings.placements[i] for i in probes], timings.local_batch_sizes[probes])
    probed = Timed(
        steps=steps,
        step_seconds=timings.step_seconds[probes],
        wait_seconds=timings.sync_seconds[probes],
    )
    posterior, _ = fit_product(probed, PARAMETER_BYTES.get(app, NOMINAL_BYTES))
    return StepModel(posterior=posterior)


def _steps(placements: Sequence[tuple[int, ...]], local: Array) -> Steps:
    return all_reduce_steps(placements_of(placements), local)
