"""Seconds a sample for any nodes and batch, learnt from step times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.laws import compute_seconds, ring_all_reduce_seconds, synchronous_step_seconds
from tuner.analytic.regression import Parameter, Posterior, Residual, fit
from tuner.cluster import Cluster
from tuner.measurement import Measurement

Array = npt.NDArray[np.float64]

#: Step times of the same thing differ by this much (standard deviation of the logarithm) between one
#: moment and another on a shared machine; the prior of what `_between_moments_sd` learns.
_PRIOR_BETWEEN_MOMENTS_SD = 0.08
_PRIOR_WEIGHT = 4.0

_PARAMETERS = (
    Parameter(name="log fixed compute seconds", mean=math.log(3e-3), sd=1.5),
    Parameter(name="log compute seconds a sample", mean=math.log(1e-3), sd=3.0),
    Parameter(name="log latency seconds of a hop", mean=math.log(5e-4), sd=1.2),
    Parameter(name="log bytes a second", mean=math.log(1e9), sd=1.2),
    Parameter(name="exponent of shared cores", mean=1.0, sd=0.15),
    Parameter(name="log slowdown by each busy neighbour", mean=math.log(0.1), sd=0.8),
    Parameter(name="log jitter", mean=math.log(0.05), sd=0.5),
    Parameter(name="log overlap exponent", mean=math.log(1.5), sd=0.3),
)
_RESIDUAL = Residual(sd=0.10, length_scales=(0.7, 1.0))


@dataclass(frozen=True, kw_only=True)
class SecondsModel:
    """The posterior of seconds a sample.

    Args:
        cluster: What the job trains on.
        posterior: Of the logarithm of seconds a step, over (log ranks, log batch a rank).
        between_moments_sd: Standard deviation of the logarithm between moments of one machine.
        num_observations: Slices whose step times went in.
    """

    cluster: Cluster
    posterior: Posterior
    between_moments_sd: float
    num_observations: int

    def log_seconds_per_sample(self, configurations: Sequence[Configuration]) -> tuple[Array, Array]:
        """Mean `(num,)` and covariance `(num, num)` of the logarithm of seconds a sample.

        The unit of progress is the global batch: seconds a step over B.
        """
        mean, covariance = self.posterior.predict(_inputs(configurations, self.cluster))
        batches = np.array([c.batch_size for c in configurations], dtype=float)
        return mean - np.log(batches), covariance

    def summary(self) -> list[str]:
        """What was learnt, in sentences."""
        if self.num_observations == 0:
            return ["No step was timed yet: seconds are prior guesses."]
        theta = dict(zip((p.name for p in _PARAMETERS), self.posterior.theta, strict=True))
        lines = [
            f"A step costs {1000 * math.exp(theta['log fixed compute seconds']):.2g} ms and "
            f"{1e6 * math.exp(theta['log compute seconds a sample']):.3g} us a sample of a rank; "
            f"{self.num_observations} slices were timed, typical misfit {100 * self.posterior.rms:.0f}%.",
            f"Between moments the same step differs by {100 * self.between_moments_sd:.0f}%.",
        ]
        unknown = self.posterior.at_prior()
        if unknown:
            names = ", ".join(name.removeprefix("log ") for name in unknown)
            lines.append(f"Not told by the data yet, so left as assumed beforehand: {names}.")
        return lines


def fit_seconds(measurements: Sequence[Measurement], cluster: Cluster, parameter_bytes: int) -> SecondsModel:
    """Fits seconds a step to every slice that timed steps.

    Args:
        measurements: Slices, of any purpose; those without step times are passed over.
        cluster: What they ran on.
        parameter_bytes: Bytes exchanged by an all-reduce; 0 where unknown, which leaves bandwidth
            at its prior.
    """
    timed = [m for m in measurements if m.step_seconds is not None and m.step_seconds.median > 0]
    configurations = [m.configuration for m in timed]
    observations = np.log([m.step_seconds.mean for m in timed if m.step_seconds is not None] or [1.0])
    observations = observations[: len(timed)]
    between = _between_moments_sd(configurations, observations)
    # A slice's own mean is known as well as its spread over its steps allows.
    noise = np.array(
        [
            math.hypot(between, m.step_seconds.std / m.step_seconds.mean / math.sqrt(m.step_seconds.count))
            for m in timed
            if m.step_seconds is not None
        ]
    )

    def law(theta: Array, inputs: Array) -> Array:
        return _log_step_seconds(theta, inputs, cluster, parameter_bytes)

    posterior = fit(law, _PARAMETERS, _RESIDUAL, _inputs(configurations, cluster), observations, noise)
    return SecondsModel(
        cluster=cluster,
        posterior=posterior,
        between_moments_sd=between,
        num_observations=len(timed),
    )


def _inputs(configurations: Sequence[Configuration], cluster: Cluster) -> Array:
    ranks = np.array([cluster.num_ranks(c.nodes) for c in configurations], dtype=float)
    batches = np.array([c.batch_size for c in configurations], dtype=float)
    per_rank = np.ceil(batches / np.maximum(ranks, 1))
    return np.stack([np.log(ranks), np.log(per_rank)], axis=1).reshape(-1, 2)


def _log_step_seconds(theta: Array, inputs: Array, cluster: Cluster, parameter_bytes: int) -> Array:
    fixed, per_sample, latency, bandwidth = np.exp(theta[:4])
    shared_exponent = theta[4]
    neighbour, jitter = np.exp(theta[5:7])
    overlap = np.clip(np.exp(theta[7]), 1.0, 10.0)
    ranks, per_rank = np.exp(inputs[:, 0]), np.exp(inputs[:, 1])
    compute = compute_seconds(per_rank, fixed=float(fixed), per_sample=float(per_sample))
    on_host = ranks if cluster.nodes_share_host else np.minimum(ranks, cluster.devices_per_node)
    if cluster.cores_per_host is not None:
        share = on_host * cluster.threads_per_rank / cluster.cores_per_host
        alone = cluster.threads_per_rank / cluster.cores_per_host
        # Busy neighbours share caches and memory even where each rank has a core of its own.
        busy = np.clip((np.minimum(share, 1.0) - alone) / max(1.0 - alone, 1e-9), 0.0, 1.0)
        compute = compute * (1 + neighbour * busy) * np.maximum(share, 1.0) ** shared_exponent
    communication = ring_all_reduce_seconds(
        ranks, float(parameter_bytes), latency=float(latency), bytes_per_second=float(bandwidth)
    )
    step = synchronous_step_seconds(
        compute, communication, ranks, jitter=float(jitter), overlap=float(overlap)
    )
    return np.asarray(np.log(np.maximum(step, 1e-12)), dtype=float)


def _between_moments_sd(configurations: Sequence[Configuration], observations: Array) -> float:
    """Learns how much repeated looks at the same nodes and batch differ, shrunk to the prior."""
    groups: dict[tuple[int, int], list[float]] = {}
    for configuration, value in zip(configurations, observations, strict=True):
        groups.setdefault((configuration.nodes, configuration.batch_size), []).append(float(value))
    squares = sum(float(np.sum((np.array(v) - np.mean(v)) ** 2)) for v in groups.values())
    degrees = sum(len(v) - 1 for v in groups.values())
    variance = (_PRIOR_WEIGHT * _PRIOR_BETWEEN_MOMENTS_SD**2 + squares) / (_PRIOR_WEIGHT + degrees)
    return math.sqrt(variance)
