"""Samples to target for any batch size, learning rate and strategy, learnt from curves of unfinished runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.arrivals import Arrivals, RunCurve, extrapolate
from tuner.analytic.disagreement import disagreement_parameters
from tuner.analytic.evidence import RunEvidence, broke_down
from tuner.analytic.rate_edge import RateEdge, fit_rate_edge
from tuner.analytic.regression import Parameter, Posterior, fit
from tuner.analytic.samples_law import APART, RESIDUAL, log_samples_law, samples_inputs, staleness
from tuner.analytic.setup import exchanges_apart

Array = npt.NDArray[np.float64]

#: Two runs of one configuration differ by this much in log samples to target (seeds, data order).
SEED_SD = 0.10
#: Real ranks of one configuration may need more or fewer samples than emulated ones.
_BIAS = Parameter(name="log bias of emulated samples", mean=0.0, sd=0.1)
_ANYHOW = 1e6


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
        posterior: Of the logarithm of samples to target, over (log counted batch, log rate, share of ranks
            apart, disagreements, strategy, emulated).
        arrivals: Every run's extrapolation.
        told: Which run each observation of the posterior is.
        edge: Rates at which training may break down.
        devices_per_node: Ranks on one node.
    """

    posterior: Posterior
    arrivals: Arrivals
    told: tuple[int, ...]
    edge: RateEdge
    devices_per_node: int = 1

    @property
    def edge_grid(self) -> Array:
        """Logarithms of rates at which training may break down, `(num_grid,)`."""
        return self.edge.grid

    @property
    def edge_weights(self) -> Array:
        """Their probabilities, `(num_grid,)`."""
        return self.edge.weights

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
        inputs = _inputs(configurations, self.devices_per_node, [False] * len(configurations))
        return self.posterior.predict(inputs, observed=observed, own_variance=SEED_SD**2)

    def edges(self, uniforms: Array) -> Array:
        """Draws of the logarithm of the rate above which training never arrives, by inverse transform."""
        return self.edge.draws(uniforms)

    def staleness(self, configurations: Sequence[Configuration]) -> Array:
        """log p of configurations whose ranks do not wait for each other, else 0, `(num,)`."""
        return staleness(configurations, self.devices_per_node)

    def parameters(self) -> dict[str, tuple[float, float]]:
        """The law's unknowns with their standard deviations, by name."""
        return self.posterior.parameter_values()

    def findings(self) -> dict[str, object]:
        """What else is kept of the fit."""
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
        unknown = self.posterior.at_prior()
        if unknown:
            names = ", ".join(name.removeprefix("log ") for name in unknown)
            lines.append(f"Not told by the data yet, so left as assumed beforehand: {names}.")
        edge = math.exp(float(self.edge_grid @ self.edge_weights / self.edge_weights.sum()))
        lines.append(f"Training is expected to break down at rates above about {edge:.2g}.")
        return lines


def fit_samples(
    runs: Sequence[RunEvidence],
    prior: RatePrior,
    *,
    devices_per_node: int = 1,
    strategies: Sequence[str] = (),
    emulation_differs: bool = False,
) -> SamplesModel:
    """Fits samples to target to every run, finished or not.

    Args:
        runs: What was run; a run without a scoring tells only whether it diverged.
        prior: What is believed beforehand.
        devices_per_node: Ranks on one node.
        strategies: Strategies that will be asked about, beside those that were run.
        emulation_differs: Whether real ranks are asked about, and emulated runs have a bias of their own.
    """
    arrivals = extrapolate([_curve(run) for run in runs], [run.samples_to_target for run in runs])
    told = [i for i, run in enumerate(runs) if np.isfinite(arrivals.median[i]) and not run.diverged]
    told = [i for i in told if not broke_down(runs[i], runs)]
    in_play = [*strategies, *(run.configuration.strategy for run in runs)]
    further = disagreement_parameters(in_play)
    apart = (APART,) if exchanges_apart(in_play) else ()
    basin = _parameters(prior, arrivals.median, told)

    num_axes = samples_inputs([], devices_per_node).shape[1]
    biased = (_BIAS,) if emulation_differs else ()

    def law(theta: Array, inputs: Array) -> Array:
        own = theta[: len(theta) - len(biased)]
        found = log_samples_law(own, inputs[:, :num_axes], prior.exponent, tuple(further))
        return found + theta[-1] * inputs[:, num_axes] if biased else found

    sds = np.array([math.hypot(arrivals.own_sd[i], SEED_SD) for i in told])
    posterior = fit(
        law,
        (*basin, *apart, *further.values(), *biased),
        replace(RESIDUAL, length_scales=(*RESIDUAL.length_scales, _ANYHOW)),
        _inputs([runs[i].configuration for i in told], devices_per_node, [runs[i].emulated for i in told]),
        np.array([arrivals.median[i] for i in told]),
        sds,
    )
    place = [p.name for p in posterior.parameters].index("log best rate")
    stale = staleness([run.configuration for run in runs], devices_per_node)
    edge = fit_rate_edge(float(posterior.theta[place]), float(posterior.theta_sd[place]), runs, stale)
    return SamplesModel(
        posterior=posterior,
        arrivals=arrivals,
        told=tuple(told),
        edge=edge,
        devices_per_node=devices_per_node,
    )


def _inputs(
    configurations: Sequence[Configuration], devices_per_node: int, emulated: Sequence[bool]
) -> Array:
    """`samples_inputs` with a last column that is 1 for what was emulated."""
    own = samples_inputs(configurations, devices_per_node)
    return np.concatenate([own, np.array(emulated, dtype=float).reshape(-1, 1)], axis=1)


def _curve(run: RunEvidence) -> RunCurve:
    if run.diverged:
        return RunCurve(samples=run.samples[:0], progress=run.progress[:0])
    return RunCurve(samples=run.samples, progress=run.progress, ended=run.ended)


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
