"""What ranks and links of a virtual cluster take: drawn step by step from a described distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.analytic.laws import compute_seconds, ring_all_reduce_seconds
from tuner.cluster import RankDelay

Array = npt.NDArray[np.float64]

#: A step is never shorter than this share of the mean one.
_SHORTEST = 0.1
_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class VirtualCluster:
    """Machines and links that need not be there.

    Args:
        fixed_seconds: a0 of a rank's step c(b) = a0 + a1 b.
        seconds_per_sample: a1.
        jitter: k, coefficient of variation of a rank's step around c(b).
        persistent: Share of the jitter's variance that stays with a rank.
        latency: A, seconds a message takes one way beside its bytes.
        bytes_per_second: w, of every link.
        overlap: g, how well an all-reduce of gradients hides behind compute, at least 1.
        delays: Delays of some ranks, drawn anew for each step.
        seconds_between_failures: Mean seconds of compute after which a rank fails; None for never.
        restart_seconds: What a failure costs the rank.
    """

    fixed_seconds: float
    seconds_per_sample: float
    jitter: float = 0.0
    persistent: float = 0.5
    latency: float = 0.0
    bytes_per_second: float = math.inf
    overlap: float = 1.0
    delays: tuple[RankDelay, ...] = ()
    seconds_between_failures: float | None = None
    restart_seconds: float = 0.0

    def mean_compute_seconds(self, num_samples: float) -> float:
        """c(b) of one rank."""
        law = compute_seconds(
            np.array(num_samples), fixed=self.fixed_seconds, per_sample=self.seconds_per_sample
        )
        return float(law)

    def message_seconds(self, num_bytes: float) -> float:
        """A + n / w: from one rank to another."""
        return self.latency + self.link_seconds(num_bytes)

    def link_seconds(self, num_bytes: float) -> float:
        """n / w: how long a message keeps a link busy."""
        return num_bytes / self.bytes_per_second

    def all_reduce_seconds(self, num_ranks: int, num_bytes: float) -> float:
        """Of a ring (see `ring_all_reduce_seconds`); 0 for one rank."""
        return float(
            ring_all_reduce_seconds(
                np.array(num_ranks),
                num_bytes,
                latency=self.latency,
                bytes_per_second=self.bytes_per_second,
            )
        )


class StepDraws:
    """Draws the seconds of every rank's steps; what one rank draws does not depend on the others.

    Jitter is normal, as the law of the slowest rank takes it: a part that stays with the rank, a part
    of each step, cut where a step would be shorter than a tenth of the mean.

    Args:
        cluster: What is drawn from.
        num_ranks: p.
        seed: Of all draws.
    """

    def __init__(self, cluster: VirtualCluster, num_ranks: int, seed: int) -> None:
        self._cluster = cluster
        self._rngs = [np.random.default_rng((seed, rank, 3)) for rank in range(num_ranks)]
        sd = cluster.jitter * math.sqrt(cluster.persistent)
        self._own = [1.0 + sd * float(rng.standard_normal()) for rng in self._rngs]
        self._step_sd = cluster.jitter * math.sqrt(1.0 - cluster.persistent)
        self._delays = [tuple(d for d in cluster.delays if d.slows(rank)) for rank in range(num_ranks)]
        self._normals: list[list[float]] = [[] for _ in range(num_ranks)]

    def seconds(self, rank: int, num_samples: int) -> float:
        """Of the next step of a rank on so many samples."""
        cluster, rng = self._cluster, self._rngs[rank]
        mean = cluster.mean_compute_seconds(num_samples)
        factor = self._own[rank]
        if self._step_sd:
            factor += self._step_sd * self._normal(rank)
        seconds = mean * max(factor, _SHORTEST)
        for delay in self._delays[rank]:
            seconds += float(rng.uniform(delay.low, delay.high))
        between = cluster.seconds_between_failures
        if between is not None and rng.random() < -math.expm1(-seconds / between):
            seconds += cluster.restart_seconds
        return seconds

    def _normal(self, rank: int) -> float:
        kept = self._normals[rank]
        if not kept:
            kept.extend(self._rngs[rank].standard_normal(_BLOCK).tolist())
        return kept.pop()

    def state(self) -> list[dict[str, Any]]:
        """What `load` goes on from, one entry a rank."""
        return [
            {"generator": dict(rng.bit_generator.state), "normals": list(kept)}
            for rng, kept in zip(self._rngs, self._normals, strict=True)
        ]

    def load(self, state: list[dict[str, Any]]) -> None:
        """Goes on from what `state` gave."""
        for rng, kept, own in zip(self._rngs, self._normals, state, strict=True):
            rng.bit_generator.state = own["generator"]
            kept[:] = own["normals"]
