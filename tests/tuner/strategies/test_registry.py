import inspect

import pytest

from search_spaces import STRATEGIES
from tuner.strategies import Strategy, strategy


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_can_be_made_and_has_its_own_traits(name: str) -> None:
    made = strategy(name)
    assert isinstance(made, Strategy)
    assert made.traits is STRATEGIES[name]
    assert not inspect.isabstract(type(made))


def test_each_call_makes_a_new_strategy() -> None:
    assert strategy("all_reduce") is not strategy("all_reduce")


def test_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(KeyError, match=r"known are all_reduce, .*; did you mean 'all_reduce'"):
        strategy("allreduce")
