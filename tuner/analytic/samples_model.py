"""Samples model: predicts the number of samples to target for any batch size, learning rate and strategy.

A formula (law) gives the logarithm of the number of samples that a run must process to reach its target. Its
parameters are fitted to the runs of a study, finished or not. Runs may be emulated, that is, trained on this
host under a virtual clock; their numbers of samples may then be biased.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from tuner.domain.format import format_count

#: Parameter: logarithm of (best learning rate of asynchronous ranks / best learning rate of all-reduce).
ASYNCHRONOUS = Parameter(name="log best rate ratio (asynchronous/all-reduce)", mean=0.0, sd=0.5)
#: Indices of the columns of `samples_inputs`: batch size, learning rate and share of asynchronous ranks; then
#: one disagreement of replicas per cost parameter (see `disagreement_columns`); one indicator per strategy;
#: and properties of the observation.
_LOG_BATCH, _LOG_RATE, _ASYNCHRONOUS_SHARE = range(3)
_STRATEGIES = 3 + len(COST_PARAMETERS)
_HAS_RATE, _EMULATED, _LOG_SHARE, _IS_NOISE = range(
    _STRATEGIES + NUM_STRATEGIES, _STRATEGIES + NUM_STRATEGIES + 4
)
#: Two length scales. `_ANYHOW` is for a column that has no effect on the residual. `_UNRELATED` is for a
#: column in which rows with different values have independent residuals.
_ANYHOW, _UNRELATED = 1e6, 1e-2
#: Covariance function of the residual (the smooth deviation from the law) over the columns of
#: `samples_inputs`. The length scale 4 of disagreements fits their range: from one rank to a hundred ranks,
#: log(1 + disagreement) grows by 1 (gossip) to 5 (elastic averaging).
RESIDUAL = Residual(
    sd=0.25,
    length_scales=(
        1.4,
        1.0,
        4.0,
        *[4.0] * len(COST_PARAMETERS),
        *[STRATEGY_LENGTH] * NUM_STRATEGIES,
        *(_ANYHOW, _ANYHOW, _ANYHOW, _UNRELATED),
    ),
)
#: Standard deviation of the residual if no run specifies a learning rate. Every run then trains at its best
#: rate, and the number of samples to target depends more regularly on the batch size.
_BATCH_RESIDUAL_SD = 0.1


def _setup(configuration: Configuration, devices_per_node: int) -> Setup:
    return setup_of(configuration, configuration.nodes * devices_per_node)


def staleness(configurations: Sequence[Configuration], devices_per_node: int) -> Array:
    """Returns log p for configurations whose p ranks do not wait for each other, 0 for others, `(num,)`.

    Args:
        configurations: The configurations, `(num,)`.
        devices_per_node: Ranks on one node.
    """
    setups = [_setup(c, devices_per_node) for c in configurations]
    return np.array([0.0 if s.traits.barrier else math.log(s.num_ranks) for s in setups], dtype=float)


def counted_batch(configuration: Configuration, devices_per_node: int) -> float:
    """Returns the number of samples over which gradients are averaged, which determines the gradient noise.

    This is the global batch size, except for a parameter server: there it is the batch size of one rank.

    Args:
        configuration: The configuration that the ranks train.
        devices_per_node: Ranks on one node.
    """
    setup = _setup(configuration, devices_per_node)
    ranks = setup.num_ranks if setup.traits.counted_batch == "rank" else 1
    return configuration.batch_size / ranks


def samples_inputs(
    configurations: Sequence[Configuration],
    devices_per_node: int,
    *,
    emulated: bool | Sequence[bool] = False,
    log_share: float | Sequence[float] = 0.0,
    is_noise: bool = False,
) -> Array:
    """Converts configurations to the inputs of the samples model, one row each, `(num, num_features)`.

    A configuration without a learning rate trains at the rate that its script chooses for the batch size. The
    model treats this rate as the best one.

    Args:
        configurations: The configurations to predict, or those of observed runs, `(num,)`.
        devices_per_node: Ranks on one node.
        emulated: Whether the ranks were emulated; one value for all rows, or one value per row.
        log_share: For rows that describe a measured noise scale: logarithm of (samples processed at the
            measurement / samples to target of the run). One value for all rows, or one value per row.
        is_noise: Whether the rows describe measured noise scales instead of numbers of samples to target.
    """
    found = np.zeros((len(configurations), _IS_NOISE + 1))
    setups = [_setup(c, devices_per_node) for c in configurations]
    for row, setup, configuration in zip(found, setups, configurations, strict=True):
        row[_LOG_BATCH] = math.log(counted_batch(configuration, devices_per_node))
        row[_LOG_RATE] = math.log(configuration.learning_rate)  # 0 without a rate
        if setup.traits.exchanged == "parameters":
            row[_ASYNCHRONOUS_SHARE] = 1.0 - 1.0 / setup.num_ranks
        row[3:_STRATEGIES] = disagreement_columns(setup)
        row[_HAS_RATE] = "learning_rate" in configuration
    found[:, _STRATEGIES:_HAS_RATE] = strategy_columns(setups)
    found[:, _EMULATED], found[:, _LOG_SHARE], found[:, _IS_NOISE] = emulated, log_share, is_noise
    return found


@dataclass(frozen=True, kw_only=True)
class _Law:
    """The formula of the samples model: predicts samples to target, and the noise scale that a run measures.

    Both predictions are logarithms.

    Args:
        parameters: The parameters with their priors, in the order of `theta`.
        exponent: 1 for SGD, 1/2 for Adam: the best learning rate of small batches is proportional to batch
            size^exponent (`log_best_rate`).
    """

    parameters: tuple[Parameter, ...]
    exponent: float

    def __call__(self, theta: Array, inputs: Array) -> Array:
        """Predicts a logarithm for each row of `inputs`, `(num_points,)`.

        It is that of the number of samples to target, or of the noise scale that a run measures.

        Args:
            theta: Values of the parameters, `(num_parameters,)`; or `(num_parameters, num, 1)`, then the
                result is `(num, num_points)` (see `regression.Law`).
            inputs: Rows of `samples_inputs`, `(num_points, num_features)`.
        """
        unknowns = {p.name: value for p, value in zip(self.parameters, theta, strict=True)}
        found = self._log_samples(unknowns, inputs)
        if _BIAS.name in unknowns:
            found = found + unknowns[_BIAS.name] * inputs[:, _EMULATED]
        measured = inputs[:, _IS_NOISE] > 0
        if measured.any():
            names = ("log noise scale", *(unknown.name for unknown in UNKNOWNS))
            of_noise = np.array([unknowns[name] for name in names])
            found[..., measured] = _measured_scales(of_noise, inputs[measured])
        return found

    def _log_samples(self, unknowns: Mapping[str, Array], inputs: Array) -> Array:
        """Returns the logarithm of the number of samples to target.

        It is the sum of three terms: the effects of the batch size, of the learning rate, and of how much the
        replicas of the ranks differ.
        """
        noise_scale, batch = np.exp(unknowns["log noise scale"]), np.exp(inputs[:, _LOG_BATCH])
        best = log_best_rate(
            batch, log_rate=unknowns["log best rate"], noise_scale=noise_scale, exponent=self.exponent
        )
        if ASYNCHRONOUS.name in unknowns:
            best = best + inputs[:, _ASYNCHRONOUS_SHARE] * unknowns[ASYNCHRONOUS.name]
        penalty = rate_penalty(
            inputs[:, _LOG_RATE] - best,
            slope_below=np.exp(unknowns["log slope below"]),
            slope_above=np.exp(unknowns["log slope above"]),
            width=np.exp(unknowns["log width"]),
        )
        found = log_samples_at_best_rate(
            batch,
            log_samples=unknowns["log samples"],
            noise_scale=noise_scale,
            noise_floor=np.exp(unknowns[NOISE_FLOOR]),
        )
        found = found + penalty * inputs[:, _HAS_RATE]
        disagreements = inputs[:, 3:_STRATEGIES]
        # Cost parameters that are not part of this fit have their prior mean.
        fixed = [0.0 if cost.name in unknowns else cost.mean for cost in COST_PARAMETERS]
        found = found + disagreements @ np.array(fixed)
        for column, cost in enumerate(COST_PARAMETERS):
            if cost.name in unknowns:
                found = found + unknowns[cost.name] * disagreements[:, column]
        return np.asarray(found, dtype=float)


#: Standard deviation of the logarithm of samples to target between runs of the same configuration (seeds,
#: data order).
SEED_SD = 0.10
#: Parameter: bias of emulated runs (see the module docstring), that is, the logarithm of (their samples to
#: target / those of runs on real nodes).
_BIAS = Parameter(name="log emulation bias (samples)", mean=0.0, sd=0.1)
#: Prior standard deviation of the logarithm of the noise scale if no run measured gradient noise.
_SCALE_SD = 1.3
#: Name of the parameter for the noise floor: the batch size below which small batches need many samples
#: (B_floor in `log_samples_at_best_rate`). `_FLOOR_OVER_BATCH` is its prior mean divided by
#: `RatePrior.batch_size`; at that batch size, the floor then adds 0.1% to the number of samples. `_FLOOR_SD`
#: is its prior standard deviation.
NOISE_FLOOR = "log noise floor"
_FLOOR_OVER_BATCH, _FLOOR_SD = 1 / 32, 1.5
#: Prior standard deviation of the logarithm of the noise scale if gradient noise was measured: very wide,
#: since the measurements determine it.
_ANY_SCALE_SD = 3.0


@dataclass(frozen=True, kw_only=True)
class RatePrior:
    """Prior knowledge about the learning rate and the batch size of a job.

    Args:
        log_rate: Logarithm of a plausible learning rate at `batch_size`: the user's rate, or the middle of
            the learning rates in the search space.
        sd: Standard deviation of `log_rate`.
        batch_size: The global batch size to which `log_rate` applies, samples.
        exponent: Exponent of the batch size in the best learning rate of small batches (`log_best_rate`): 1
            for SGD, 1/2 for Adam.
        epoch_samples: Size of the training set, samples.
        largest_batch_size: The largest global batch size of the search space, samples.
    """

    log_rate: float
    sd: float
    batch_size: float
    exponent: float
    epoch_samples: float
    largest_batch_size: float


@dataclass(frozen=True, kw_only=True)
class SamplesModel:
    """The fitted samples model, which predicts the number of samples to target.

    Args:
        posterior: The posterior of the parameters. Its inputs are rows of `samples_inputs`.
        arrivals: The number of samples at which each run is expected to reach the target, with its
            uncertainty.
        reported: The runs whose number of samples to target is an observation of `posterior`: entry i is the
            index, in the list of fitted runs, of the run that observation i belongs to. Observations of
            measured noise scales come after these.
        edge: How probable it is at each learning rate that training breaks down.
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
        """Predicts the logarithm of samples to target; returns mean `(num,)` and covariance `(num, num)`.

        The error that the extrapolations of all runs have in common (`Arrivals.common`) is not included.

        Args:
            configurations: The configurations to predict, `(num,)`.
            runs: For each configuration, the index of its run in the list of fitted runs; None for a
                configuration that was not started. By default, no configuration was started.
        """
        places = {run: place for place, run in enumerate(self.reported)}
        runs = [None] * len(configurations) if runs is None else runs
        observed = np.array([places.get(run, -1) if run is not None else -1 for run in runs], dtype=np.intp)
        inputs = samples_inputs(configurations, self.devices_per_node)
        return self.posterior.predict(inputs, observed=observed, own_variance=SEED_SD**2)

    def log_samples_draws(
        self, kinds: Sequence[Configuration], runs: Sequence[int | None], rng: np.random.Generator
    ) -> Array:
        """Predicts the logarithm of samples to target, as joint posterior samples, `(NUM_DRAWS, num_kinds)`.

        Args:
            kinds: The configurations to predict, `(num_kinds,)`.
            runs: For each configuration, the index of its run in the list of fitted runs; None for a
                configuration that was not started.
            rng: Random generator of the posterior samples.
        """
        mean, covariance = self.log_samples(kinds, runs)
        new = np.array([run is None for run in runs])
        draws = mean + correlated(covariance, shuffled_normals(rng, len(kinds)))
        draws += self.arrivals.common[:, None] + SEED_SD * new * shuffled_normals(rng, len(kinds))
        return np.asarray(draws, dtype=float)

    def left_out_log_densities(self) -> dict[int, float]:
        """Returns how well the samples to target of each run are predicted from all other runs.

        Returns:
            Maps the index of each run to the logarithm of the predictive density of its observation.
        """
        found = []
        for part, weight in zip(self.posterior.parts, self.posterior.weights, strict=True):
            precision = np.diag(part.precision)
            density = normal_log_density(part.weights / precision, 1.0 / precision)
            found.append(math.log(max(float(weight), 1e-300)) + density)
        mixed = np.logaddexp.reduce(found, axis=0)
        return {run: float(mixed[place]) for place, run in enumerate(self.reported)}

    def parameters(self) -> dict[str, tuple[float, float]]:
        """Returns the posterior mean and standard deviation of each parameter; the keys are the names."""
        return self.posterior.parameter_values()

    def findings(self) -> dict[str, object]:
        """Returns facts about the fit that are stored with a study, such as the weights of the priors."""
        return {**self.posterior.findings(), "sentences": self.summary()}

    def summary(self) -> list[str]:
        """Returns sentences for the user on what the runs showed about batch size and learning rate."""
        theta = {name: value for name, (value, _) in self.parameters().items()}
        scale, at_prior = math.exp(theta["log noise scale"]), self.posterior.at_prior()
        # A noise scale that no run determined is not a finding.
        small = (
            "small batches take" if "log noise scale" in at_prior else f"batches far below {scale:.0f} take"
        )
        needed = format_count(math.exp(theta["log samples"]))
        lines = [f"To reach the target, {small} {needed} samples at the best learning rate."]
        if "log best rate" not in at_prior:
            rate = math.exp(theta["log best rate"])
            lines.append(f"The best learning rate of large batches is {rate:.2g}.")
        if NOISE_FLOOR not in at_prior:
            floor = math.exp(theta[NOISE_FLOOR])
            best = (2 * scale * floor**2) ** (1 / 3)
            lines.append(
                f"Batches below about {floor:.0f} samples need more than twice as many samples to target. A "
                f"batch of about {best:.0f} needs the fewest."
            )
        if GROWTH.name in theta:
            lines.append(
                "The noise scale grows during a run, in proportion to training progress to the power "
                f"{theta[GROWTH.name]:.2g}."
            )
        lines += self.posterior.sentences()
        edge = math.exp(float(self.edge.grid @ self.edge.weights))
        lines.append(f"Training is expected to break down at learning rates above about {edge:.2g}.")
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
    """Fits the samples model to all runs of a study, finished and unfinished.

    Args:
        runs: The runs. A run without an evaluation only shows whether it diverged.
        prior: Prior knowledge about the learning rate and the batch size.
        devices_per_node: Ranks on one node.
        strategies: Names of the strategies to predict, in addition to those of the runs.
        emulation_differs: Whether the predictions are for training on real nodes. Then the fit includes the
            bias of emulated runs as a parameter.
        past: Values of the parameters in past studies, which serve as priors; None for no such values.
        shapes: Prior probability of each learning-curve shape in `curve_template.SHAPES`, `(num_shapes,)`.
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
    parameters = (
        *_basin_parameters(prior, arrivals.median, reported, noise_inputs, noise_scales),
        *asynchronous,
        *further.values(),
        *(UNKNOWNS if len(noise_inputs) else ()),
        *((_BIAS,) if emulation_differs else ()),
    )
    own_inputs = samples_inputs(
        [runs[i].configuration for i in reported],
        devices_per_node,
        emulated=[runs[i].emulated for i in reported],
    )
    has_rates = not runs or any("learning_rate" in run.configuration for run in runs)
    posterior = fit_mixed(
        _Law(parameters=parameters, exponent=prior.exponent),
        parameters,
        past or {},
        RESIDUAL if has_rates else replace(RESIDUAL, sd=_BATCH_RESIDUAL_SD),
        np.concatenate([own_inputs, noise_inputs]),
        np.concatenate([[arrivals.median[i] for i in reported], noise_scales]),
        np.concatenate([np.hypot(own_sd[reported], SEED_SD), noise_sds]),
    )
    best_rate, best_rate_sd = posterior.parameter_values()["log best rate"]
    stale = staleness([run.configuration for run in runs], devices_per_node)
    edge = fit_rate_edge(best_rate, best_rate_sd, runs, stale)
    return SamplesModel(
        posterior=posterior,
        arrivals=arrivals,
        reported=tuple(reported),
        edge=edge,
        devices_per_node=devices_per_node,
    )


def _measured_noise(
    runs: Sequence[RunEvidence], reported: Sequence[int], medians: Array, own_sd: Array, devices_per_node: int
) -> tuple[Array, Array, Array]:
    """Converts the gradient noise scales that runs measured to inputs and observations for the fit.

    Returns:
        Rows of `samples_inputs`, `(num, num_features)`; logarithms of the noise scales, `(num,)`; standard
        deviations of these logarithms, `(num,)`.
    """
    places = [(i, place) for i in reported for place in noise_places(runs[i].noise)]
    inputs = samples_inputs(
        [runs[i].configuration for i, _ in places],
        devices_per_node,
        log_share=[min(place.log_samples - float(medians[i]), 0.0) for i, place in places],
        is_noise=True,
    )
    # The share of the run is uncertain, since it depends on the predicted number of samples to target.
    sds = [math.hypot(place.sd, GROWTH.mean * float(own_sd[i])) for i, place in places]
    return inputs, np.array([place.log_scale for _, place in places]), np.array(sds)


def _measured_scales(unknowns: Array, rows: Array) -> Array:
    """Predicts the logarithm of the noise scale that runs measure, `(num_rows,)` or `(num, num_rows)`.

    Args:
        unknowns: Logarithm of the noise scale, followed by the parameters `noise_growth.UNKNOWNS`, `(4,)` or
            `(4, num, 1)`.
        rows: Rows of `samples_inputs` that describe measured noise scales, `(num_rows, num_features)`.
    """
    if unknowns.ndim == 1:
        return log_measured_scale(
            rows[:, _LOG_BATCH], np.exp(rows[:, _LOG_SHARE]), float(unknowns[0]), unknowns[1:]
        )
    # Central differences change one parameter of the law at a time. Most parameters are not among these four,
    # so many columns of `unknowns` are equal; each distinct column is computed once.
    distinct, places = np.unique(unknowns[:, :, 0], axis=1, return_inverse=True)
    return np.stack([_measured_scales(own, rows) for own in distinct.T])[places]


def _basin_parameters(
    prior: RatePrior, medians: Array, reported: Sequence[int], noise_inputs: Array, noise_scales: Array
) -> tuple[Parameter, ...]:
    """Returns the parameters of the samples model that every strategy needs, with their priors.

    - The parameters for the effect of the learning rate have textbook means and wide priors.
    - The prior mean of the noise scale is estimated from measured gradient noise. Without measurements, it is
      the largest batch size of the search space, since users rarely include batch sizes that waste samples.
    - The prior mean of the noise floor, the batch size below which many samples are needed, is far below the
      user's batch size.
    """
    if len(noise_inputs):
        shares = np.exp(noise_inputs[:, _LOG_SHARE])
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
