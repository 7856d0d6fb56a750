"""The two clusters whose time `benchmarks.paper` counts: a 10 Gbit/s one, and a slow one with stragglers.

The paper trained ResNet-18, whose messages are some 1,600 times those of the small network trained here.
Links are therefore slowed by the same factor, so that a message takes as long beside a step as its would:

    bytes_per_second = link_bytes_per_second x num_bytes / PAPER_BYTES

num_bytes: bytes of the small network's parameters; PAPER_BYTES: of ResNet-18's. Seconds of a step are set,
not measured: 11 GFLOP a sample (three times a forward pass of 3.6) at some 3.6 TFLOP/s, one GPU of a K80.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuner.domain.cluster import RankDelay, VirtualCluster

#: Of 11,689,512 parameters in single precision.
PAPER_BYTES = 4 * 11_689_512
FIXED_SECONDS, SECONDS_PER_SAMPLE = 0.02, 0.003
#: How well an all-reduce hides behind compute (Pollux, 2021, writes g); 1 would be not at all.
OVERLAP = 2.0


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A cluster as far as its time goes.

    Args:
        name: In files.
        title: In tables and figures.
        link_bits_per_second: Of every link.
        latency_seconds: Of a message beside its bytes.
        jitter: Coefficient of variation of a rank's step; half its variance stays with the rank.
        straggler_every: Every so manieth rank is slowed by U[0, 300] ms a step (Jin et al. 2016); 0 for none.
    """

    name: str
    title: str
    link_bits_per_second: float
    latency_seconds: float
    jitter: float
    straggler_every: int = 0

    def cluster(self, num_ranks: int, num_bytes: int, *, overlap: float = OVERLAP) -> VirtualCluster:
        """What so many ranks run on, whose messages are of so many bytes."""
        every = self.straggler_every
        # Not rank 0, which holds the server.
        slowed = tuple(range(every - 1, num_ranks, every)) if every else ()
        return VirtualCluster(
            fixed_seconds=FIXED_SECONDS,
            seconds_per_sample=SECONDS_PER_SAMPLE,
            jitter=self.jitter,
            latency=self.latency_seconds,
            bytes_per_second=self.link_bits_per_second / 8 * num_bytes / PAPER_BYTES,
            overlap=overlap,
            delays=(RankDelay(ranks=slowed, low=0.0, high=0.3),) if slowed else (),
        )


FAST = Clock(
    name="fast", title="10 Gbit/s, jitter", link_bits_per_second=1e10, latency_seconds=5e-5, jitter=0.1
)
SLOW = Clock(
    name="slow",
    title="1 Gbit/s, stragglers",
    link_bits_per_second=1e9,
    latency_seconds=2e-4,
    jitter=0.1,
    straggler_every=8,
)
CLOCKS = {clock.name: clock for clock in (FAST, SLOW)}
