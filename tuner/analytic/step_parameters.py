"""The unknowns of the law of steps with their priors, by what is known of the cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tuner.analytic.regression import Parameter
from tuner.analytic.step_law import LEAST_SECONDS, UNSTATED_BYTES, nodes_are_machines
from tuner.analytic.strategy_encoding import exchanges_asynchronously
from tuner.domain.cluster import Cluster, VirtualCluster

LINKS_VARIATION = "log variation of links"

_PARAMETERS = (
    Parameter(name="log fixed compute seconds", mean=math.log(3e-3), sd=2.0),
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
#: Nodes that are machines of their own.
#: - Latency of a hop: about 1 ms over TCP for each bucket of gradients, as collectives show it, not a ping.
#:   DistributedDataParallel reduces in buckets of 25 MB, partly at once: we take the geometric mean of one
#:   latency for all buckets and of one for each.
#: - Bandwidth with several other nodes over that with one: a flow between two hosts is often limited, and
#:   with several hosts rings in several orders use two flows each (see `Sharing`). So the factor lies between
#:   1 and 2: the mean is the middle of their logarithms. Workloads on one cluster differ less than clusters
#:   do; the width is a compromise.
#: - Links vary by 15%, or as much as placements scatter (`step_fit`).
_MACHINE_LATENCY = Parameter(name="log latency seconds of a hop", mean=math.log(1e-3), sd=1.0)
_MACHINE_PARAMETERS = (
    Parameter(name=LINKS_VARIATION, mean=math.log(0.15), sd=0.3),
    Parameter(name="log bandwidth to several nodes over that to one", mean=0.5 * math.log(2.0), sd=0.12),
)
_BUCKET_BYTES = 25e6
#: Models have 5 MB (MobileNet) to 2 GB (GPT-2 medium and larger) of parameters: two standard deviations.
_UNSTATED_BYTES = Parameter(name=UNSTATED_BYTES, mean=0.0, sd=1.5)
#: Several devices on each machine. Ranks on one node reach each other through shared memory, PCIe 3 through
#: the host (6 GB/s), or a local socket. Their exchange hides behind the backward pass, two thirds of compute:
#: if both are equally long, they take 4/3 of compute, and 2^(1/2.4) = 4/3.
_DEVICE_OVERLAP = Parameter(name="log overlap exponent", mean=math.log(2.4), sd=0.3)
_DEVICE_PARAMETERS = (
    Parameter(name="log latency seconds of a hop within a node", mean=math.log(3e-5), sd=1.2),
    Parameter(name="log bytes a second within a node", mean=math.log(6e9), sd=1.0),
    Parameter(name="exponent of devices that share an adapter", mean=0.0, sd=0.15),
)
#: Needed where waits were timed: an exchange takes memory bandwidth, or cores, from the compute beside it.
_SLOWED_COMPUTE = Parameter(name="log slowdown of compute by the exchange", mean=math.log(0.05), sd=1.0)
#: What a description leaves unsure of each unknown, and the least jitter that its logarithm is taken of.
_DESCRIBED_SD, _LEAST_JITTER = 0.05, 1e-4
#: If a part of a described cluster is at hand, its steps show the truth and the description is only a
#: prior; what is emulated from the description shows the error of the law, up to a bias of its own.
_DOUBTED_SD = 0.4
_BIAS = Parameter(name="log bias of emulated seconds", mean=0.0, sd=0.1)


def prior_parameters(
    cluster: Cluster, strategies: Sequence[str], parameter_bytes: float, *, with_waits: bool
) -> tuple[Parameter, ...]:
    """The unknowns of a cluster's law.

    Args:
        cluster: What is asked about.
        strategies: All that were timed or are to be predicted.
        parameter_bytes: Bytes of the model's parameters; 0 where unknown.
        with_waits: Whether waits were timed.
    """
    found = _PARAMETERS + (_FURTHER_PARAMETERS if exchanges_asynchronously(strategies) else ())
    if nodes_are_machines(cluster):
        found += (_MACHINE_LATENCY, *_MACHINE_PARAMETERS)
        if cluster.devices_per_node > 1:
            found += (_DEVICE_OVERLAP, *_DEVICE_PARAMETERS)
        if with_waits:
            found += (_SLOWED_COMPUTE,)
        if parameter_bytes == 0:
            found += (_UNSTATED_BYTES,)
        # Of two with the same name the later one counts, in the place of the first.
        by_name = {parameter.name: parameter for parameter in found}
        # A latency of one bucket as that of all of them.
        longer = 0.5 * math.log(max(math.ceil(parameter_bytes / _BUCKET_BYTES), 1))
        found = tuple(
            replace(p, mean=p.mean + longer) if "latency" in name else p for name, p in by_name.items()
        )
    if cluster.virtual is not None:
        most_sd = _DESCRIBED_SD if cluster.at_hand is None else _DOUBTED_SD
        found = _described(found, cluster.virtual, most_sd)
    return found if cluster.at_hand is None else (*found, _BIAS)


def _described(
    parameters: tuple[Parameter, ...], virtual: VirtualCluster, most_sd: float
) -> tuple[Parameter, ...]:
    """The unknowns with what a description of the cluster says of them, each as surely at the least."""
    messages = virtual.message_bytes_per_second or virtual.bytes_per_second
    said = {
        "log fixed compute seconds": math.log(max(virtual.fixed_seconds, LEAST_SECONDS)),
        "log compute seconds a sample": math.log(virtual.seconds_per_sample),
        "log latency seconds of a hop": math.log(max(virtual.latency, LEAST_SECONDS)),
        "log bytes a second": math.log(virtual.bytes_per_second),
        "log jitter": math.log(max(virtual.jitter, _LEAST_JITTER)),
        "log overlap exponent": math.log(virtual.overlap),
        "log point-to-point bandwidth over the collective's": math.log(messages / virtual.bytes_per_second),
        "persistent share of jitter": virtual.persistent,
    }
    return tuple(
        replace(p, mean=said[p.name], sd=min(p.sd, most_sd)) if p.name in said else p for p in parameters
    )
