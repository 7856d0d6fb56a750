"""Explain in a sentence why one strategy is faster than another: samples needed and time per batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search_spaces import traits_of
from tuner.domain.cluster import Cluster
from tuner.domain.format import format_count, format_seconds
from tuner.domain.recommendation import StrategyOutlook

#: Two quantities count as equal if their ratio is closer to 1 than this.
_EQUAL_RATIO = 1.05
#: Strategies with different batch sizes are compared by the time for this number of samples.
_SAMPLES_NAMED = 1000


def contrast(one: StrategyOutlook, other: StrategyOutlook, cluster: Cluster, *, chosen: bool) -> str:
    """A sentence that compares the best configurations of two strategies.

    Args:
        one: The strategy that the sentence is about.
        other: The strategy that it is compared with.
        cluster: The cluster; its delayed ranks may explain a difference.
        chosen: Whether `one` is the recommended strategy. If not, the sentence uses the conditional.
    """
    if not math.isfinite(one.samples.median):
        return f"{_name(one, other)} is not expected to reach the target."
    if not math.isfinite(other.samples.median):
        return f"{_name(other, one)} is not expected to reach the target."
    more_samples = one.samples.median / other.samples.median
    slower = _sample_seconds(one) / _sample_seconds(other)
    trade = (more_samples > _EQUAL_RATIO and slower < 1 / _EQUAL_RATIO) or (
        more_samples < 1 / _EQUAL_RATIO and slower > _EQUAL_RATIO
    )
    need, take = ("needs", "takes") if chosen else ("would need", "would take")
    if 1 / _EQUAL_RATIO <= more_samples <= _EQUAL_RATIO:
        samples = f"{need} about as many samples as {_name(other, one)}"
    else:
        samples = f"{need} {more_samples:.2g} times the samples of {_name(other, one)}"
    seconds = _seconds_words(one, other, take, slower)
    link = "but" if trade else "and"
    return f"{_name(one, other)} {samples}, {link} {seconds}{_reason(one, other, slower, cluster)}."


def _name(outlook: StrategyOutlook, other: StrategyOutlook) -> str:
    configuration = outlook.configuration
    if configuration.nodes == other.configuration.nodes:
        return configuration.strategy
    nodes = "1 node" if configuration.nodes == 1 else f"{configuration.nodes} nodes"
    return f"{configuration.strategy} on {nodes}"


def _sample_seconds(outlook: StrategyOutlook) -> float:
    return outlook.batch_seconds.median / outlook.configuration.batch_size


def _seconds_words(one: StrategyOutlook, other: StrategyOutlook, take: str, slower: float) -> str:
    """Compares the time for a batch if both batch sizes are equal, else for `_SAMPLES_NAMED` samples."""
    size = one.configuration.batch_size
    if size == other.configuration.batch_size:
        what, count = f"a batch {take}", size
    else:
        plural = take if take.startswith("would") else "take"
        what, count = f"{format_count(_SAMPLES_NAMED)} samples {plural}", _SAMPLES_NAMED
    ours, theirs = (format_seconds(count * _sample_seconds(outlook)) for outlook in (one, other))
    if 1 / _EQUAL_RATIO <= slower <= _EQUAL_RATIO:
        return f"{what} about as long ({ours})"
    return f"{what} {ours} against {theirs}"


def _reason(one: StrategyOutlook, other: StrategyOutlook, slower: float, cluster: Cluster) -> str:
    """A clause on the delayed ranks, if only one of the two strategies waits for them; else empty."""
    if slower < 1 / _EQUAL_RATIO and other.waits_for_slowest and not one.waits_for_slowest:
        late = _delayed_words(cluster, other)
        return f", because no rank waits for {late}" if late else ""
    if slower > _EQUAL_RATIO and one.waits_for_slowest and not other.waits_for_slowest:
        late = _delayed_words(cluster, one)
        return f", because all ranks wait for {late}" if late else ""
    return ""


def _delayed_words(cluster: Cluster, waiting: StrategyOutlook) -> str:
    """Names the delayed ranks that a strategy waits for; empty if no rank is delayed."""
    num_ranks = cluster.num_ranks(waiting.configuration.nodes)
    own = [rank for rank in range(num_ranks) if any(delay.slows(rank) for delay in cluster.delays)]
    if not own:
        return ""
    if len(own) == num_ranks:
        return f"the slowest of {num_ranks} delayed ranks"
    return f"the delayed {ranks_words(own)}"


def ranks_words(ranks: Sequence[int]) -> str:
    """Formats ranks, such as `rank 1` or `ranks 1, 2 and 3`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    *first, last = (str(rank) for rank in ranks)
    return f"ranks {', '.join(first)} and {last}"


def waits_words(outlook: StrategyOutlook) -> str:
    """How often ranks wait for the slowest one, such as `every 4 steps`; `no` if they never do."""
    if not outlook.waits_for_slowest:
        return "no"
    tau = traits_of(outlook.configuration.strategy).tau_of(outlook.configuration)
    return "every step" if tau == 1 else f"every {tau} steps"
