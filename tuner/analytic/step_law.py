"""The formula of step time for one cluster, with its parameters.

The formula (law) predicts the logarithm of the seconds of a step from parameters and inputs; inputs are rows
of `Steps.inputs`.

- Exchange: the communication of gradients or parameters between ranks.
- Emulated cluster: a cluster that exists only as a description (`[cluster.machine]` of the job file). Its
  ranks are trained on this host under a virtual clock, and their steps are called emulated steps.
- `Cluster.at_hand`: the real nodes, if the job has real and emulated nodes: small configurations are trained
  on the real nodes, and larger ones are emulated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tuner.analytic.all_reduce_cost import Link, Sharing
from tuner.analytic.laws import Array, Values, expected_maximum
from tuner.analytic.regression import Parameter
from tuner.analytic.step_rows import AT_HAND, EMULATED, Alike, alike_rows
from tuner.analytic.step_time_laws import Network
from tuner.analytic.strategy_laws import batch_seconds
from tuner.domain.cluster import Cluster

_STEP = 1e-5
#: A latency below this is replaced by this value before its logarithm is taken, seconds.
LEAST_SECONDS = 1e-9
#: Name of an additional parameter that is fitted if the bytes of the model's parameters are unknown: the
#: logarithm of (bytes / `NOMINAL_BYTES`).
UNSTATED_BYTES, NOMINAL_BYTES = "log parameter bytes (relative)", 100_000_000
_MAX_RECENT = 6
#: Values of those parameters that are not fitted for every cluster.
_DEFAULTS: dict[str, Values] = {
    "log bandwidth ratio (point-to-point/collective)": 0.0,
    "persistent share of jitter": 0.5,
    "log compute slowdown (by communication)": -math.inf,
    "log variation of links": -math.inf,
    "log bandwidth ratio (several nodes/one)": 0.0,
    "adapter sharing exponent": 0.0,
    "log hop latency within node (seconds)": math.log(LEAST_SECONDS),
    "log bandwidth within node (bytes/s)": 700.0,
    UNSTATED_BYTES: 0.0,
}
#: If these latencies are multiplied by a factor and the bandwidths are divided by it, the seconds of an
#: exchange are multiplied by the factor.
_LATENCIES = ("log hop latency (seconds)", "log hop latency within node (seconds)")
_BANDWIDTHS = ("log bandwidth (bytes/s)", "log bandwidth within node (bytes/s)")


def nodes_are_machines(cluster: Cluster) -> bool:
    """Whether nodes are separate real machines.

    - On separate real machines, the links within and between nodes differ, and ranks of one node share its
      network adapter.
    - An emulated cluster has links of one kind only.
    - Nodes that share one host have no network links between them.
    """
    return not cluster.nodes_share_host and cluster.virtual is None


@dataclass(frozen=True, kw_only=True)
class StepLaw:
    """The formula of step time for one cluster; a `regression.Law` with its own Jacobian.

    Args:
        parameters: The parameters to fit; the others have fixed values (`_DEFAULTS`).
        cluster: The cluster whose step times are predicted.
        parameter_bytes: Bytes of the model's parameters. If they are unknown, pass `NOMINAL_BYTES`, and
            `UNSTATED_BYTES` must be one of the parameters.
    """

    parameters: tuple[Parameter, ...]
    cluster: Cluster
    parameter_bytes: int
    _recent: list[tuple[Array, int, list[Alike]]] = field(default_factory=list, repr=False, compare=False)

    def __call__(self, theta: Array, inputs: Array) -> Array:
        """Returns the logarithm of the seconds of each step, `(num,)`.

        Args:
            theta: Values of the parameters, `(num_parameters,)`.
            inputs: Rows of `Steps.inputs`, `(num, NUM_COLUMNS)`. Results are cached by the identity of this
                array, so it must not be changed.
        """
        return np.asarray(self._at(theta[None, :], inputs)[0], dtype=float)

    def slopes(self, theta: Array, inputs: Array) -> Array:
        """Returns the Jacobian of the formula by forward differences, `(num, num_parameters)`.

        Args:
            theta: Values of the parameters, `(num_parameters,)`.
            inputs: Rows of `Steps.inputs`, see `__call__`.
        """
        found = self._at(np.concatenate([theta[None, :], theta + _STEP * np.eye(len(theta))]), inputs)
        return np.asarray((found[1:] - found[0]).T / _STEP, dtype=float)

    def exchange_share(self, theta: Array, inputs: Array) -> Array:
        """Returns which share of a step's time is due to communication between ranks, from 0 to 1, `(num,)`.

        If the communication takes 1% longer, the step takes s% longer, where s is the share: the derivative
        of the logarithm of the step's seconds with respect to the logarithm of the communication's seconds.

        Args:
            theta: Values of the parameters, `(num_parameters,)`.
            inputs: Rows of `Steps.inputs`, see `__call__`.
        """
        moved = theta.copy()
        for i, parameter in enumerate(self.parameters):
            moved[i] += _STEP * ((parameter.name in _LATENCIES) - (parameter.name in _BANDWIDTHS))
        found = self._at(np.stack([theta, moved]), inputs)
        return np.asarray(np.clip((found[1] - found[0]) / _STEP, 0.0, 1.0), dtype=float)

    def _at(self, thetas: Array, inputs: Array) -> Array:
        """Returns the log seconds of each step for several values of the parameters, `(num_thetas, num)`."""
        found = np.zeros((len(thetas), len(inputs)))
        for alike in self._alike(inputs, len(thetas)):
            unknowns = self._unknowns(thetas, len(alike.rows))
            bias: Values = 0.0
            if alike.where == EMULATED and self.cluster.at_hand is not None:
                bias = unknowns["log emulation bias (seconds)"]
                # Emulation computes step times from the description of the cluster; its values are the prior
                # means.
                described = np.array([[parameter.mean for parameter in self.parameters]])
                unknowns = self._unknowns(described, 1)
            seconds = np.log(np.maximum(self._seconds(unknowns, alike), 1e-12)) + bias
            found[:, alike.rows] = seconds.reshape(len(thetas), -1)
        return found

    def _unknowns(self, thetas: Array, num_rows: int) -> dict[str, Values]:
        """Returns the values of all parameters of the formula by name, repeated for every row."""
        values = np.repeat(thetas, num_rows, axis=0) if len(thetas) > 1 else thetas
        return {**_DEFAULTS, **{p.name: own for p, own in zip(self.parameters, values.T, strict=True)}}

    def _alike(self, inputs: Array, times: int) -> list[Alike]:
        """Groups the rows of `inputs` by formula; cached, since a fit evaluates the same rows often."""
        for rows, repeated, alike in self._recent:
            if rows is inputs and repeated == times:
                return alike
        made = alike_rows(inputs, times)
        self._recent.append((inputs, times, made))
        del self._recent[:-_MAX_RECENT]
        return made

    def _seconds(self, unknowns: dict[str, Values], alike: Alike) -> Array:
        """Returns the step seconds of rows with the same formula, `(times * num,)`."""
        at_hand = self.cluster.at_hand
        cluster = at_hand if at_hand is not None and alike.where == AT_HAND else self.cluster
        own, crowding = self._compute(unknowns, alike, cluster)
        network = self._network(unknowns, alike, cluster)
        ranks = alike.placements.num_ranks
        if not alike.of_compute:
            return batch_seconds(alike.traits, own * crowding, ranks, alike.taus, network)
        # While an all-reduce overlaps with compute, it slows the compute down.
        slowest = (own * crowding * (1 + network.jitter * expected_maximum(ranks))) ** network.overlap
        exchange = network.ring_seconds(ranks) ** network.overlap
        most = np.exp(unknowns["log compute slowdown (by communication)"])
        return np.asarray(own * (1 + most * exchange / (slowest + exchange)), dtype=float)

    def _compute(self, unknowns: dict[str, Values], alike: Alike, cluster: Cluster) -> tuple[Array, Values]:
        """Returns the seconds of one rank's compute, and the slowdown by other ranks on its node.

        The slowdown is a factor. If the cores of the host are known, the first result includes it, and the
        factor is 1. Compute is modeled as linear in the batch size. The error at single batch sizes is up to
        a quarter (caches, kernels); the residual covers it.
        """
        own = np.exp(unknowns["log fixed compute seconds"])
        own = own + np.exp(unknowns["log compute (seconds per sample)"]) * alike.per_rank
        neighbor = np.exp(unknowns["log slowdown (per busy neighbor)"])
        ranks, most = alike.placements.num_ranks, alike.placements.most_on_a_node
        if cluster.cores_per_host is None:
            return own, 1 + neighbor * (1 - 1 / most) if nodes_are_machines(self.cluster) else 1.0
        on_host = ranks if cluster.nodes_share_host else most
        share = on_host * cluster.threads_per_rank / cluster.cores_per_host
        alone = cluster.threads_per_rank / cluster.cores_per_host
        # Other busy ranks on the host share caches and memory even if each rank has its own core.
        busy = np.clip((np.minimum(share, 1.0) - alone) / max(1.0 - alone, 1e-9), 0.0, 1.0)
        exponent = unknowns["exponent of shared cores"]
        return own * (1 + neighbor * busy) * np.maximum(share, 1.0) ** exponent, 1.0

    def _network(self, unknowns: dict[str, Values], alike: Alike, cluster: Cluster) -> Network:
        virtual = cluster.virtual
        # Avoids division by a latency of 0.
        slower = 1.0 if virtual is None else virtual.one_way_seconds / max(virtual.latency, LEAST_SECONDS)
        return Network(
            num_bytes=self.parameter_bytes * np.exp(unknowns[UNSTATED_BYTES]),
            latency=np.exp(unknowns["log hop latency (seconds)"]),
            bytes_per_second=np.exp(unknowns["log bandwidth (bytes/s)"]),
            point_to_point=np.exp(unknowns["log bandwidth ratio (point-to-point/collective)"]),
            point_to_point_latency=slower,
            jitter=np.exp(unknowns["log jitter"]),
            persistent=np.clip(unknowns["persistent share of jitter"], 0.0, 1.0),
            overlap=np.clip(np.exp(unknowns["log overlap exponent"]), 1.0, 10.0),
            delays=cluster.delays,
            peers_wait=virtual is None,
            placements=alike.placements if nodes_are_machines(self.cluster) else None,
            within=Link(
                latency_seconds=np.exp(unknowns["log hop latency within node (seconds)"]),
                bytes_per_second=np.exp(unknowns["log bandwidth within node (bytes/s)"]),
            ),
            sharing=Sharing(
                device_exponent=unknowns["adapter sharing exponent"],
                peer_gain=unknowns["log bandwidth ratio (several nodes/one)"],
                variation=np.exp(unknowns["log variation of links"]),
            ),
        )
