"""Samples to target for any batch size, learning rate and strategy, learnt from curves of unfinished runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from search_spaces import Configuration
from tuner.analytic.curve_template import PRIOR
from tuner.analytic.laws import Array, log_best_rate, log_samples_at_best_rate, rate_penalty
from tuner.analytic.learning_curve import Arrivals, extrapolate
from tuner.analytic.mixed_posterior import MixedPosterior, PastLaw, fit_mixed
from tuner.analytic.noise_growth import (
    GROWTH,
    UNKNOWNS,
    log_measured_scale,
    noise_places,
    whole_run_scale,
)
from tuner.analytic.quasi_random import correlated, shuffled_normals
from tuner.analytic.rate_edge import RateEdge, RunEvidence, broke_down, fit_rate_edge
from tuner.analytic.regression import Parameter, Residual
from tuner.analytic.slopes import normal_log_density
from tuner.analytic.strategy_encoding import (
    NUM_STRATEGIES,
    STRATEGY_LENGTH,
    Setup,
    exchanges_asynchronously,
    setup_of,
    strategy_columns,
)
from tuner.analytic.strategy_laws import COST_PARAMETERS, disagreement_columns, disagreement_parameters

#: Unknown of every strategy but all-reduce: how its best rate differs if ranks step asynchronously.
ASYNCHRONOUS = Parameter(name="log best rate of ranks apart over all-reduce's", mean=0.0, sd=0.5)
#: e-folds of disagreement over which runs of one strategy stay alike: between one and a hundred ranks there
#: are one (gossip) to five (elastic averaging).
_DISAGREEMENT_LENGTH = 4.0
#: Lengths of columns over which residuals stay alike, and over which they have nothing in common.
_ANYHOW, _ASYNCHRONOUS = 1e6, 1e-2
_NUM_DISAGREEMENTS = len(COST_PARAMETERS)
#: Unknowns of the law besides those of strategies, and the column of `samples_inputs` that says whether a
#: configuration states a learning rate.
_NUM_BASIN, _HAS_RATE = 7, 3 + _NUM_DISAGREEMENTS + NUM_STRATEGIES
#: Over `samples_inputs`.
RESIDUAL = Residual(
    sd=0.25,
    length_scales=(
        1.4,
        1.0,
        *[_DISAGREEMENT_LENGTH] * (1 + _NUM_DISAGREEMENTS),
        *[STRATEGY_LENGTH] * NUM_STRATEGIES,
        _ANYHOW,
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
    """Features of configurations for the law and its residual, `(num, num_features)`.

    Log counted batch, log rate, asynchronous share (1 - 1/p), disagreements, the strategies' columns, and 1
    where there is a learning rate. A configuration without one trains at the rate that its script chooses for
    the batch, which counts as the best.
    """
    setups = [_setup(c, devices_per_node) for c in configurations]
    rows = [
        (
            math.log(counted_batch(c, devices_per_node)),
            math.log(c.learning_rate),  # 0 without a rate
            1.0 - 1.0 / setup.num_ranks if setup.traits.exchanged == "parameters" else 0.0,
            *disagreement_columns(setup),
        )
        for c, setup in zip(configurations, setups, strict=True)
    ]
    axes = np.array(rows, dtype=float).reshape(-1, 3 + _NUM_DISAGREEMENTS)
    has_rate = np.array([[float("learning_rate" in c)] for c in configurations]).reshape(-1, 1)
    return np.concatenate([axes, strategy_columns(setups), has_rate], axis=1)


def log_samples_law(theta: Array, inputs: Array, exponent: float, columns: Sequence[int]) -> Array:
    """Logarithm of samples to target: the U in the batch, the basin in the rate, and what strategies add.

    Args:
        theta: The seven unknowns of `_parameters`; with strategies besides all-reduce, how much higher the
            best rate of asynchronous ranks is, and then the factor of each of `columns`. Either
            `(num_parameters,)` or `(num_parameters, num, 1)`.
        inputs: As `samples_inputs` gives them, `(num_points, num_features)`.
        exponent: How the best rate follows the batch.
        columns: Disagreement columns whose factor is in theta; others keep their prior mean.

    Returns:
        `(num_points,)`, or `(num, num_points)` for many values of theta.
    """
    log_samples, log_noise_scale, log_rate, log_below, log_above, log_width, log_floor = theta[:_NUM_BASIN]
    noise_scale, batch = np.exp(log_noise_scale), np.exp(inputs[:, 0])
    best = log_best_rate(batch, log_rate=log_rate, noise_scale=noise_scale, exponent=exponent)
    if len(theta) > _NUM_BASIN:
        best = best + inputs[:, 2] * theta[_NUM_BASIN]
    penalty = rate_penalty(
        inputs[:, 1] - best,
        slope_below=np.exp(log_below),
        slope_above=np.exp(log_above),
        width=np.exp(log_width),
    )
    found = log_samples_at_best_rate(
        batch, log_samples=log_samples, noise_scale=noise_scale, noise_floor=np.exp(log_floor)
    )
    found = found + penalty * inputs[:, _HAS_RATE]
    disagreements = inputs[:, 3 : 3 + _NUM_DISAGREEMENTS]
    factors = np.array([cost.mean for cost in COST_PARAMETERS])
    factors[list(columns)] = 0.0
    found = found + disagreements @ factors
    for factor, column in zip(theta[_NUM_BASIN + 1 :], columns, strict=True):
        found = found + factor * disagreements[:, column]
    return np.asarray(found, dtype=float)


#: Two runs of one configuration differ by this much in log samples to target (seeds, data order).
SEED_SD = 0.10
#: Real ranks of one configuration may need more or fewer samples than emulated ones.
_BIAS = Parameter(name="log bias of emulated samples", mean=0.0, sd=0.1)
#: The same where no run states a rate: at their best rates samples follow the batch more closely.
_BATCH_RESIDUAL_SD = 0.1
#: Spread of the noise scale around the largest batch of the space, where no gradients were measured.
_SCALE_SD = 1.3
#: Name of the noise floor, and its prior over the batch that the prior's rate belongs to: there it adds 0.1%.
NOISE_FLOOR = "log noise floor"
_FLOOR_OVER_BATCH, _FLOOR_SD = 1 / 32, 1.5
#: Prior of the noise scale if gradients determine it: very wide.
_ANY_SCALE_SD = 3.0


@dataclass(frozen=True, kw_only=True)
class RatePrior:
    """Prior knowledge of learning rates.

    Args:
        log_rate: Logarithm of a plausible rate at `batch_size`: the user's own, or the space's middle.
        sd: Its standard deviation.
        batch_size: The batch it belongs to.
        exponent: How the best rate follows the batch: 1 for SGD, 1/2 for Adam.
        epoch_samples: Size of the training set, samples.
        largest_batch_size: The largest batch that may be chosen.
    """

    log_rate: float
    sd: float
    batch_size: float
    exponent: float
    epoch_samples: float
    largest_batch_size: float


@dataclass(frozen=True, kw_only=True)
class SamplesModel:
    """The posterior of samples to target.

    Args:
        posterior: Of the logarithm of samples to target, over (log counted batch, log rate, asynchronous
            share, disagreements, strategy, emulated), and of the logarithm of measured noise scales.
        arrivals: Every run's extrapolation.
        reported: Which run each of the posterior's first observations is; noise scales come behind them.
        edge: Rates at which training may break down.
        devices_per_node: Ranks on one node.
    """

    posterior: MixedPosterior
    arrivals: Arrivals
    reported: tuple[int, ...]
    edge: RateEdge
    devices_per_node: int = 1

    def log_samples(
        self, configurations: Sequence[Configuration], runs: Sequence[int | None] | None = None
    ) -> tuple[Array, Array]:
        """Mean `(num,)` and covariance `(num, num)` of the logarithm of samples to target.

        What all runs' extrapolations have in common (`Arrivals.common`) comes on top.

        Args:
            configurations: What to predict.
            runs: For each, the run that is meant, or None for one that was not started; none were, if absent.
        """
        places = {run: place for place, run in enumerate(self.reported)}
        runs = [None] * len(configurations) if runs is None else runs
        observed = np.array([places.get(run, -1) if run is not None else -1 for run in runs], dtype=np.intp)
        inputs = _inputs(configurations, self.devices_per_node, [False] * len(configurations))
        return self.posterior.predict(inputs, observed=observed, own_variance=SEED_SD**2)

    def log_samples_draws(
        self, kinds: Sequence[Configuration], runs: Sequence[int | None], rng: np.random.Generator
    ) -> Array:
        """Joint draws of log samples to target, `(NUM_DRAWS, num_kinds)`.

        Args:
            kinds: What to predict.
            runs: As for `log_samples`.
            rng: Of the draws.
        """
        mean, covariance = self.log_samples(kinds, runs)
        new = np.array([run is None for run in runs])
        draws = mean + correlated(covariance, shuffled_normals(rng, len(kinds)))
        draws += self.arrivals.common[:, None] + SEED_SD * new * shuffled_normals(rng, len(kinds))
        return np.asarray(draws, dtype=float)

    def left_out_log_densities(self) -> dict[int, float]:
        """Log density of each run's samples to target as the others predict it, by the run's place."""
        found = []
        for part, weight in zip(self.posterior.parts, self.posterior.weights, strict=True):
            precision = np.diag(part.precision)
            density = normal_log_density(part.weights / precision, 1.0 / precision)
            found.append(math.log(max(float(weight), 1e-300)) + density)
        mixed = np.logaddexp.reduce(found, axis=0)
        return {run: float(mixed[place]) for place, run in enumerate(self.reported)}

    def parameters(self) -> dict[str, tuple[float, float]]:
        """The law's unknowns with their standard deviations, by name."""
        return self.posterior.parameter_values()

    def findings(self) -> dict[str, object]:
        """What else is stored with the fit."""
        return {**self.posterior.findings(), "sentences": self.summary()}

    def summary(self) -> list[str]:
        """What was learnt, in sentences."""
        theta = dict(zip((p.name for p in self.posterior.parameters), self.posterior.theta, strict=True))
        scale = math.exp(theta["log noise scale"])
        lines = [
            f"Batches far below {scale:.0f} samples need {math.exp(theta['log samples']):.3g} samples "
            "to target at their best rate; the best rate of large batches is "
            f"{math.exp(theta['log best rate']):.2g}.",
        ]
        if NOISE_FLOOR not in self.posterior.at_prior():
            floor = math.exp(theta[NOISE_FLOOR])
            best = (2 * scale * floor**2) ** (1 / 3)
            lines.append(
                f"Batches below about {floor:.0f} samples need more than twice as many. The batch that needs "
                f"the fewest is about {best:.0f}."
            )
        if GROWTH.name in theta:
            lines.append(
                f"The noise scale grows along a run as its progress to the power {theta[GROWTH.name]:.2g}."
            )
        lines += self.posterior.sentences()
        edge = math.exp(float(self.edge.grid @ self.edge.weights))
        lines.append(f"Training is expected to break down at rates above about {edge:.2g}.")
        return lines


def fit_samples(
    runs: Sequence[RunEvidence],
    prior: RatePrior,
    *,
    devices_per_node: int = 1,
    strategies: Sequence[str] = (),
    emulation_differs: bool = False,
    past: PastLaw | None = None,
    shapes: Array = PRIOR,
) -> SamplesModel:
    """Fits samples to target to every run, finished or not.

    Args:
        runs: What was run; a run without an evaluation shows only whether it diverged.
        prior: Prior beliefs about the parameters.
        devices_per_node: Ranks on one node.
        strategies: Strategies to predict, besides those that were run.
        emulation_differs: Whether to predict real ranks, so that emulated runs have a bias of their own.
        past: What past studies found of the law's unknowns.
        shapes: Probability of each shape of a learning curve before, `(num_shapes,)`.
    """
    arrivals = extrapolate(runs, shapes)
    reported = [i for i, run in enumerate(runs) if np.isfinite(arrivals.median[i]) and not run.diverged]
    reported = [i for i in reported if not broke_down(runs[i], runs)]
    own_sd = arrivals.own.std(axis=0)
    in_play = [*strategies, *(run.configuration.strategy for run in runs)]
    further = disagreement_parameters(in_play)
    asynchronous = (ASYNCHRONOUS,) if exchanges_asynchronously(in_play) else ()
    noise_inputs, noise_scales, noise_sds = _measured_noise(
        runs, reported, arrivals.median, own_sd, devices_per_node
    )
    basin = _parameters(prior, arrivals.median, reported, noise_inputs, noise_scales)
    growth = UNKNOWNS if len(noise_inputs) else ()

    num_axes = samples_inputs([], devices_per_node).shape[1]
    biased = (_BIAS,) if emulation_differs else ()
    num_own = len(basin) + len(asynchronous) + len(further)

    def law(theta: Array, inputs: Array) -> Array:
        found = log_samples_law(theta[:num_own], inputs[:, :num_axes], prior.exponent, tuple(further))
        if biased:
            found = found + theta[-1] * inputs[:, num_axes]
        measured = inputs[:, -1] > 0
        if measured.any():
            unknowns = theta[[1, *range(num_own, num_own + len(growth))]]
            found[..., measured] = _measured_scales(unknowns, inputs[measured])
        return found

    own_inputs = _inputs(
        [runs[i].configuration for i in reported], devices_per_node, [runs[i].emulated for i in reported]
    )
    posterior = fit_mixed(
        law,
        (*basin, *asynchronous, *further.values(), *growth, *biased),
        past or {},
        _residual(runs),
        np.concatenate([own_inputs, noise_inputs]),
        np.concatenate([[arrivals.median[i] for i in reported], noise_scales]),
        np.concatenate([np.hypot(own_sd[reported], SEED_SD), noise_sds]),
    )
    place = [p.name for p in posterior.parameters].index("log best rate")
    stale = staleness([run.configuration for run in runs], devices_per_node)
    edge = fit_rate_edge(float(posterior.theta[place]), float(posterior.theta_sd[place]), runs, stale)
    return SamplesModel(
        posterior=posterior,
        arrivals=arrivals,
        reported=tuple(reported),
        edge=edge,
        devices_per_node=devices_per_node,
    )


def _residual(runs: Sequence[RunEvidence]) -> Residual:
    """What the law leaves out over `_inputs`: little if no run states a rate, as only batches differ then."""
    rated = not runs or any("learning_rate" in run.configuration for run in runs)
    return replace(
        RESIDUAL,
        sd=RESIDUAL.sd if rated else _BATCH_RESIDUAL_SD,
        length_scales=(*RESIDUAL.length_scales, _ANYHOW, _ANYHOW, _ASYNCHRONOUS),
    )


def _measured_noise(
    runs: Sequence[RunEvidence], reported: Sequence[int], medians: Array, own_sd: Array, devices_per_node: int
) -> tuple[Array, Array, Array]:
    """Noise scales along the observed runs as observations of the law, each where the run was on its way.

    Returns:
        Inputs as `_inputs` gives them, `(num, num_features)`; logarithms of what was measured, `(num,)`; and
        their standard deviations, `(num,)`.
    """
    found = []
    inputs = [_inputs([], devices_per_node, [])]
    for i in reported:
        for place in noise_places(runs[i].noise):
            share = min(place.log_samples - float(medians[i]), 0.0)
            # Where the place is depends on where the run arrives.
            sd = math.hypot(place.sd, GROWTH.mean * float(own_sd[i]))
            found.append((place.log_scale, sd))
            inputs.append(
                _inputs([runs[i].configuration], devices_per_node, [False], log_share=share, is_noise=True)
            )
    columns = np.array(found, dtype=float).reshape(-1, 2)
    return np.concatenate(inputs), columns[:, 0], columns[:, 1]


def _measured_scales(unknowns: Array, rows: Array) -> Array:
    """Logarithm of noise scales that runs measure, `(num_rows,)`; `(num, num_rows)` for many unknowns.

    Args:
        unknowns: log noise scale and the values of `noise_growth.UNKNOWNS`, `(4,)` or `(4, num, 1)`.
        rows: Inputs of measured noise scales, as `_inputs` gives them.
    """
    if unknowns.ndim == 1:
        return log_measured_scale(rows[:, 0], np.exp(rows[:, -2]), float(unknowns[0]), unknowns[1:])
    # Central differences move one unknown at a time, most of them none of these.
    distinct, places = np.unique(unknowns[:, :, 0], axis=1, return_inverse=True)
    return np.stack([_measured_scales(own, rows) for own in distinct.T])[places]


def _inputs(
    configurations: Sequence[Configuration],
    devices_per_node: int,
    emulated: Sequence[bool],
    *,
    log_share: float = 0.0,
    is_noise: bool = False,
) -> Array:
    """`samples_inputs` with three more columns: 1 for what was emulated; logarithm of the share of the run
    that was seen, and 1, for a noise scale.
    """
    own = samples_inputs(configurations, devices_per_node)
    more = np.array([(float(e), log_share, float(is_noise)) for e in emulated], dtype=float).reshape(-1, 3)
    return np.concatenate([own, more], axis=1)


def _parameters(
    prior: RatePrior, medians: Array, reported: Sequence[int], noise_inputs: Array, noise_scales: Array
) -> tuple[Parameter, ...]:
    """The law's unknowns besides those of strategies.

    Slopes are textbook values, with wide spread. Measured gradients determine the noise scale. Without any,
    it is expected at the largest batch of the space, since users offer batches up to where they expect to
    waste samples. The noise floor is expected far below the batch that they use.
    """
    if len(noise_inputs):
        shares = np.exp(noise_inputs[:, -2])
        scale_mean, scale_sd = whole_run_scale(shares, noise_scales), _ANY_SCALE_SD
    else:
        scale_mean, scale_sd = math.log(prior.largest_batch_size), _SCALE_SD
    at_large_batch = prior.log_rate + prior.exponent * math.log1p(math.exp(scale_mean) / prior.batch_size)
    level = math.log(3 * prior.epoch_samples)
    if reported:
        level = min(float(medians[i]) for i in reported)
    floor_mean = math.log(_FLOOR_OVER_BATCH * prior.batch_size)
    return (
        Parameter(name="log samples", mean=level, sd=1.5 if reported else 2.0),
        Parameter(name="log noise scale", mean=scale_mean, sd=scale_sd),
        Parameter(name="log best rate", mean=at_large_batch, sd=prior.sd),
        Parameter(name="log slope below", mean=math.log(0.9), sd=0.25),
        Parameter(name="log slope above", mean=math.log(1.5), sd=0.4),
        Parameter(name="log width", mean=math.log(1.3), sd=0.4),
        Parameter(name=NOISE_FLOOR, mean=floor_mean, sd=_FLOOR_SD),
    )
