"""Samples to target for any batch size and learning rate, learnt from curves of unfinished runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.arrivals import Arrivals, extrapolate
from tuner.analytic.curves import RunCurve
from tuner.analytic.laws import log_best_rate, log_samples_at_best_rate, rate_penalty
from tuner.analytic.regression import Parameter, Posterior, Residual, fit

Array = npt.NDArray[np.float64]

#: Two runs of one configuration differ by this much in log samples to target (seeds, data order).
SEED_SD = 0.10
_RESIDUAL = Residual(sd=0.25, length_scales=(1.4, 1.0))
#: Progress below which a run counts as stuck at its start.
_STUCK = 0.05


@dataclass(frozen=True, kw_only=True)
class RunEvidence:
    """What one run showed.

    Args:
        configuration: What it was run with.
        samples: Samples seen at each scoring, above 0, `(num_points,)`.
        progress: (value - start) / (target - start) at each scoring, `(num_points,)`.
        samples_to_target: Where it crossed the target; None while it has not.
        diverged: Whether it stopped being finite.
    """

    configuration: Configuration
    samples: Array
    progress: Array
    samples_to_target: float | None = None
    diverged: bool = False

    @property
    def is_stuck(self) -> bool:
        """Whether it never left its start, or fell back to it."""
        return bool(np.max(self.progress[-2:], initial=0.0) < _STUCK)


@dataclass(frozen=True, kw_only=True)
class RatePrior:
    """What is believed of learning rates before anything was run.

    Args:
        log_rate: Logarithm of a plausible rate at `batch_size`: the user's own, or the space's middle.
        sd: Its standard deviation.
        batch_size: The batch it belongs to.
        exponent: How the best rate follows the batch: 1 for SGD, 1/2 for Adam.
        noise_scale: Measured gradient noise scale, samples; None while unknown.
        epoch_samples: Size of the training set, samples.
    """

    log_rate: float
    sd: float
    batch_size: float
    exponent: float
    noise_scale: float | None
    epoch_samples: float


@dataclass(frozen=True, kw_only=True)
class SamplesModel:
    """The posterior of samples to target.

    Args:
        posterior: Of log samples to target over (log batch, log rate).
        arrivals: When each run is expected to arrive, by its own curve.
        told: The runs that the posterior was fitted to, in its order.
        edge_grid: Logarithms of rates at which training may break down, `(num_grid,)`.
        edge_weights: Their probabilities, `(num_grid,)`.
    """

    posterior: Posterior
    arrivals: Arrivals
    told: tuple[int, ...]
    edge_grid: Array
    edge_weights: Array

    def log_samples(
        self, configurations: Sequence[Configuration], runs: Sequence[int | None] | None = None
    ) -> tuple[Array, Array]:
        """Mean `(num,)` and covariance `(num, num)` of the logarithm of samples to target.

        What all runs' extrapolations have in common (`Arrivals.common`) comes on top.

        Args:
            configurations: What to predict.
            runs: For each, the run that is meant, or None for one that was not begun; none were, if absent.
        """
        places = {run: place for place, run in enumerate(self.told)}
        runs = [None] * len(configurations) if runs is None else runs
        observed = np.array([places.get(run, -1) if run is not None else -1 for run in runs], dtype=np.intp)
        return self.posterior.predict(_inputs(configurations), observed=observed, own_variance=SEED_SD**2)

    def edges(self, uniforms: Array) -> Array:
        """Draws of the logarithm of the rate above which training never arrives, by inverse transform."""
        cumulative = np.cumsum(self.edge_weights)
        cumulative /= cumulative[-1]
        return np.asarray(np.interp(uniforms, cumulative, self.edge_grid), dtype=float)

    def summary(self) -> list[str]:
        """What was learnt, in sentences."""
        theta = dict(zip((p.name for p in self.posterior.parameters), self.posterior.theta, strict=True))
        scale = math.exp(theta["log noise scale"])
        lines = [
            f"Batches far below {scale:.0f} samples need {math.exp(theta['log samples']):.3g} samples "
            "to target at their best rate; the best rate of large batches is "
            f"{math.exp(theta['log best rate']):.2g}.",
        ]
        unknown = self.posterior.at_prior()
        if unknown:
            names = ", ".join(name.removeprefix("log ") for name in unknown)
            lines.append(f"Not told by the data yet, so left as assumed beforehand: {names}.")
        edge = math.exp(float(self.edge_grid @ self.edge_weights / self.edge_weights.sum()))
        lines.append(f"Training is expected to break down at rates above about {edge:.2g}.")
        return lines


def fit_samples(runs: Sequence[RunEvidence], prior: RatePrior) -> SamplesModel:
    """Fits samples to target to every run, finished or not.

    Args:
        runs: What was run; a run without a scoring tells only whether it diverged.
        prior: What is believed beforehand.
    """
    arrivals = extrapolate([_curve(run) for run in runs], [run.samples_to_target for run in runs])
    told = [i for i, run in enumerate(runs) if np.isfinite(arrivals.median[i]) and not run.diverged]
    told = [i for i in told if not _broke_down(runs[i], runs)]
    parameters = _parameters(prior, arrivals.median, told)

    def law(theta: Array, inputs: Array) -> Array:
        return _log_samples(theta, inputs, prior.exponent)

    sds = np.array([math.hypot(arrivals.own_sd[i], SEED_SD) for i in told])
    posterior = fit(
        law,
        parameters,
        _RESIDUAL,
        _inputs([runs[i].configuration for i in told]),
        np.array([arrivals.median[i] for i in told]),
        sds,
    )
    grid, weights = _edge_posterior(posterior, runs)
    return SamplesModel(
        posterior=posterior,
        arrivals=arrivals,
        told=tuple(told),
        edge_grid=grid,
        edge_weights=weights,
    )


def _curve(run: RunEvidence) -> RunCurve:
    if run.diverged:
        return RunCurve(samples=run.samples[:0], progress=run.progress[:0])
    return RunCurve(samples=run.samples, progress=run.progress)


def _inputs(configurations: Sequence[Configuration]) -> Array:
    rows = [(math.log(c.batch_size), math.log(c.learning_rate)) for c in configurations]
    return np.array(rows, dtype=float).reshape(-1, 2)


def _log_samples(theta: Array, inputs: Array, exponent: float) -> Array:
    log_samples, log_noise_scale, log_rate, log_below, log_above, log_width = theta
    noise_scale, batch = float(np.exp(log_noise_scale)), np.exp(inputs[:, 0])
    best = log_best_rate(batch, log_rate=log_rate, noise_scale=noise_scale, exponent=exponent)
    penalty = rate_penalty(
        inputs[:, 1] - best,
        slope_below=float(np.exp(log_below)),
        slope_above=float(np.exp(log_above)),
        width=float(np.exp(log_width)),
    )
    floor = log_samples_at_best_rate(batch, log_samples=log_samples, noise_scale=noise_scale)
    return floor + penalty


def _parameters(prior: RatePrior, medians: Array, told: Sequence[int]) -> tuple[Parameter, ...]:
    """Text-book slopes with wide spread; the noise scale from gradients where they were measured."""
    if prior.noise_scale is not None and prior.noise_scale > 0:
        scale_mean, scale_sd = math.log(prior.noise_scale), 0.8
    else:
        scale_mean, scale_sd = math.log(200.0), 1.3
    # The scale grows along the run, and a target is met late: one and a half to two times the mean seen.
    at_large_batch = prior.log_rate + prior.exponent * math.log1p(math.exp(scale_mean) / prior.batch_size)
    level = math.log(3 * prior.epoch_samples)
    if told:
        level = min(float(medians[i]) for i in told)
    return (
        Parameter(name="log samples", mean=level, sd=1.5 if told else 2.0),
        Parameter(name="log noise scale", mean=scale_mean, sd=scale_sd),
        Parameter(name="log best rate", mean=at_large_batch, sd=prior.sd),
        Parameter(name="log slope below", mean=math.log(0.9), sd=0.25),
        Parameter(name="log slope above", mean=math.log(1.5), sd=0.4),
        Parameter(name="log width", mean=math.log(1.3), sd=0.4),
    )


def _broke_down(run: RunEvidence, runs: Sequence[RunEvidence]) -> bool:
    """Whether a run is stuck because its rate is too large: others with a smaller one got away."""
    if run.diverged:
        return True
    if not run.is_stuck or not len(run.samples):
        return False
    return any(
        other.configuration.learning_rate < run.configuration.learning_rate
        and not other.diverged
        and not other.is_stuck
        and len(other.samples)
        and other.samples[0] <= run.samples[-1]
        for other in runs
    )


def _edge_posterior(posterior: Posterior, runs: Sequence[RunEvidence]) -> tuple[Array, Array]:
    """Beliefs about the rate at which training breaks down, on a grid.

    The prior lies a factor of eight above the best rate of large batches, give or take a factor of three;
    a run that broke down or went well moves it through a logistic whose width is half of an e-fold.
    """
    names = [p.name for p in posterior.parameters]
    best = float(posterior.theta[names.index("log best rate")])
    best_sd = float(posterior.theta_sd[names.index("log best rate")])
    centre, sd = best + math.log(8.0), math.hypot(1.1, best_sd)
    grid = np.linspace(centre - 4 * sd, centre + 4 * sd, 161)
    log_weights = -0.5 * ((grid - centre) / sd) ** 2
    for run in runs:
        distance = (math.log(run.configuration.learning_rate) - grid) / 0.5
        if _broke_down(run, runs):
            log_weights -= np.logaddexp(0.0, -distance)
        elif len(run.samples) and not run.is_stuck:
            log_weights -= np.logaddexp(0.0, distance)
    weights = np.exp(log_weights - log_weights.max())
    return grid, weights / weights.sum()
