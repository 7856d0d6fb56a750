"""The law of samples to target, and what it takes of a configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.disagreement import FAMILIES, disagreement_columns, prior_means
from tuner.analytic.laws import log_best_rate, log_samples_at_best_rate, rate_penalty
from tuner.analytic.regression import Parameter, Residual
from tuner.analytic.strategy_encoding import (
    NUM_STRATEGIES,
    STRATEGY_LENGTH,
    Setup,
    setup_of,
    strategy_columns,
)

Array = npt.NDArray[np.float64]

#: Unknown of every strategy but all-reduce: how its best rate differs where ranks step apart.
APART = Parameter(name="log best rate of ranks apart over all-reduce's", mean=0.0, sd=0.5)
#: e-folds of disagreement over which runs of one strategy stay alike: between one and a hundred ranks there
#: are one (gossip) to five (elastic averaging).
_DISAGREEMENT_LENGTH = 4.0
_NUM_DISAGREEMENTS = len(FAMILIES) + 1
#: Over `samples_inputs`.
RESIDUAL = Residual(
    sd=0.25,
    length_scales=(
        1.4,
        1.0,
        *[_DISAGREEMENT_LENGTH] * (1 + _NUM_DISAGREEMENTS),
        *[STRATEGY_LENGTH] * NUM_STRATEGIES,
    ),
)


def _setup(configuration: Configuration, devices_per_node: int) -> Setup:
    return setup_of(configuration, configuration.nodes * devices_per_node)


def staleness(configurations: Sequence[Configuration], devices_per_node: int) -> Array:
    """log p of configurations whose ranks do not wait for each other, else 0, `(num,)`."""
    setups = [_setup(c, devices_per_node) for c in configurations]
    return np.array([0.0 if s.traits.barrier else math.log(s.num_ranks) for s in setups], dtype=float)


def counted_batch(configuration: Configuration, devices_per_node: int) -> float:
    """The batch that statistics depend on: the global one, or a rank's where each one's step is applied."""
    setup = _setup(configuration, devices_per_node)
    ranks = setup.num_ranks if setup.traits.counted_batch == "rank" else 1
    return configuration.batch_size / ranks


def samples_inputs(configurations: Sequence[Configuration], devices_per_node: int) -> Array:
    """What the law and its residual take of configurations, `(num, num_features)`.

    Log counted batch, log rate, share of ranks apart (1 - 1/p), disagreements, and the strategies' columns.
    """
    setups = [_setup(c, devices_per_node) for c in configurations]
    rows = [
        (
            math.log(counted_batch(c, devices_per_node)),
            math.log(c.learning_rate),
            1.0 - 1.0 / setup.num_ranks if setup.traits.exchanged == "parameters" else 0.0,
            *disagreement_columns(setup, c),
        )
        for c, setup in zip(configurations, setups, strict=True)
    ]
    axes = np.array(rows, dtype=float).reshape(-1, 3 + _NUM_DISAGREEMENTS)
    return np.concatenate([axes, strategy_columns(setups)], axis=1)


def log_samples_law(theta: Array, inputs: Array, exponent: float, columns: Sequence[int]) -> Array:
    """Logarithm of samples to target: the basin in rate and batch, and what strategies add to it.

    Args:
        theta: The basin's six unknowns; with strategies beside all-reduce, how much higher the best rate of
            ranks apart is, and then the factor of each of `columns`.
        inputs: As `samples_inputs` gives them.
        exponent: How the best rate follows the batch.
        columns: Disagreement columns whose factor is in theta; others keep their prior mean.
    """
    log_samples, log_noise_scale, log_rate, log_below, log_above, log_width = theta[:6]
    noise_scale, batch = float(np.exp(log_noise_scale)), np.exp(inputs[:, 0])
    best = log_best_rate(batch, log_rate=log_rate, noise_scale=noise_scale, exponent=exponent)
    if len(theta) > 6:
        best = best + inputs[:, 2] * theta[6]
    penalty = rate_penalty(
        inputs[:, 1] - best,
        slope_below=float(np.exp(log_below)),
        slope_above=float(np.exp(log_above)),
        width=float(np.exp(log_width)),
    )
    floor = log_samples_at_best_rate(batch, log_samples=log_samples, noise_scale=noise_scale)
    factors = np.array(prior_means())
    factors[list(columns)] = theta[7:]
    return np.asarray(floor + penalty + inputs[:, 3 : 3 + _NUM_DISAGREEMENTS] @ factors, dtype=float)
