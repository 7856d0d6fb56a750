"""Parameters of the formula of step time, with their priors, for each kind of cluster.

- Exchange: the communication of gradients or parameters between ranks.
- Hop: the way of a message from one rank to its neighbor in the ring of a collective operation.
- Emulated cluster: a cluster that exists only as a description (`[cluster.machine]` of the job file). Its
  ranks are trained on this host under a virtual clock, and their steps are called emulated steps.
"""

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
    Parameter(name="log compute (seconds per sample)", mean=math.log(1e-3), sd=3.0),
    Parameter(name="log hop latency (seconds)", mean=math.log(5e-4), sd=1.2),
    Parameter(name="log bandwidth (bytes/s)", mean=math.log(1e9), sd=1.2),
    Parameter(name="exponent of shared cores", mean=1.0, sd=0.15),
    Parameter(name="log slowdown (per busy neighbor)", mean=math.log(0.1), sd=0.8),
    Parameter(name="log jitter", mean=math.log(0.05), sd=0.5),
    Parameter(name="log overlap exponent", mean=math.log(1.5), sd=0.3),
)
#: Additional parameters if a strategy exchanges model parameters instead of gradients. Its messages between
#: two ranks have a different bandwidth than collectives. It exchanges every tau steps, and the persistent
#: share of jitter only matters if tau is above 1.
_FURTHER_PARAMETERS = (
    Parameter(name="log bandwidth ratio (point-to-point/collective)", mean=0.0, sd=0.7),
    Parameter(name="persistent share of jitter", mean=0.5, sd=0.2),
)
#: Additional parameters for separate machines.
#: - Latency per hop: in collectives over TCP, about 1 ms for each bucket of gradients (more than that of a
#:   ping). DistributedDataParallel reduces gradients in buckets of 25 MB, some of them at the same time. If
#:   all buckets overlapped, a step would have one latency per hop; if none did, one for each bucket. The
#:   prior mean is the geometric mean of both.
#: - Bandwidth to several other nodes, divided by the bandwidth to one other node: between 1 and 2. The rate
#:   of one flow between two hosts is often limited, and rings in several orders use two flows each (see
#:   `Sharing`).
#: - Variation of the speeds of links: 15%, until timings show how much links scatter (see `step_fit`).
_MACHINE_LATENCY = Parameter(name="log hop latency (seconds)", mean=math.log(1e-3), sd=1.0)
_MACHINE_PARAMETERS = (
    Parameter(name=LINKS_VARIATION, mean=math.log(0.15), sd=0.3),
    Parameter(name="log bandwidth ratio (several nodes/one)", mean=0.5 * math.log(2.0), sd=0.12),
)
_BUCKET_BYTES = 25e6
#: Two standard deviations cover models with 5 MB (MobileNet) to 2 GB (GPT-2 medium) of parameters.
_UNSTATED_BYTES = Parameter(name=UNSTATED_BYTES, mean=0.0, sd=1.5)
#: Additional parameters for machines with several devices. Ranks on one node exchange gradients through
#: shared memory, PCIe 3 (6 GB/s) or a local socket. The prior mean 2.4 of the overlap exponent g follows from
#: the backward pass, which is two thirds of compute and overlaps with the exchange. If exchange and compute
#: are equally long, a step therefore takes 4/3 of compute, and 2^(1/g) = 4/3 for g = 2.4.
_DEVICE_OVERLAP = Parameter(name="log overlap exponent", mean=math.log(2.4), sd=0.3)
_DEVICE_PARAMETERS = (
    Parameter(name="log hop latency within node (seconds)", mean=math.log(3e-5), sd=1.2),
    Parameter(name="log bandwidth within node (bytes/s)", mean=math.log(6e9), sd=1.0),
    Parameter(name="adapter sharing exponent", mean=0.0, sd=0.15),
)
#: Additional parameter if the waits of ranks were timed. It describes that an exchange uses memory bandwidth
#: and cores, so compute that overlaps with it is slower.
_SLOWED_COMPUTE = Parameter(name="log compute slowdown (by communication)", mean=math.log(0.05), sd=1.0)
#: `_DESCRIBED_SD` is the largest prior standard deviation of a parameter that the description of an emulated
#: cluster specifies. A jitter below `_LEAST_JITTER` is replaced by it before its logarithm is taken.
_DESCRIBED_SD, _LEAST_JITTER = 0.05, 1e-4
#: Largest prior standard deviation of these parameters if some nodes of the emulated cluster exist
#: (`Cluster.at_hand`). Steps are then also timed on these nodes, and the description may be inaccurate. So
#: emulated steps may be biased, and `_BIAS` is an additional parameter.
_DOUBTED_SD = 0.4
_BIAS = Parameter(name="log emulation bias (seconds)", mean=0.0, sd=0.1)


def prior_parameters(
    cluster: Cluster, strategies: Sequence[str], parameter_bytes: float, *, with_waits: bool
) -> tuple[Parameter, ...]:
    """Returns the parameters of the formula of step time for a cluster, with their priors.

    Args:
        cluster: The cluster whose step times are predicted.
        strategies: Names of all strategies that were timed or will be predicted.
        parameter_bytes: Bytes of the model's parameters; 0 if unknown.
        with_waits: Whether it was measured how long ranks wait for communication.
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
        # If two parameters have the same name, the later one replaces the earlier one.
        by_name = {parameter.name: parameter for parameter in found}
        # Half the logarithm of the number of buckets: see the latency per hop above.
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
    """Sets the prior means of parameters to the values in the description of an emulated cluster.

    Args:
        parameters: The parameters with their general priors.
        virtual: The description of the emulated cluster.
        most_sd: Largest prior standard deviation of a parameter that the description specifies.
    """
    messages = virtual.message_bytes_per_second or virtual.bytes_per_second
    said = {
        "log fixed compute seconds": math.log(max(virtual.fixed_seconds, LEAST_SECONDS)),
        "log compute (seconds per sample)": math.log(virtual.seconds_per_sample),
        "log hop latency (seconds)": math.log(max(virtual.latency, LEAST_SECONDS)),
        "log bandwidth (bytes/s)": math.log(virtual.bytes_per_second),
        "log jitter": math.log(max(virtual.jitter, _LEAST_JITTER)),
        "log overlap exponent": math.log(virtual.overlap),
        "log bandwidth ratio (point-to-point/collective)": math.log(messages / virtual.bytes_per_second),
        "persistent share of jitter": virtual.persistent,
    }
    return tuple(
        replace(p, mean=said[p.name], sd=min(p.sd, most_sd)) if p.name in said else p for p in parameters
    )
