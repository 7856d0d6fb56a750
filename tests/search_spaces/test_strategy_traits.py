from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import (
    KNOBS,
    STRATEGIES,
    Configuration,
    CountRange,
    declare_recorded_strategy,
    traits_of,
    with_knobs,
)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_defaults_and_levels_of_every_knob_are_allowed(name: str) -> None:
    for knob in STRATEGIES[name].knobs.values():
        assert knob.allowed.contains(knob.default)
        assert all(knob.allowed.contains(level) for level in knob.levels.levels())


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_rank_that_is_alone_moves_nothing_and_others_at_most_what_an_exchange_takes(name: str) -> None:
    traits = STRATEGIES[name]
    assert traits.vectors_per_exchange(1) == 0.0
    moved = [traits.vectors_per_exchange(p) for p in (2, 8, 128)]
    assert moved == sorted(moved)
    assert all(0 < vectors <= traits.vectors for vectors in moved)


def test_stated_knobs_stay_and_missing_ones_have_their_default() -> None:
    bare = Configuration(nodes=2, batch_size=8, learning_rate=0.1, strategy="elastic_averaging", tau=3)
    whole = with_knobs(bare)
    assert whole["tau"] == 3
    assert whole["beta"] == 0.8
    assert with_knobs(whole) is whole
    assert traits_of("elastic_averaging").tau_of(whole) == 3
    assert traits_of("all_reduce").tau_of(bare.replaced(strategy="all_reduce")) == 1


def test_knobs_are_named_once_for_all_strategies() -> None:
    assert KNOBS == ("tau", "beta", "outer_learning_rate", "outer_momentum")


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 2**32))
def test_count_range_samples_and_levels_lie_within(low: int, more: int, seed: int) -> None:
    choice = CountRange(low=low, high=low + more)
    assert choice.contains(choice.sample(np.random.default_rng(seed)))
    levels = choice.levels()
    assert levels[0] == low
    assert levels[-1] == low + more
    assert all(choice.contains(level) for level in levels)
    assert choice.nearest(0) == low
    assert choice.nearest(10**9) == low + more
    assert not choice.contains(low - 1)
    assert not choice.contains(float(low))
    assert str(low) in choice.describe()


def test_count_range_needs_an_order() -> None:
    with pytest.raises(ValueError, match="1 <= low <= high"):
        CountRange(low=3, high=2)


def test_a_strategy_that_only_a_recording_names_is_reported_by_its_name():
    with pytest.raises(KeyError, match="unknown strategy 'sync_replicas'"):
        traits_of("sync_replicas")
    waiting, free = (declare_recorded_strategy(name) for name in ("sync_replicas", "AsyncDownpour"))
    assert traits_of("sync_replicas") is waiting is declare_recorded_strategy("sync_replicas")
    assert (waiting.barrier, waiting.exchanged, waiting.partners) == (True, "gradients", "all")
    assert (free.barrier, free.partners, free.counted_batch) == (False, "server", "rank")
    assert waiting.knobs == free.knobs == {}
    assert "sync_replicas" not in STRATEGIES


def test_a_recorded_strategy_says_nothing_of_other_nodes_or_machines():
    what = Configuration(nodes=4, machine="large", batch_size=8, learning_rate=0.1, strategy="some_recorded")
    assert declare_recorded_strategy("some_recorded").statistics_of(what) == what
    assert traits_of("all_reduce").statistics_of(what) == what.without("nodes", "machine")


def test_declaring_a_strategy_of_paceline_s_own_changes_nothing():
    assert declare_recorded_strategy("all_reduce") is STRATEGIES["all_reduce"]
