from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import (
    BatchCoversRanks,
    Configuration,
    FloatRange,
    OneOf,
    ProductSpace,
    RanksWithin,
    traits_of,
)


def space_of(nodes=(1, 2, 4), batches=(1, 2, 8, 32), devices_per_node=1):
    return ProductSpace(
        choices={
            "nodes": OneOf(list(nodes)),
            "batch_size": OneOf(list(batches)),
            "learning_rate": FloatRange(low=1e-4, high=1.0),
            "strategy": OneOf(["all_reduce"]),
        },
        conditions=(BatchCoversRanks(devices_per_node=devices_per_node),),
    )


def configuration(**changes):
    base = {"nodes": 1, "batch_size": 8, "learning_rate": 0.01, "strategy": "all_reduce"}
    return Configuration({**base, **changes})


@given(
    st.sets(st.integers(1, 64), min_size=1, max_size=4),
    st.sets(st.integers(1, 64), min_size=1, max_size=4),
    st.integers(1, 4),
)
def test_candidates_are_exactly_the_feasible_combinations(nodes, batches, devices_per_node):
    space = space_of(sorted(nodes), sorted(batches), devices_per_node)
    candidates = space.candidates()
    assert all(space.is_feasible(candidate) for candidate in candidates)
    assert len(set(candidates)) == len(candidates)
    num_rates = len(FloatRange(low=1e-4, high=1.0).levels())
    expected = sum(b >= n * devices_per_node for n in nodes for b in batches) * num_rates
    assert len(candidates) == expected


@given(st.integers(0, 2**32 - 1))
def test_samples_are_feasible(seed):
    space = space_of()
    drawn = space.sample(np.random.default_rng(seed))
    assert drawn is not None
    assert space.reasons_against(drawn) == []


def test_sampling_gives_up_where_nothing_is_feasible():
    space = space_of(nodes=(4,), batches=(1, 2))
    assert space.sample(np.random.default_rng(0), attempts=20) is None
    assert space.candidates() == []


def test_a_batch_smaller_than_the_ranks_is_refused_with_the_reason():
    reasons = space_of().reasons_against(configuration(nodes=4, batch_size=2))
    assert reasons == ["batch_size 2 leaves some of 4 ranks without a sample"]


def test_devices_of_a_node_count_as_ranks():
    condition = BatchCoversRanks(devices_per_node=8)
    assert condition.reason_against(configuration(nodes=2, batch_size=16)) is None
    assert "16 ranks" in str(condition.reason_against(configuration(nodes=2, batch_size=15)))


def test_every_axis_outside_the_space_is_named():
    odd = configuration(nodes=3, learning_rate=5.0, tau=4).without("batch_size")
    reasons = "; ".join(space_of().reasons_against(odd))
    assert "tau is not an axis of this space" in reasons
    assert "nodes=3: allowed is one of 1, 2, 4" in reasons
    assert "batch_size is missing" in reasons
    assert "learning_rate=5.0: allowed is a number from 0.0001 to 1" in reasons


def test_memory_once_exceeded_closes_that_share_and_all_larger_ones():
    space = space_of().with_condition(RanksWithin(too_large_per_rank=16))
    assert space.is_feasible(configuration(nodes=4, batch_size=32))
    assert not space.is_feasible(configuration(nodes=2, batch_size=32))
    assert not space.is_feasible(configuration(nodes=1, batch_size=32))
    reasons = space.reasons_against(configuration(nodes=2, batch_size=32))
    assert reasons == ["16 samples per rank, but 16 ran out of memory"]


def test_statistics_of_all_reduce_do_not_depend_on_nodes():
    traits = traits_of("all_reduce")
    one, four = configuration(nodes=1), configuration(nodes=4)
    assert traits.statistics_of(one) == traits.statistics_of(four)
    assert traits.statistics_of(one) != traits.statistics_of(configuration(batch_size=32))


def test_candidates_are_those_of_the_space_as_it_is_and_nobody_elses():
    space = space_of()
    first = space.candidates()
    first.clear()
    assert space.candidates() == list(space.combinations()) != []
    narrower = space.with_condition(RanksWithin(too_large_per_rank=8))
    assert narrower.candidates() == [c for c in space.candidates() if narrower.is_feasible(c)]


def test_levels_that_are_equal_but_written_otherwise_are_other_candidates():
    whole, broken = (
        ProductSpace(choices={**space_of().choices, "learning_rate": OneOf([value])}) for value in (1, 1.0)
    )
    assert whole.candidates() == list(whole.combinations())
    assert broken.candidates() == list(broken.combinations()) != whole.candidates()


def test_an_unknown_strategy_gets_the_nearest():
    with pytest.raises(KeyError, match=r"unknown strategy 'allreduce'; .*did you mean 'all_reduce'"):
        traits_of("allreduce")
