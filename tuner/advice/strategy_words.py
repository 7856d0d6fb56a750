"""Writes sentences that explain why one communication strategy is faster than another.

A sentence compares the number of samples to target and the time per batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from search_spaces import traits_of
from tuner.domain.cluster import Cluster
from tuner.domain.format import format_count, format_seconds
from tuner.domain.recommendation import StrategyOutlook

#: Two quantities count as equal if the larger one is less than this multiple of the smaller one.
_EQUAL_RATIO = 1.05
#: If two strategies have different batch sizes, their times are compared for this number of samples.
_SAMPLES_NAMED = 1000


def contrast(one: StrategyOutlook, other: StrategyOutlook, cluster: Cluster, *, chosen: bool) -> str:
    """Writes a sentence that compares two strategies, each with its best configuration.

    Args:
        one: Predictions for the strategy that is the subject of the sentence.
        other: Predictions for the strategy that `one` is compared with.
        cluster: The cluster; its artificially delayed ranks may be a reason for the difference.
        chosen: Whether `one` is the recommended strategy. If not, the sentence says "would need" instead of
            "needs".
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
    """Writes a clause that compares the times per batch, or per `_SAMPLES_NAMED` samples.

    Args:
        one: The strategy that is the subject of the sentence.
        other: The strategy that `one` is compared with.
        take: The verb: `takes` or `would take`.
        slower: Seconds per sample of `one`, divided by those of `other`.
    """
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
    """Writes a clause that names delayed ranks as the reason for a difference between two strategies.

    It is empty unless exactly one of the two strategies waits for delayed ranks.
    """
    if slower < 1 / _EQUAL_RATIO and other.waits_for_slowest and not one.waits_for_slowest:
        late = _delayed_words(cluster, other)
        return f", because no rank waits for {late}" if late else ""
    if slower > _EQUAL_RATIO and one.waits_for_slowest and not other.waits_for_slowest:
        late = _delayed_words(cluster, one)
        return f", because all ranks wait for {late}" if late else ""
    return ""


def _delayed_words(cluster: Cluster, waiting: StrategyOutlook) -> str:
    """Lists in words the delayed ranks that a strategy waits for; empty if no rank is delayed."""
    num_ranks = cluster.num_ranks(waiting.configuration.nodes)
    own = [rank for rank in range(num_ranks) if any(delay.slows(rank) for delay in cluster.delays)]
    if not own:
        return ""
    if len(own) == num_ranks:
        return f"the slowest of {num_ranks} delayed ranks"
    return f"the delayed {ranks_words(own)}"


def ranks_words(ranks: Sequence[int]) -> str:
    """Lists ranks in words, such as `rank 1` or `ranks 1, 2 and 3`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    *first, last = (str(rank) for rank in ranks)
    return f"ranks {', '.join(first)} and {last}"


def waits_words(outlook: StrategyOutlook) -> str:
    """Says in words how often ranks wait for the slowest rank, such as `every 4 steps`, or `no`."""
    if not outlook.waits_for_slowest:
        return "no"
    tau = traits_of(outlook.configuration.strategy).tau_of(outlook.configuration)
    return "every step" if tau == 1 else f"every {tau} steps"
