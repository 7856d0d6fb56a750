from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Configuration
from tuner.domain.cluster import Charge, Cluster, Machine, charge

MACHINES = {
    "small": Machine(cores=1, dollars_per_hour=0.36),
    "large": Machine(cores=8, dollars_per_hour=3.6),
}
TWO = Configuration(nodes=2, batch_size=32, learning_rate=0.1, strategy="all_reduce")
AMOUNTS = st.floats(0.0, 1e9)


def test_nothing_costs_nothing():
    assert Charge() == Charge(seconds=0.0, dollars=0.0)


def test_charges_add_up_in_seconds_and_in_dollars():
    assert Charge(seconds=10.0, dollars=0.5) + Charge(seconds=2.0, dollars=0.25) == Charge(
        seconds=12.0, dollars=0.75
    )


def test_a_sum_leaves_its_parts_as_they_are():
    first = Charge(seconds=10.0, dollars=0.5)
    total = first
    total += Charge(seconds=2.0, dollars=0.25)
    assert first == Charge(seconds=10.0, dollars=0.5)
    with pytest.raises(FrozenInstanceError, match="seconds"):
        first.seconds = 0.0  # type: ignore[misc]


@given(seconds=AMOUNTS, more_seconds=AMOUNTS, price=AMOUNTS)
def test_two_slices_cost_what_one_as_long_as_both_costs(
    seconds: float, more_seconds: float, price: float
) -> None:
    cluster = Cluster(node_counts=(2,), dollars_per_node_hour=price)
    both = charge(seconds, TWO, cluster) + charge(more_seconds, TWO, cluster)
    whole = charge(seconds + more_seconds, TWO, cluster)
    assert both.seconds == whole.seconds
    assert both.dollars == pytest.approx(whole.dollars)


def test_holding_free_nodes_costs_time_and_no_money():
    assert charge(10.0, TWO, Cluster(node_counts=(2,))) == Charge(seconds=10.0, dollars=0.0)


def test_nodes_that_are_all_alike_cost_what_one_costs_times_their_number():
    cluster = Cluster(node_counts=(1, 2), dollars_per_node_hour=3.6)
    assert cluster.dollars_per_second(TWO) == pytest.approx(0.002)
    assert charge(10.0, TWO, cluster) == Charge(seconds=10.0, dollars=pytest.approx(0.02))


def test_a_named_machine_costs_its_own_price():
    cluster = Cluster(node_counts=(2,), machines=MACHINES, dollars_per_node_hour=99.0)
    assert cluster.dollars_per_second(TWO.replaced(machine="large")) == pytest.approx(0.002)
    assert cluster.dollars_per_second(TWO.replaced(machine="small")) == pytest.approx(0.0002)


def test_machines_beside_the_nodes_are_charged_at_the_same_price():
    cluster = Cluster(node_counts=(2,), machines=MACHINES, extra_nodes=1)
    assert cluster.dollars_per_second(TWO.replaced(machine="large")) == pytest.approx(0.003)


def test_a_single_type_of_machine_need_not_be_named():
    cluster = Cluster(node_counts=(2,), machines={"large": MACHINES["large"]})
    assert cluster.dollars_per_second(TWO) == pytest.approx(0.002)
    assert cluster.machine_of(TWO) == MACHINES["large"]


def test_a_cluster_knows_whether_anything_has_a_price():
    free = Machine(cores=4, dollars_per_hour=0.0)
    assert Cluster(node_counts=(1,), dollars_per_node_hour=0.1).has_prices
    assert Cluster(node_counts=(1,), machines=MACHINES).has_prices
    assert not Cluster(node_counts=(1,), machines={"node": free}).has_prices
    assert not Cluster(node_counts=(1,)).has_prices
