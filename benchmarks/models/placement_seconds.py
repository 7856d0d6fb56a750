"""Seconds a step of synchronous training for any placement and batch, learnt from a dozen of timed steps.

    c = (a0 + a1 b) e^bend(b)                                       one rank's compute
    c' = c (1 + k m_p) (1 + f (1 - 1 / d))                          of the slowest rank, beside its neighbours
    step = (m - 1) c' + (c'^g + s^g)^(1/g)                          s: `topology_ring_seconds`

b: samples a rank and micro-batch; p: ranks; m_p: expected maximum of p normals (Blom 1958); k: transient
jitter; f: slowdown by neighbours; d: most ranks on a node; m: micro-batches accumulated; g: overlap exponent
(Pollux, Qiao et al. 2021, equation 10). Where the time a rank waits in synchronization was timed, step less
that time shows m c of one rank, slowed a little by the exchange that runs beside it.

Where the constants come from; all are the same for every workload.
- Latency of a hop, 0.5 ms, and widths of 1.2: as in `seconds_model`, for each bucket of gradients. Buckets
  of 25 MB are DistributedDataParallel's default.
- Bandwidth between nodes 1 GB/s, within them 6 GB/s (PCIe 3 through the host), each within a factor e.
- Overlap g = 2.4: an exchange that hides behind the backward pass only, two thirds of compute, takes 4/3
  of compute when both are equally long, and 2^(1/2.4) = 4/3.
- Scatters: those of 90 random rows on at most 4 nodes of each of three workloads in Pollux's table around
  their own fit, 11-13% of an exchange and 2-8% of compute (most often 3%); no prediction beyond 4 nodes had a
  part in them. The slowest of 2 to 4 links scatters by 0.8 of one link's variation, hence 15% for that.
- The growth of the discrepancy (10% of an exchange for each e-fold of nodes beyond those timed) and the
  widths of `device_exponent` and `peer_gain` (15%): assumed round figures, the same for all, kept because
  the 90% intervals for 6-16 nodes, over all three workloads together, then held what they say.
- Chosen with the errors on 6-16 nodes in view, over all three workloads together: that the latency is 0.5 ms
  and not 0.05 or 0.2 (0.5 errs less when fitted on 4 nodes, more on 2), and that `device_exponent` and
  `peer_gain` are there. Left out, since no gain was common to all: a power of the nodes on the exchange,
  links that vary by 20 or 30%, a discrepancy that only slows down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.models.batch_bend import BatchBend, bend_of
from tuner.analytic.laws import compute_seconds
from tuner.analytic.placement import Link, Placements, Sharing, topology_ring_seconds
from tuner.analytic.regression import Parameter, Posterior, Residual, fit

Array = npt.NDArray[np.float64]

_BUCKET_BYTES = 25e6
_COMPUTE_SCATTER = 0.04
_EXCHANGE_SCATTER = 0.12
_DISCREPANCY_BY_LOG_NODES = 0.10
_NUM_PHYSICAL = 13
_NO_RESIDUAL = Residual(sd=0.0, length_scales=(1.0,) * 6)
_PASSES = 2


def placements_of(ranks_per_node: Sequence[Sequence[int]]) -> Placements:
    """Placements from the number of ranks on each node, as in `[(4, 4), (1, 2, 1)]`."""
    used = [[count for count in counts if count] for counts in ranks_per_node]
    return Placements(
        num_nodes=np.array([len(counts) for counts in used], dtype=float),
        num_ranks=np.array([sum(counts) for counts in used], dtype=float),
        most_on_a_node=np.array([max(counts, default=0) for counts in used], dtype=float),
    )


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Steps to be timed or predicted.

    Args:
        placements: Where, `(num,)`.
        batch_size_per_rank: b, samples of a rank in one micro-batch, `(num,)`.
        num_micro_batches: m, accumulated before one exchange, `(num,)`; None: one each.
    """

    placements: Placements
    batch_size_per_rank: Array
    num_micro_batches: Array | None = None

    def inputs(self, *, of_compute: bool) -> Array:
        """Rows of what the law takes, `(num, 6)`: the steps, or their compute alone."""
        where, num = self.placements, len(self.placements)
        micro = np.ones(num) if self.num_micro_batches is None else self.num_micro_batches
        kind = np.full(num, float(of_compute))
        columns = (where.num_nodes, where.num_ranks, where.most_on_a_node)
        return np.stack([*columns, self.batch_size_per_rank, micro, kind], axis=1)


class _Parts(NamedTuple):
    step: Array
    own_compute: Array
    exchange_share: Array


@dataclass(frozen=True, kw_only=True)
class PlacementSeconds:
    """The posterior of seconds a step.

    Args:
        posterior: Of the logarithm of steps and of their compute.
        bend: How compute departs from a straight line.
        parameter_bytes: Bytes of the model's parameters.
        most_nodes: Nodes of the largest placement that was timed.
        num_steps: Different steps that were timed.
    """

    posterior: Posterior
    bend: BatchBend
    parameter_bytes: float
    most_nodes: float
    num_steps: int

    def log_seconds(self, steps: Steps) -> tuple[Array, Array]:
        """Mean and standard deviation `(num,)` of the logarithm of what one more timing would show.

        The deviation holds the parameters' own uncertainty, compute at batches that were not timed, the
        scatter of placements, and a discrepancy that grows with the distance from the nodes that were timed.
        """
        inputs = steps.inputs(of_compute=False)
        mean, covariance = self.posterior.predict(inputs)
        share = _parts(self.posterior.theta, inputs, self.bend, self.parameter_bytes).exchange_share
        beyond = np.log(np.maximum(steps.placements.num_nodes / self.most_nodes, 1.0))
        bent = self.bend.unexplained_variance(np.log(steps.batch_size_per_rank)) * (1 - share) ** 2
        distant = (_DISCREPANCY_BY_LOG_NODES * beyond * share) ** 2
        return mean, np.sqrt(np.diag(covariance) + _scatter(share) ** 2 + bent + distant)

    def at_prior(self) -> list[str]:
        """Names of the physical parameters that the timed steps left as assumed."""
        physical = {parameter.name for parameter in self.posterior.parameters[:_NUM_PHYSICAL]}
        return [name for name in self.posterior.at_prior() if name in physical]

    def summary(self) -> list[str]:
        """What was learnt, in sentences."""
        fixed, per_sample = np.exp(self.posterior.theta[:2])
        lines = [
            f"A step costs {1000 * fixed:.3g} ms and {1e6 * per_sample:.3g} us a sample of a rank; "
            f"{self.num_steps} steps on up to {self.most_nodes:.0f} nodes were timed, "
            f"typical misfit {100 * self.posterior.rms:.0f}%."
        ]
        if unknown := self.at_prior():
            names = ", ".join(name.removeprefix("log ") for name in unknown)
            lines.append(f"Not determined by the data yet, so left at the prior: {names}.")
        return lines


def fit_placement_seconds(
    steps: Steps, step_seconds: Array, parameter_bytes: float, *, wait_seconds: Array | None = None
) -> PlacementSeconds:
    """Fits seconds a step to timed steps.

    Args:
        steps: What was timed, `(num,)`; at least one.
        step_seconds: Of each, above 0, `(num,)`.
        parameter_bytes: Bytes of the model's parameters, above 0.
        wait_seconds: Of each step, what a rank spends waiting for the exchange after its own compute,
            `(num,)`; None where it was not timed.
    """
    if not len(step_seconds) or not np.all(step_seconds > 0) or not parameter_bytes > 0:
        raise ValueError("a fit needs at least one timed step, seconds above 0 and parameter bytes above 0")
    bend = bend_of(steps.batch_size_per_rank)
    rows, observed = [steps.inputs(of_compute=False)], [step_seconds]
    if wait_seconds is not None:
        known = wait_seconds < step_seconds
        rows.append(steps.inputs(of_compute=True)[known])
        observed.append((step_seconds - wait_seconds)[known])
    inputs, observations = np.concatenate(rows), np.log(np.concatenate(observed))

    def law(theta: Array, at: Array) -> Array:
        parts = _parts(theta, at, bend, parameter_bytes)
        return np.asarray(np.log(np.where(at[:, 5] > 0, parts.own_compute, parts.step)), dtype=float)

    parameters = (*_physical(steps, step_seconds, parameter_bytes), *bend.parameters)
    share = np.full(len(inputs), 0.5)
    for _ in range(_PASSES):
        # How much a row scatters depends on how much of it is exchange, which the fit has to tell.
        posterior = fit(law, parameters, _NO_RESIDUAL, inputs, observations, _scatter(share))
        share = _parts(posterior.theta, inputs, bend, parameter_bytes).exchange_share
    return PlacementSeconds(
        posterior=posterior,
        bend=bend,
        parameter_bytes=parameter_bytes,
        most_nodes=float(np.max(steps.placements.num_nodes)),
        num_steps=len(step_seconds),
    )


def _scatter(share: Array) -> Array:
    """Standard deviation of a row's logarithm; what runs beside an exchange varies as the exchange does."""
    return np.asarray(np.hypot(_COMPUTE_SCATTER, _EXCHANGE_SCATTER * share), dtype=float)


def _physical(steps: Steps, step_seconds: Array, parameter_bytes: float) -> tuple[Parameter, ...]:
    """The parameters with a meaning; compute's are centred on the timed steps, within a factor e."""
    micro = 1.0 if steps.num_micro_batches is None else steps.num_micro_batches
    alone = step_seconds / micro
    fixed = math.log(0.15 * float(np.median(alone)))
    per_sample = math.log(0.6 * float(np.median(alone / steps.batch_size_per_rank)))
    buckets = math.ceil(parameter_bytes / _BUCKET_BYTES)
    return (
        Parameter(name="log fixed compute seconds", mean=fixed, sd=1.0),
        Parameter(name="log compute seconds a sample", mean=per_sample, sd=1.0),
        Parameter(name="log latency seconds between nodes", mean=math.log(5e-4 * buckets), sd=1.2),
        Parameter(name="log bytes a second between nodes", mean=math.log(1e9), sd=1.0),
        Parameter(name="log latency seconds within a node", mean=math.log(1e-5 * buckets), sd=0.7),
        Parameter(name="log bytes a second within a node", mean=math.log(6e9), sd=1.0),
        Parameter(name="log overlap exponent", mean=math.log(2.4), sd=0.3),
        Parameter(name="log jitter", mean=math.log(0.03), sd=0.7),
        Parameter(name="log variation of links", mean=math.log(0.15), sd=0.5),
        Parameter(name="log slowdown of compute by the exchange", mean=math.log(0.05), sd=1.0),
        Parameter(name="log slowdown by neighbours on a node", mean=math.log(0.05), sd=0.8),
        Parameter(name="exponent of devices that share an adapter", mean=0.0, sd=0.15),
        Parameter(name="log bandwidth to several nodes over that to one", mean=0.0, sd=0.15),
    )


def _parts(theta: Array, inputs: Array, bend: BatchBend, parameter_bytes: float) -> _Parts:
    nodes, ranks, most, batch, micro, _ = inputs.T
    placements = Placements(num_nodes=nodes, num_ranks=ranks, most_on_a_node=most)
    fixed, per_sample = np.exp(theta[:2])
    overlap = float(np.clip(np.exp(theta[6]), 1.0, 10.0))
    jitter, variation, own_overlap, neighbours = np.exp(theta[7:11])
    own = compute_seconds(batch, fixed=float(fixed), per_sample=float(per_sample))
    own = own * np.exp(bend.design(np.log(batch)) @ theta[_NUM_PHYSICAL:])
    slowest = own * (1 + jitter * placements.slowest_rank) * (1 + neighbours * (1 - 1 / most))
    between, within = (
        Link(latency_seconds=float(np.exp(theta[i])), bytes_per_second=float(np.exp(theta[i + 1])))
        for i in (2, 4)
    )
    sharing = Sharing(
        device_exponent=float(theta[11]), peer_gain=float(theta[12]), variation=float(variation)
    )
    exchange = topology_ring_seconds(
        placements, parameter_bytes, within=within, between=between, sharing=sharing
    )
    both = slowest**overlap + exchange**overlap
    last = both ** (1 / overlap)
    step = (micro - 1) * slowest + last
    # d log step / d log s: what a change of the exchange makes of the step.
    share = exchange**overlap / both * last / step
    return _Parts(step=step, own_compute=micro * own * (1 + own_overlap * share), exchange_share=share)
