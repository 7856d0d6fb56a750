import pytest

from search_spaces import Configuration
from tuner.charge import Charge, charge
from tuner.cluster import Cluster, Machine

MACHINES = {
    "small": Machine(cores=1, dollars_per_hour=0.36),
    "large": Machine(cores=8, dollars_per_hour=3.6),
}
TWO = Configuration(nodes=2, batch_size=32, learning_rate=0.1, strategy="all_reduce")


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
