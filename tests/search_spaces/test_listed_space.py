import numpy as np
import pytest

from search_spaces import Configuration, FloatRange, ListedSpace, OneOf, ProductSpace

FEW = Configuration(nodes=1, machine="small", learning_rate=0.1, depth=2)
MANY = Configuration(nodes=8, machine="large", learning_rate=0.1, depth=4)
OTHER = Configuration(nodes=8, machine="small", learning_rate=0.01, depth=4)
SPACE = ListedSpace(configurations=(MANY, FEW, OTHER))


class NoEight:
    def reason_against(self, configuration):
        return "eight are too many" if configuration.nodes == 8 else None


def test_candidates_are_the_list_in_its_order():
    assert SPACE.candidates() == [MANY, FEW, OTHER]
    assert SPACE.with_condition(NoEight()).candidates() == [FEW]


def test_axes_are_those_of_the_configurations_with_every_listed_value():
    assert list(SPACE.axes) == ["nodes", "machine", "learning_rate", "depth"]
    assert SPACE.axes["nodes"].levels() == [1, 8]
    assert SPACE.axes["machine"].levels() == ["large", "small"]
    assert SPACE.axes["learning_rate"].levels() == [0.01, 0.1]


def test_a_combination_that_is_not_listed_is_refused_and_the_nearest_named():
    stranger = Configuration(nodes=2, machine="small", learning_rate=0.1, depth=2)
    (reason,) = SPACE.reasons_against(stranger)
    assert "is not listed" in reason
    assert str(FEW) in reason
    assert not SPACE.is_feasible(stranger)
    assert not SPACE.is_runnable(stranger)
    assert SPACE.is_feasible(FEW)


def test_nearest_weighs_numbers_by_their_ratio():
    assert SPACE.nearest(MANY.replaced(nodes=6)) == MANY
    assert SPACE.nearest(OTHER.replaced(learning_rate=0.012, depth=3)) == OTHER


def test_what_is_drawn_is_feasible_and_everything_is_drawn():
    rng = np.random.default_rng(0)
    assert {SPACE.sample(rng) for _ in range(60)} == {MANY, FEW, OTHER}
    assert {SPACE.with_condition(NoEight()).sample(rng) for _ in range(9)} == {FEW}
    assert ListedSpace(configurations=(MANY,), conditions=(NoEight(),)).sample(rng) is None


def test_an_axis_of_one_strategy_only_is_a_knob_of_it():
    plain = Configuration(nodes=1, strategy="all_reduce")
    often = Configuration(nodes=1, strategy="local_sgd", tau=4)
    seldom = Configuration(nodes=1, strategy="local_sgd", tau=16)
    space = ListedSpace(configurations=(plain, seldom, often))
    assert list(space.axes) == ["nodes", "strategy"]
    assert space.knob_choices("local_sgd") == {"tau": OneOf([4, 16])}
    assert space.knob_choices("all_reduce") == {}
    assert space.knob_choices("gossip_pull") == {}


def test_a_list_without_sense_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        ListedSpace(configurations=())
    with pytest.raises(ValueError, match="twice"):
        ListedSpace(configurations=(FEW, FEW))
    with pytest.raises(ValueError, match="other axes than"):
        ListedSpace(configurations=(FEW, FEW.without("depth")))


def test_both_kinds_of_space_answer_to_the_same_questions():
    choices = {
        "nodes": OneOf([1, 2]),
        "batch_size": OneOf([8]),
        "learning_rate": FloatRange(low=0.1, high=0.1),
        "strategy": OneOf(["all_reduce"]),
    }
    product = ProductSpace(choices=choices)
    listed = ListedSpace(configurations=tuple(product.candidates()))
    assert listed.candidates() == product.candidates()
    assert {name: choice.levels() for name, choice in listed.axes.items()} == {
        name: choice.levels() for name, choice in product.axes.items()
    }
