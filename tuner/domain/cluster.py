"""Describes the cluster of a job: nodes, devices, emulated machines, and prices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from search_spaces import Configuration

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class RankDelay:
    """An artificial delay of some ranks, to study the effect of slow nodes.

    After the backward pass of each step, a delayed rank sleeps for a time that is drawn uniformly from an
    interval (as in Jin et al. 2016, with 0 to 300 ms).

    Args:
        ranks: Indices of the delayed ranks; None for all ranks.
        low: Shortest delay, seconds.
        high: Longest delay, seconds.
    """

    ranks: tuple[int, ...] | None
    low: float
    high: float

    def slows(self, rank: int) -> bool:
        """Whether the given rank is delayed."""
        return self.ranks is None or rank in self.ranks


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A type of machine to use as nodes.

    Args:
        cores: Number of CPU cores of one machine.
        dollars_per_hour: Price of one machine per hour.
    """

    cores: int
    dollars_per_hour: float


@dataclass(frozen=True, kw_only=True)
class VirtualCluster:
    """Description of machines and network links that are emulated; step times are computed from it.

    Symbols: b is the number of samples per step of one rank; c(b) = a0 + a1 b is the mean time of its step
    without communication, in seconds.

    Args:
        fixed_seconds: a0, the part of a step's time that does not depend on b, in seconds.
        seconds_per_sample: a1, the increase of a step's time per sample, in seconds.
        jitter: k, the standard deviation of the step time of a rank, divided by its mean c(b).
        persistent: Share of the variance of the step time that comes from constant differences between ranks;
            the rest of the variance is between steps.
        latency: A, latency of a link in collective operations: seconds in which a message passes from one
            rank to the next.
        bytes_per_second: w, bandwidth of a link in collective operations, in bytes per second.
        message_latency: One-way latency of messages between two ranks (gossip, parameter servers), in
            seconds; None if it equals `latency`.
        message_bytes_per_second: Bandwidth of a link for messages between two ranks, in bytes per second;
            None if it equals `bytes_per_second`.
        overlap: g, at least 1: how well an all-reduce of gradients overlaps with compute. A step with c
            seconds of compute and s seconds of all-reduce takes (c^g + s^g)^(1/g) seconds: c + s for g = 1
            (no overlap), and nearly the larger of c and s for large g.
        delays: Artificial delays of some ranks, which are added to their step times.
        seconds_between_failures: Mean compute time of a rank between two failures of this rank, in seconds;
            None for no failures.
        restart_seconds: Seconds that a rank loses when it fails, until it computes again.
    """

    fixed_seconds: float
    seconds_per_sample: float
    jitter: float = 0.0
    persistent: float = 0.5
    latency: float = 0.0
    bytes_per_second: float = math.inf
    message_latency: float | None = None
    message_bytes_per_second: float | None = None
    overlap: float = 1.0
    delays: tuple[RankDelay, ...] = ()
    seconds_between_failures: float | None = None
    restart_seconds: float = 0.0

    def mean_compute_seconds(self, num_samples: float) -> float:
        """Returns c(b), the mean seconds of one rank's step on b = `num_samples` samples."""
        return self.fixed_seconds + self.seconds_per_sample * num_samples

    @property
    def one_way_seconds(self) -> float:
        """One-way latency of a message between two ranks, in seconds."""
        return self.latency if self.message_latency is None else self.message_latency

    def link_seconds(self, num_bytes: float) -> float:
        """Returns for how many seconds a message of `num_bytes` bytes occupies a network link."""
        own = self.message_bytes_per_second
        return num_bytes / (self.bytes_per_second if own is None else own)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The nodes on which a job trains, real or emulated.

    Args:
        node_counts: Numbers of nodes with which a configuration may train, ascending.
        devices_per_node: Number of ranks on one node.
        dollars_per_node_hour: Price of one node per hour; 0 if only time counts.
        launcher: Name of the launcher, the program that starts the ranks, such as `local`.
        threads_per_rank: Number of CPU threads of one rank.
        cores_per_host: Number of CPU cores of the host that runs the ranks; None if unknown, or if the ranks
            compute on accelerators.
        nodes_share_host: Whether all nodes are processes of one host (the `local` launcher) and share the
            cores of this host.
        delays: Artificial delays that are added to the steps of every training.
        machines: Maps the name of each type of machine to the type, if a configuration specifies the type of
            its nodes; empty if all nodes have the same type.
        extra_nodes: Number of machines that are used and paid in addition to the nodes of a configuration,
            such as the machine of a parameter server.
        virtual: Description of emulated nodes ([cluster.machine] of the job file), from which the times of
            emulated ranks are computed; None if no rank is emulated.
        at_hand: The real nodes, if the job has real and emulated nodes. Configurations with at most this
            number of nodes are trained on the real nodes, and larger configurations are emulated. None if the
            job has only real nodes or only emulated nodes.
        capacity: Number of nodes, with the extra nodes, that can be used at the same time; None if it equals
            the number of nodes of the largest configuration that runs on real nodes, plus the extra nodes.
    """

    node_counts: tuple[int, ...]
    devices_per_node: int = 1
    dollars_per_node_hour: float = 0.0
    launcher: str = "local"
    threads_per_rank: int = 1
    cores_per_host: int | None = None
    nodes_share_host: bool = True
    delays: tuple[RankDelay, ...] = ()
    machines: Mapping[str, Machine] = field(default_factory=dict, hash=False)
    extra_nodes: int = 0
    virtual: VirtualCluster | None = None
    at_hand: Cluster | None = None
    capacity: int | None = None

    def nodes_held(self, configuration: Configuration) -> int:
        """Returns how many nodes a configuration occupies, including extra nodes; 0 if it is emulated."""
        return 0 if self.emulates(configuration) else configuration.nodes + self.extra_nodes

    @property
    def nodes_at_once(self) -> int:
        """Number of nodes that all trainings together may use at the same time."""
        if self.capacity is not None:
            return self.capacity
        there = self if self.at_hand is None else self.at_hand
        return there.node_counts[-1] + self.extra_nodes

    def emulates(self, configuration: Configuration) -> bool:
        """Whether one process on this host emulates the ranks of a configuration, with a virtual clock."""
        if self.virtual is None:
            return False
        return self.at_hand is None or configuration.nodes > self.at_hand.node_counts[-1]

    def carrier_of(self, configuration: Configuration) -> Cluster:
        """Returns the cluster on which a configuration trains.

        It is `at_hand` (the real nodes) if the job has real and emulated nodes and the configuration is not
        emulated, else this cluster.
        """
        return self if self.at_hand is None or self.emulates(configuration) else self.at_hand

    @property
    def has_prices(self) -> bool:
        """Whether nodes have a price."""
        return self.dollars_per_node_hour > 0 or any(m.dollars_per_hour > 0 for m in self.machines.values())

    def machine_of(self, configuration: Configuration) -> Machine | None:
        """Returns the type of the machines that a configuration uses; None if the job specifies no types."""
        name = configuration.get("machine")
        if name is None and len(self.machines) == 1:
            return next(iter(self.machines.values()))
        return self.machines.get(str(name))

    def dollars_per_second(self, configuration: Configuration) -> float:
        """Returns the price of a configuration's nodes and of the extra nodes, in dollars per second."""
        machine = self.machine_of(configuration)
        price = self.dollars_per_node_hour if machine is None else machine.dollars_per_hour
        return (configuration.nodes + self.extra_nodes) * price / _SECONDS_PER_HOUR

    def num_ranks(self, num_nodes: int) -> int:
        """Returns the number of ranks on a number of nodes."""
        return num_nodes * self.devices_per_node

    def load(self, configurations: Sequence[Configuration]) -> float:
        """Returns how many CPU threads several trainings need together, divided by the cores of the host.

        The trainings, one for each of `configurations`, run at the same time. An emulated configuration
        counts as one rank. The result is 0 if every node is a separate host, or if the number of cores is
        unknown.
        """
        there = self if self.at_hand is None else self.at_hand
        if not there.nodes_share_host or there.cores_per_host is None:
            return 0.0
        ranks = sum(1 if self.emulates(c) else there.num_ranks(c.nodes) for c in configurations)
        return ranks * there.threads_per_rank / there.cores_per_host

    def oversubscription(self, num_nodes: int) -> float:
        """Returns how many CPU threads compete for each core of a host, at least 1.

        The result is 1 if the number of cores is unknown.

        Args:
            num_nodes: Number of nodes of the configuration.
        """
        if self.cores_per_host is None:
            return 1.0
        ranks = self.num_ranks(num_nodes) if self.nodes_share_host else self.devices_per_node
        return max(1.0, ranks * self.threads_per_rank / self.cores_per_host)


@dataclass(frozen=True, kw_only=True)
class Charge:
    """Seconds and dollars that are charged to the budget of a search.

    Args:
        seconds: Wall-clock seconds in which nodes were in use, including start-up and evaluation.
        dollars: Price of the nodes for these seconds.
    """

    seconds: float = 0.0
    dollars: float = 0.0

    def __add__(self, other: Charge) -> Charge:
        return Charge(seconds=self.seconds + other.seconds, dollars=self.dollars + other.dollars)


def charge(seconds: float, configuration: Configuration, cluster: Cluster) -> Charge:
    """Computes what it costs to use the nodes of a configuration for some time.

    Args:
        seconds: Wall-clock seconds for which the nodes are used.
        configuration: The configuration, whose number and type of nodes determine the price.
        cluster: The cluster, which defines the prices.
    """
    return Charge(seconds=seconds, dollars=seconds * cluster.dollars_per_second(configuration))
