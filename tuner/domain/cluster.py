"""The cluster of a job: its nodes and devices, and the price of a node in dollars per second."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from search_spaces import Configuration

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class RankDelay:
    """A delay that is added to every step of some ranks, to see the effect of slow nodes.

    Each step sleeps for a time drawn uniformly between the bounds, after its backward pass (Jin et al. 2016
    slowed chosen ranks so, by 0 to 300 ms).

    Args:
        ranks: The ranks; None for all, which is jitter.
        low: Shortest delay, seconds.
        high: Longest delay, seconds.
    """

    ranks: tuple[int, ...] | None
    low: float
    high: float

    def slows(self, rank: int) -> bool:
        """Whether it slows this rank."""
        return self.ranks is None or rank in self.ranks


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A type of machine that a node may be.

    Args:
        cores: CPU cores of one.
        dollars_per_hour: Price of one for an hour.
    """

    cores: int
    dollars_per_hour: float


@dataclass(frozen=True, kw_only=True)
class VirtualCluster:
    """Machines and links that need not be there.

    Args:
        fixed_seconds: a0 of a rank's step c(b) = a0 + a1 b.
        seconds_per_sample: a1.
        jitter: k, coefficient of variation of a rank's step around c(b).
        persistent: Share of the jitter's variance that stays with a rank.
        latency: A, one-way seconds of a message without its bytes; for collectives, per hop.
        bytes_per_second: w, of every link.
        message_latency: A of messages between two ranks (gossip, servers); the collectives' if None.
        message_bytes_per_second: w of messages between two ranks; the collectives' if None.
        overlap: g, how well an all-reduce of gradients hides behind compute, at least 1.
        delays: Delays of some ranks, drawn anew for each step.
        seconds_between_failures: Mean seconds of compute after which a rank fails; None for never.
        restart_seconds: Seconds that a rank loses by a failure.
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
        """c(b) of one rank."""
        return self.fixed_seconds + self.seconds_per_sample * num_samples

    @property
    def one_way_seconds(self) -> float:
        """A of a message between two ranks."""
        return self.latency if self.message_latency is None else self.message_latency

    def link_seconds(self, num_bytes: float) -> float:
        """n / w: how long a message keeps a link busy."""
        own = self.message_bytes_per_second
        return num_bytes / (self.bytes_per_second if own is None else own)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The machines a job may use.

    Args:
        node_counts: Numbers of nodes that may be chosen, ascending.
        devices_per_node: Ranks on one node.
        dollars_per_node_hour: Price of one node for one hour; 0 if only time counts.
        launcher: How ranks are started.
        threads_per_rank: CPU threads of one rank.
        cores_per_host: CPU cores of the host that carries the ranks, where compute runs on CPU.
        nodes_share_host: Whether all nodes are processes of one host (the `local` launcher), so that
            they compete for its cores.
        delays: Artificial delays added to the steps of every probe.
        machines: Types of machine by name, if configurations name one; empty if all nodes are alike.
        extra_nodes: Machines that are charged besides the nodes, such as a parameter server's.
        virtual: Times of its machines and links, if they are described and need not be there: ranks
            are then emulated.
        at_hand: The part of a described cluster that exists: ranks on no more nodes than it has really
            train; None if all are emulated, or none is.
        capacity: Nodes available at once, extra nodes included; the number of the largest configuration
            if None.
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
        """Nodes of the cluster that a configuration's ranks occupy; none if they are emulated."""
        return 0 if self.emulates(configuration) else configuration.nodes + self.extra_nodes

    @property
    def nodes_at_once(self) -> int:
        """How many nodes may be in use at once, over all configurations."""
        if self.capacity is not None:
            return self.capacity
        there = self if self.at_hand is None else self.at_hand
        return there.node_counts[-1] + self.extra_nodes

    def emulates(self, configuration: Configuration) -> bool:
        """Whether a configuration's ranks are emulated."""
        if self.virtual is None:
            return False
        return self.at_hand is None or configuration.nodes > self.at_hand.node_counts[-1]

    def carrier_of(self, configuration: Configuration) -> Cluster:
        """The cluster that runs a configuration's real ranks: the part at hand if only a part is."""
        return self if self.at_hand is None or self.emulates(configuration) else self.at_hand

    @property
    def has_prices(self) -> bool:
        """Whether anything costs dollars here."""
        return self.dollars_per_node_hour > 0 or any(m.dollars_per_hour > 0 for m in self.machines.values())

    def machine_of(self, configuration: Configuration) -> Machine | None:
        """The type of machine of a configuration's nodes; None if it is not stated."""
        name = configuration.get("machine")
        if name is None and len(self.machines) == 1:
            return next(iter(self.machines.values()))
        return self.machines.get(str(name))

    def dollars_per_second(self, configuration: Configuration) -> float:
        """Dollars per second for a configuration's nodes and for what is charged besides them."""
        machine = self.machine_of(configuration)
        price = self.dollars_per_node_hour if machine is None else machine.dollars_per_hour
        return (configuration.nodes + self.extra_nodes) * price / _SECONDS_PER_HOUR

    def num_ranks(self, num_nodes: int) -> int:
        """Ranks on this many nodes."""
        return num_nodes * self.devices_per_node

    def load(self, configurations: Sequence[Configuration]) -> float:
        """Threads of these configurations when run at once, over the cores of the host that runs them.

        0 if nodes are hosts of their own, or nothing is measured by this host's clock.
        """
        there = self if self.at_hand is None else self.at_hand
        if not there.nodes_share_host or there.cores_per_host is None:
            return 0.0
        ranks = sum(1 if self.emulates(c) else there.num_ranks(c.nodes) for c in configurations)
        return ranks * there.threads_per_rank / there.cores_per_host

    def oversubscription(self, num_nodes: int) -> float:
        """Threads of all ranks on a host over its cores, at least 1; 1 where cores are unknown."""
        if self.cores_per_host is None:
            return 1.0
        ranks = self.num_ranks(num_nodes) if self.nodes_share_host else self.devices_per_node
        return max(1.0, ranks * self.threads_per_rank / self.cores_per_host)


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What something cost.

    Args:
        seconds: Wall-clock seconds, including start-up and evaluation.
        dollars: Price of the nodes held for that time.
    """

    seconds: float = 0.0
    dollars: float = 0.0

    def __add__(self, other: Charge) -> Charge:
        return Charge(seconds=self.seconds + other.seconds, dollars=self.dollars + other.dollars)


def charge(seconds: float, configuration: Configuration, cluster: Cluster) -> Charge:
    """What a configuration costs when its nodes are held for `seconds`."""
    return Charge(seconds=seconds, dollars=seconds * cluster.dollars_per_second(configuration))
