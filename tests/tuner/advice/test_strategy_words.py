from __future__ import annotations

import math
from dataclasses import replace

import pytest

from search_spaces import Configuration
from tuner.advice.strategy_words import contrast, ranks_words, waits_words
from tuner.domain.cluster import Cluster, RankDelay
from tuner.domain.recommendation import Estimate, StrategyOutlook

LATE = Cluster(node_counts=(1, 4), delays=(RankDelay(ranks=(1,), low=0.0, high=0.3),))
QUIET = Cluster(node_counts=(1, 4))


def sure(value: float) -> Estimate:
    return Estimate(lower=value, median=value, upper=value)


def outlook(
    strategy: str, batch_seconds: float, samples: float, *, waits: bool, nodes: int = 4, batch: int = 64
) -> StrategyOutlook:
    return StrategyOutlook(
        configuration=Configuration(nodes=nodes, batch_size=batch, learning_rate=0.1, strategy=strategy),
        batch_seconds=sure(batch_seconds),
        samples=sure(samples),
        seconds=sure(batch_seconds * samples / batch),
        share_observed=0.0,
        waits_for_slowest=waits,
    )


GOSSIP = outlook("gossip_pull", 0.16, 39_000.0, waits=False)
ALL_REDUCE = outlook("all_reduce", 0.31, 30_000.0, waits=True)


def test_a_trade_of_samples_for_seconds_is_said_with_its_reason() -> None:
    assert contrast(GOSSIP, ALL_REDUCE, LATE, chosen=True) == (
        "gossip_pull needs 1.3 times the samples of all_reduce, but a batch takes 160 ms against 310 ms, "
        "because no rank waits for the delayed rank 1."
    )
    assert contrast(ALL_REDUCE, GOSSIP, LATE, chosen=False) == (
        "all_reduce would need 0.77 times the samples of gossip_pull, but a batch would take 310 ms against "
        "160 ms, because all ranks wait for the delayed rank 1."
    )


def test_without_a_delay_no_reason_is_made_up() -> None:
    words = contrast(GOSSIP, ALL_REDUCE, QUIET, chosen=True)
    assert words.endswith("but a batch takes 160 ms against 310 ms.")


def test_what_is_worse_or_better_in_both_is_no_trade() -> None:
    slow = replace(GOSSIP, batch_seconds=sure(0.5))
    words = contrast(slow, ALL_REDUCE, LATE, chosen=False)
    assert "would need 1.3 times the samples of all_reduce, and a batch would take 500 ms" in words


def test_what_is_about_equal_is_called_so() -> None:
    alike = outlook("gossip_push", 0.161, 39_500.0, waits=False)
    assert contrast(alike, GOSSIP, LATE, chosen=False) == (
        "gossip_push would need about as many samples as gossip_pull, and a batch would take about as long "
        "(161 ms)."
    )


def test_other_batches_are_held_against_each_other_by_the_sample_and_other_nodes_named() -> None:
    alone = outlook("all_reduce", 0.4, 30_000.0, waits=False, nodes=1, batch=128)
    assert contrast(GOSSIP, alone, LATE, chosen=True) == (
        "gossip_pull on 4 nodes needs 1.3 times the samples of all_reduce on 1 node, but 1,000 samples take "
        "2.5 s against 3.12 s."
    )


@pytest.mark.parametrize(
    ("ranks", "words"),
    [
        ((1, 3), "the delayed ranks 1 and 3"),
        ((0, 1, 3), "the delayed ranks 0, 1 and 3"),
        (None, "the slowest of 4 delayed ranks"),
    ],
)
def test_delayed_ranks_are_named(ranks: tuple[int, ...] | None, words: str) -> None:
    cluster = Cluster(node_counts=(4,), delays=(RankDelay(ranks=ranks, low=0.0, high=0.3),))
    assert contrast(GOSSIP, ALL_REDUCE, cluster, chosen=True).endswith(f"because no rank waits for {words}.")


def test_what_never_arrives_is_said_first() -> None:
    lost = replace(ALL_REDUCE, samples=sure(math.inf))
    words = "all_reduce is not expected to reach the target."
    assert contrast(lost, GOSSIP, LATE, chosen=False) == words
    assert contrast(GOSSIP, lost, LATE, chosen=True) == words


def test_waiting_is_said_with_how_often() -> None:
    rarely = ALL_REDUCE.configuration.replaced(strategy="local_sgd", tau=8)
    assert waits_words(GOSSIP) == "no"
    assert waits_words(ALL_REDUCE) == "every step"
    assert waits_words(replace(ALL_REDUCE, configuration=rarely)) == "every 8 steps"
    assert ranks_words([2]) == "rank 2"
