"""The step-time model: seconds per sample for any nodes, batch and strategy, learnt from step times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.laws import compute_seconds
from tuner.analytic.mixed_posterior import MixedPosterior, PastLaw, fit_mixed
from tuner.analytic.placement import Link, Sharing
from tuner.analytic.regression import Parameter, Posterior, Residual
from tuner.analytic.step_time_laws import Network, NodeLinks, batch_seconds
from tuner.analytic.strategy_encoding import (
    NUM_STRATEGIES,
    STRATEGY_LENGTH,
    Setup,
    exchanges_asynchronously,
    exchanging_alike,
    setup_of,
    strategy_columns,
)
from tuner.domain.cluster import Cluster, VirtualCluster
from tuner.domain.measurement import Measurement

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
#: Unknowns that only strategies other than all-reduce have. Ranks reach each other by another way than the
#: collective's, hence another bandwidth; how much of the jitter is persistent shows only over several steps.
_FURTHER_PARAMETERS = (
    Parameter(name="log point-to-point bandwidth over the collective's", mean=0.0, sd=0.7),
    Parameter(name="persistent share of jitter", mean=0.5, sd=0.2),
)
#: Unknowns of the topology-aware model, in which ranks on one node reach each other by another way than
#: those on other nodes. Latency within is that of shared memory, or of a local socket; the rest is as in
#: `placement_seconds`.
_TOPOLOGY_PARAMETERS = (
    Parameter(name="log latency seconds of a hop within a node", mean=math.log(1e-4), sd=1.2),
    Parameter(name="log bytes a second within a node", mean=math.log(6e9), sd=1.0),
    Parameter(name="log variation of links", mean=math.log(0.15), sd=0.5),
    Parameter(name="exponent of devices that share an adapter", mean=0.0, sd=0.15),
    Parameter(name="log bandwidth to several nodes over that to one", mean=0.0, sd=0.15),
)
#: What a description leaves unsure of each, and the least that its logarithm is taken of.
_DESCRIBED_SD, _LEAST_SECONDS, _LEAST_JITTER = 0.05, 1e-9, 1e-4
#: Where a part of a described cluster is at hand, its steps show the truth and the description is only a
#: prior; what is emulated from the description shows the error of the law, up to a bias of its own.
_DOUBTED_SD = 0.4
_BIAS = Parameter(name="log bias of emulated seconds", mean=0.0, sd=0.1)
#: Where steps were made: on the cluster to predict, by emulation, on the part at hand.
_ASKED, _EMULATED, _AT_HAND = 0.0, 1.0, 2.0
_ANYWHERE = 1e6
#: Over log ranks, log batch a rank, log tau, the strategies' columns, and where.
_RESIDUAL = Residual(sd=0.10, length_scales=(0.7, 1.0, 1.0, *[STRATEGY_LENGTH] * NUM_STRATEGIES, _ANYWHERE))
#: Links between machines scatter more: 12% of an exchange, and 10% for each e-fold of nodes beyond those
#: timed (`placement_seconds`).
_TOPOLOGY_RESIDUAL_SD = 0.15


@dataclass(frozen=True, kw_only=True)
class SecondsModel:
    """The posterior of seconds a sample.

    Args:
        cluster: What the job trains on.
        posterior: Of the logarithm of seconds in which all ranks process one global batch, over
            (log ranks, log batch a rank, log tau, strategy, where).
        between_moments_sd: Standard deviation of the logarithm between moments of one machine.
        num_observations: Slices whose step times went in.
    """

    cluster: Cluster
    posterior: Posterior | MixedPosterior
    between_moments_sd: float
    num_observations: int

    def log_seconds_per_sample(self, configurations: Sequence[Configuration]) -> tuple[Array, Array]:
        """Mean `(num,)` and covariance `(num, num)` of the logarithm of seconds a sample.

        The unit of progress is the global batch: the seconds all ranks take for B samples, over B.
        """
        mean, covariance = self.posterior.predict(_inputs(configurations, self.cluster))
        batches = np.array([c.batch_size for c in configurations], dtype=float)
        return mean - np.log(batches), covariance

    def shifted(self, unknowns: Sequence[str], change: float) -> SecondsModel:
        """The model of a cluster that differs in some unknowns of the law; what the residual learnt stays.

        Args:
            unknowns: Their names.
            change: What is added to each, in the scale the law takes.
        """
        return replace(self, posterior=self.posterior.moved(dict.fromkeys(unknowns, change)))

    def parameters(self) -> dict[str, tuple[float, float]]:
        """The law's unknowns with their standard deviations, by name."""
        return self.posterior.parameter_values()

    def findings(self) -> dict[str, object]:
        """What else is stored with the fit."""
        return {**self.posterior.findings(), "sentences": self.summary()}

    def summary(self) -> list[str]:
        """What was learnt, in sentences."""
        if self.num_observations == 0:
            return ["No step was timed yet: seconds are prior guesses."]
        theta = dict(zip((p.name for p in self.posterior.parameters), self.posterior.theta, strict=True))
        lines = [
            f"A step costs {1000 * math.exp(theta['log fixed compute seconds']):.2g} ms and "
            f"{1e6 * math.exp(theta['log compute seconds a sample']):.3g} us a sample of a rank; "
            f"{self.num_observations} slices were timed, typical misfit {100 * self.posterior.rms:.0f}%.",
            f"Between moments the same step differs by {100 * self.between_moments_sd:.0f}%.",
        ]
        if isinstance(self.posterior, MixedPosterior):
            lines.append(self.posterior.sentence())
        unknown = self.posterior.at_prior()
        if unknown:
            names = ", ".join(name.removeprefix("log ") for name in unknown)
            lines.append(f"Not determined by the data yet, so left at the prior: {names}.")
        return lines


def fit_seconds(
    measurements: Sequence[Measurement],
    cluster: Cluster,
    parameter_bytes: int,
    *,
    strategies: Sequence[str] = (),
    past: PastLaw | None = None,
) -> SecondsModel:
    """Fits seconds for a global batch (`Measurement.batch_seconds`) to every slice that timed steps.

    Args:
        measurements: Slices, of any purpose; those without step times are skipped.
        cluster: What they ran on.
        parameter_bytes: Bytes of the model's parameters; 0 where unknown, which leaves bandwidth
            at its prior.
        strategies: Strategies to predict, besides those that were timed.
        past: What past studies found of the law's unknowns; a described cluster is taken as described.
    """
    timed = [m for m in measurements if m.step_seconds is not None and m.step_seconds.median > 0]
    configurations = [m.configuration for m in timed]
    observations = np.log([m.batch_seconds for m in timed if m.batch_seconds is not None] or [1.0])
    observations = observations[: len(timed)]
    between = _between_moments_sd([_setup(c, cluster) for c in configurations], configurations, observations)
    # A slice's own mean is known as well as its spread over its steps allows.
    noise = np.array(
        [
            math.hypot(between, m.step_seconds.std / m.step_seconds.mean / math.sqrt(m.step_seconds.count))
            for m in timed
            if m.step_seconds is not None
        ]
    )
    in_play = [*strategies, *(c.strategy for c in configurations)]
    parameters = _PARAMETERS + (_FURTHER_PARAMETERS if exchanges_asynchronously(in_play) else ())
    if is_topology_aware(cluster):
        parameters += _TOPOLOGY_PARAMETERS
    where = np.zeros(len(timed))
    if cluster.virtual is not None:
        is_doubted = cluster.at_hand is not None
        parameters = _described(parameters, cluster.virtual, _DOUBTED_SD if is_doubted else _DESCRIBED_SD)
    described = np.array([p.mean for p in parameters])
    if cluster.at_hand is not None:
        parameters = (*parameters, _BIAS)
        where = np.array([_EMULATED if m.emulated else _AT_HAND for m in timed])

    grouped = _Grouped()

    def law(theta: Array, inputs: Array) -> Array:
        steps, place = grouped.steps(inputs)
        if cluster.at_hand is None:
            return _log_batch_seconds(theta, steps, cluster, parameter_bytes)[place]
        found = np.zeros(len(steps.where))
        for kind, on, at in (
            (_ASKED, cluster, theta[:-1]),
            (_EMULATED, cluster, described),
            (_AT_HAND, cluster.at_hand, theta[:-1]),
        ):
            rows = steps.where == kind
            found[rows] = _log_batch_seconds(at, steps.only(rows), on, parameter_bytes)
        found[steps.where == _EMULATED] += theta[-1]
        return np.asarray(found[place], dtype=float)

    inputs = _inputs(configurations, cluster, where)
    known = past if past is not None and cluster.virtual is None else {}
    residual = replace(_RESIDUAL, sd=_TOPOLOGY_RESIDUAL_SD) if is_topology_aware(cluster) else _RESIDUAL
    posterior = fit_mixed(law, parameters, known, residual, inputs, observations, noise)
    return SecondsModel(
        cluster=cluster,
        posterior=posterior,
        between_moments_sd=between,
        num_observations=len(timed),
    )


class _Steps:
    """The law's inputs, row by row.

    Args:
        inputs: As `_inputs` gives them, `(num, num_features)`.
    """

    def __init__(self, inputs: Array) -> None:
        self._inputs = inputs
        self.ranks, self.per_rank = np.exp(inputs[:, 0]), np.exp(inputs[:, 1])
        self.whole_ranks = np.rint(self.ranks).astype(float)
        self.taus = np.rint(np.exp(inputs[:, 2])).astype(float)
        self.alike = exchanging_alike(inputs[:, 3:-1])
        self.where = inputs[:, -1]

    def only(self, rows: npt.NDArray[np.bool_]) -> _Steps:
        """Some of them."""
        return _Steps(self._inputs[rows])


class _Grouped:
    """The distinct rows of the law's last inputs.

    A run's slices are timed at the same place, and a fit asks the law hundreds of times about the same rows.
    """

    def __init__(self) -> None:
        self._asked: Array | None = None
        self._found: tuple[_Steps, npt.NDArray[np.intp]] | None = None

    def steps(self, inputs: Array) -> tuple[_Steps, npt.NDArray[np.intp]]:
        """The distinct rows, and for each row which of them it is; `inputs` must not be written to."""
        if self._found is None or self._asked is not inputs:
            different, place = np.unique(inputs, axis=0, return_inverse=True)
            self._asked, self._found = inputs, (_Steps(different), place.ravel())
        return self._found


def is_topology_aware(cluster: Cluster) -> bool:
    """Whether the model distinguishes hops within nodes and between them: several ranks per machine.

    A description has one kind of link, and nodes that share a host are not distinguished.
    """
    return cluster.devices_per_node > 1 and not cluster.nodes_share_host and cluster.virtual is None


def _described(
    parameters: tuple[Parameter, ...], virtual: VirtualCluster, most_sd: float
) -> tuple[Parameter, ...]:
    """The unknowns with what a description of the cluster says of them, each as surely at the least."""
    said = {
        "log fixed compute seconds": math.log(max(virtual.fixed_seconds, _LEAST_SECONDS)),
        "log compute seconds a sample": math.log(virtual.seconds_per_sample),
        "log latency seconds of a hop": math.log(max(virtual.latency, _LEAST_SECONDS)),
        "log bytes a second": math.log(virtual.bytes_per_second),
        "log jitter": math.log(max(virtual.jitter, _LEAST_JITTER)),
        "log overlap exponent": math.log(virtual.overlap),
        "log point-to-point bandwidth over the collective's": _log_point_to_point(virtual),
        "persistent share of jitter": virtual.persistent,
    }
    return tuple(
        replace(p, mean=said[p.name], sd=min(p.sd, most_sd)) if p.name in said else p for p in parameters
    )


def _log_point_to_point(virtual: VirtualCluster) -> float:
    messages = virtual.message_bytes_per_second
    return 0.0 if messages is None else math.log(messages / virtual.bytes_per_second)


def _point_to_point_latency(virtual: VirtualCluster | None) -> float:
    """Latency of messages over the collectives', as a description has it."""
    if virtual is None:
        return 1.0
    # Nothing is a multiple of 0: the least latency that the law knows stands for it.
    return virtual.one_way_seconds / max(virtual.latency, _LEAST_SECONDS)


def _setup(configuration: Configuration, cluster: Cluster) -> Setup:
    return setup_of(configuration, cluster.num_ranks(configuration.nodes))


def _inputs(configurations: Sequence[Configuration], cluster: Cluster, where: Array | None = None) -> Array:
    setups = [_setup(c, cluster) for c in configurations]
    ranks = np.array([setup.num_ranks for setup in setups], dtype=float)
    batches = np.array([c.batch_size for c in configurations], dtype=float)
    per_rank = batches / np.maximum(ranks, 1)
    # Where all wait, the largest share counts; where nobody does, shares average.
    waits = np.array([setup.traits.barrier for setup in setups], dtype=bool)
    per_rank = np.where(waits, np.ceil(per_rank), per_rank)
    taus = np.array([setup.tau for setup in setups], dtype=float)
    axes = np.stack([np.log(ranks), np.log(per_rank), np.log(taus)], axis=1).reshape(-1, 3)
    places = np.full(len(setups), _ASKED) if where is None else where
    return np.concatenate([axes, strategy_columns(setups), places[:, None]], axis=1)


def _log_batch_seconds(theta: Array, steps: _Steps, cluster: Cluster, parameter_bytes: int) -> Array:
    fixed, per_sample, latency, bandwidth = np.exp(theta[:4])
    shared_exponent = theta[4]
    neighbor, jitter = np.exp(theta[5:7])
    overlap = np.clip(np.exp(theta[7]), 1.0, 10.0)
    num_topology_aware = len(_TOPOLOGY_PARAMETERS) if is_topology_aware(cluster) else 0
    further = theta[8 : len(theta) - num_topology_aware]
    if not len(further):
        further = np.array([p.mean for p in _FURTHER_PARAMETERS])
    ranks = steps.ranks
    compute = compute_seconds(steps.per_rank, fixed=float(fixed), per_sample=float(per_sample))
    on_host = ranks if cluster.nodes_share_host else np.minimum(ranks, cluster.devices_per_node)
    if cluster.cores_per_host is not None:
        share = on_host * cluster.threads_per_rank / cluster.cores_per_host
        alone = cluster.threads_per_rank / cluster.cores_per_host
        # Busy neighbors share caches and memory even if each rank has a core of its own.
        busy = np.clip((np.minimum(share, 1.0) - alone) / max(1.0 - alone, 1e-9), 0.0, 1.0)
        compute = compute * (1 + neighbor * busy) * np.maximum(share, 1.0) ** shared_exponent
    network = Network(
        num_bytes=float(parameter_bytes),
        latency=float(latency),
        bytes_per_second=float(bandwidth),
        point_to_point=float(np.exp(further[0])),
        point_to_point_latency=_point_to_point_latency(cluster.virtual),
        jitter=float(jitter),
        persistent=float(np.clip(further[1], 0.0, 1.0)),
        overlap=float(overlap),
        delays=cluster.delays,
        peers_wait=cluster.virtual is None,
        on_node=_node_links(theta[len(theta) - num_topology_aware :], cluster)
        if num_topology_aware
        else None,
    )
    seconds = np.zeros(len(ranks))
    for traits, rows in steps.alike:
        seconds[rows] = batch_seconds(
            traits, compute[rows], steps.whole_ranks[rows], steps.taus[rows], network
        )
    return np.asarray(np.log(np.maximum(seconds, 1e-12)), dtype=float)


def _node_links(theta: Array, cluster: Cluster) -> NodeLinks:
    latency, bandwidth, variation = np.exp(theta[:3])
    return NodeLinks(
        devices_per_node=cluster.devices_per_node,
        within=Link(latency_seconds=float(latency), bytes_per_second=float(bandwidth)),
        sharing=Sharing(
            device_exponent=float(theta[3]), peer_gain=float(theta[4]), variation=float(variation)
        ),
    )


def _between_moments_sd(
    setups: Sequence[Setup], configurations: Sequence[Configuration], observations: Array
) -> float:
    """Learns how much repeated measurements of the same thing differ, shrunk to the prior."""
    groups: dict[tuple[Setup, int], list[float]] = {}
    for setup, configuration, value in zip(setups, configurations, observations, strict=True):
        groups.setdefault((setup, configuration.batch_size), []).append(float(value))
    squares = sum(float(np.sum((np.array(v) - np.mean(v)) ** 2)) for v in groups.values())
    degrees = sum(len(v) - 1 for v in groups.values())
    variance = (_PRIOR_WEIGHT * _PRIOR_BETWEEN_MOMENTS_SD**2 + squares) / (_PRIOR_WEIGHT + degrees)
    return math.sqrt(variance)
