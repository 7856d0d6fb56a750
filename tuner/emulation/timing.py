"""Computes the times of steps and all-reduces of virtual ranks from the description of a cluster."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tuner.analytic.all_reduce_cost import ring_all_reduce_seconds
from tuner.domain.cluster import VirtualCluster

#: A random step time is at least this share of the mean.
_SHORTEST = 0.1
_BLOCK = 256


def all_reduce_seconds(cluster: VirtualCluster, num_ranks: int, num_bytes: float) -> float:
    """Returns the seconds of a ring all-reduce (see `ring_all_reduce_seconds`); 0 for one rank."""
    p = np.array(num_ranks)
    law = ring_all_reduce_seconds(
        p, num_bytes, latency=cluster.latency, bytes_per_second=cluster.bytes_per_second
    )
    return float(law)


class StepDraws:
    """Generates random step times for each rank, independently of the other ranks.

    - Jitter (the random variation of step times) is normally distributed, as `analytic.slowest_rank` assumes.
      One part of it is constant for each rank; the rest is new for each step.
    - The compute of a step takes at least `_SHORTEST` times the mean.
    - Artificial delays are the same as those of real ranks with this seed.

    Args:
        cluster: Description of step times and delays.
        num_ranks: Number of virtual ranks.
        seed: Seed of the jitter, the delays and the failures.
    """

    def __init__(self, cluster: VirtualCluster, num_ranks: int, seed: int) -> None:
        self._cluster = cluster
        self._rngs = [np.random.default_rng((seed, rank, 3)) for rank in range(num_ranks)]
        # Same seed as for real ranks (`tuner.probes.ranks.rank`).
        self._delay_rngs = [np.random.default_rng((seed, rank, 2)) for rank in range(num_ranks)]
        sd = cluster.jitter * math.sqrt(cluster.persistent)
        self._own = [1.0 + sd * float(rng.standard_normal()) for rng in self._rngs]
        self._step_sd = cluster.jitter * math.sqrt(1.0 - cluster.persistent)
        self._delays = [tuple(d for d in cluster.delays if d.slows(rank)) for rank in range(num_ranks)]
        self._normals: list[list[float]] = [[] for _ in range(num_ranks)]

    def seconds(self, rank: int, num_samples: int) -> float:
        """Returns random seconds for a rank's next step on `num_samples` samples, with artificial delays."""
        return sum(self.parts(rank, num_samples))

    def parts(self, rank: int, num_samples: int) -> tuple[float, float]:
        """Returns random seconds of compute and of delay for a rank's next step.

        The delay consists of the artificial delays and, if the rank fails in this step, of its restart.
        """
        cluster, rng = self._cluster, self._rngs[rank]
        mean = cluster.mean_compute_seconds(num_samples)
        factor = self._own[rank]
        if self._step_sd:
            factor += self._step_sd * self._normal(rank)
        compute = mean * max(factor, _SHORTEST)
        still = sum(
            float(self._delay_rngs[rank].uniform(delay.low, delay.high)) for delay in self._delays[rank]
        )
        between = cluster.seconds_between_failures
        if between is not None and rng.random() < -math.expm1(-(compute + still) / between):
            still += cluster.restart_seconds
        return compute, still

    def _normal(self, rank: int) -> float:
        block = self._normals[rank]
        if not block:
            block.extend(self._rngs[rank].standard_normal(_BLOCK).tolist())
        return block.pop()

    def state(self) -> list[dict[str, Any]]:
        """Returns the state of each rank's random generator, for a checkpoint; `load` restores it."""
        return [
            {
                "generator": dict(rng.bit_generator.state),
                "delays": dict(delays.bit_generator.state),
                "normals": list(block),
            }
            for rng, delays, block in zip(self._rngs, self._delay_rngs, self._normals, strict=True)
        ]

    def load(self, state: list[dict[str, Any]]) -> None:
        """Restores the random generators that `state` returned."""
        for rng, delays, block, own in zip(self._rngs, self._delay_rngs, self._normals, state, strict=True):
            rng.bit_generator.state = own["generator"]
            delays.bit_generator.state = own["delays"]
            block[:] = own["normals"]
