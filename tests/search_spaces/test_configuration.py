from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Configuration

values = st.one_of(
    st.booleans(),
    st.integers(min_value=-(2**53), max_value=2**53),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.text(max_size=20),
)
axes = st.dictionaries(
    st.sampled_from(["nodes", "machine", "batch_size", "learning_rate", "strategy", "tau", "beta"]),
    values,
)


@given(axes)
def test_key_gives_the_configuration_back(drawn):
    configuration = Configuration(drawn)
    again = Configuration.from_key(configuration.key)
    assert again == configuration
    assert again.key == configuration.key
    assert hash(again) == hash(configuration)


@given(axes)
def test_order_of_axes_does_not_matter(drawn):
    backwards = dict(reversed(drawn.items()))
    assert Configuration(drawn) == Configuration(backwards)
    assert list(Configuration(drawn)) == list(Configuration(backwards))


@given(axes)
def test_survives_json_as_a_dictionary(drawn):
    configuration = Configuration(drawn)
    assert Configuration(json.loads(json.dumps(configuration.as_dict()))) == configuration


@given(st.floats(min_value=1e-8, max_value=1e8))
def test_numbers_that_agree_to_six_digits_are_one_configuration(rate):
    printed = float(f"{rate:.6g}")
    assert Configuration(learning_rate=rate) == Configuration(learning_rate=printed)


def test_standard_axes_are_shown_first():
    configuration = Configuration(alpha=1, strategy="all_reduce", learning_rate=0.1, batch_size=8, nodes=2)
    assert list(configuration) == ["nodes", "batch_size", "learning_rate", "strategy", "alpha"]
    assert str(configuration).startswith("nodes=2 batch_size=8 learning_rate=0.1")


def test_replacing_and_leaving_out_axes_make_new_configurations():
    configuration = Configuration(nodes=1, batch_size=8)
    assert configuration.replaced(nodes=2) == Configuration(nodes=2, batch_size=8)
    assert configuration.without("nodes") == Configuration(batch_size=8)
    assert configuration.nodes == 1


def test_whole_numbers_and_floats_of_one_value_differ():
    assert Configuration(nodes=1).key != Configuration(nodes=1.0).key


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_refuses_numbers_that_are_not_finite(value):
    with pytest.raises(ValueError, match=r"'learning_rate'.*must be finite"):
        Configuration(learning_rate=value)


def test_refuses_values_of_other_types():
    with pytest.raises(
        TypeError, match=r"'tau' has the value \[1\]; allowed types are str, int, float and bool"
    ):
        Configuration({"tau": [1]})  # type: ignore[dict-item]


def test_axes_that_were_not_chosen_have_a_neutral_value():
    bare = Configuration(depth=3)
    assert (bare.nodes, bare.batch_size, bare.learning_rate, bare.strategy) == (1, 1, 1.0, "all_reduce")
