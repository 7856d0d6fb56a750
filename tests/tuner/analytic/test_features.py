"""Columns of any axes: what is ordered, what is not, and what cannot matter."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Configuration
from tests.levels import examples
from tests.recorded_grid import MACHINES, configuration
from tuner.analytic.features import (
    SAMPLES_SLOPES,
    SECONDS_SLOPES,
    Features,
    Slope,
    features_of,
    prior_of,
)

Array = npt.NDArray[np.float64]
CORES = {name: machine.cores for name, machine in MACHINES.items()}


def crossed(**axes: Sequence[str | int | float | bool]) -> list[Configuration]:
    return [
        Configuration(dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())
    ]


def column(features: Features, name: str) -> Array:
    return np.asarray(features.columns[:, features.names.index(name)])


GRID = [
    configuration(*values)
    for values in itertools.product(
        (1, 2, 8), ("small", "large"), (32, 128), (0.01, 0.1), ("all_reduce", "parameter_server")
    )
]


def correlation(slopes: dict[str, Slope], **changes: str | int | float) -> float:
    """Of the residuals of a configuration and of the same with some axes changed."""
    one = configuration(nodes=1, machine="small", batch_size=32, learning_rate=0.1)
    kernel = features_of(GRID, cores=CORES).design(slopes).kernel(1.0)
    return float(kernel[GRID.index(one), GRID.index(one.replaced(**changes))])


AXES = {
    "nodes": st.lists(st.integers(1, 64), min_size=1, max_size=3, unique=True),
    "machine": st.sampled_from([["small"], ["small", "large"], ["small", "unheard of"]]),
    "batch_size": st.lists(st.integers(1, 4096), min_size=1, max_size=3, unique=True),
    "learning_rate": st.lists(st.floats(1e-5, 1.0), min_size=1, max_size=3, unique=True),
    "strategy": st.sampled_from([["all_reduce"], ["all_reduce", "parameter_server", "gossip_pull"]]),
    "momentum": st.sampled_from([[0.0, 0.5, 0.9], [0.9, 0.99]]),
    "fused": st.just([True, False]),
    "optimizer": st.just(["sgd", "adam", "lamb"]),
}
spaces = st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=5, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: AXES[name] for name in names})
)


@examples(25)
@given(axes=spaces)
def test_any_axes_give_finite_columns_around_the_middle(axes: dict[str, list[str | int | float]]) -> None:
    listed = crossed(**axes)
    features = features_of(listed, cores=CORES)
    assert features.columns.shape == (len(listed), len(features.names))
    assert features.positions.shape == (len(listed), len(features.axes))
    assert len(set(features.names)) == len(features.names)
    assert np.isfinite(features.columns).all()
    assert (features.lengths > 0).all()
    assert features.names[0] == "intercept"
    assert (features.columns[:, 0] == 1).all()
    for name in ("log nodes", "log cores", "log batch", "log rate"):
        if name in features.names:
            assert column(features, name).min() == pytest.approx(-column(features, name).max())
    for slopes in (SECONDS_SLOPES, SAMPLES_SLOPES):
        design, names = features.design(slopes), features.names_of(slopes)
        assert design.columns.shape == (len(listed), len(names))
        kernel = design.kernel(1.0)
        np.testing.assert_allclose(np.diag(kernel), 1.0)
        assert np.linalg.eigvalsh(kernel).min() > -1e-7


def test_the_batch_alone_is_an_axis() -> None:
    features = features_of(crossed(batch_size=(16, 32, 128)), cores={})
    assert features.names == ("intercept", "log batch")
    np.testing.assert_allclose(np.diff(column(features, "log batch")), np.log([2.0, 4.0]))


def test_one_configuration_has_a_level_and_nothing_else() -> None:
    features = features_of([configuration()], cores=CORES)
    assert features.names == ("intercept",)
    assert features.axes == ()
    assert features.design(SECONDS_SLOPES).kernel(1.0).tolist() == [[1.0]]


def test_an_axis_that_never_changes_is_left_out() -> None:
    features = features_of(crossed(nodes=(1, 2), batch_size=(32,), learning_rate=(0.1,)), cores={})
    assert features.names == ("intercept", "log nodes", "log nodes squared")


def test_a_named_option_gets_a_column_for_each_of_its_values() -> None:
    features = features_of(crossed(optimizer=("sgd", "adam"), batch_size=(1, 2)), cores={})
    assert features.names == ("intercept", "log batch", "optimizer=adam", "optimizer=sgd")
    assert column(features, "optimizer=adam").tolist() == [0.0, 0.0, 1.0, 1.0]


def test_values_without_order_correlate_as_stated_and_the_same_whichever_they_are() -> None:
    features = features_of(crossed(optimizer=("sgd", "adam", "lamb")), cores={})
    kernel = features.design(SAMPLES_SLOPES).kernel(1.0)
    np.testing.assert_allclose(kernel[~np.eye(3, dtype=bool)], 0.6)


def test_a_numeric_option_is_ordered_where_it_has_more_than_two_values() -> None:
    three = features_of(crossed(warmup=(10, 100, 1000)), cores={})
    assert three.names == ("intercept", "warmup")
    np.testing.assert_allclose(np.diff(column(three, "warmup")), np.log(10.0))
    two = features_of(crossed(warmup=(10, 100)), cores={})
    assert two.names == ("intercept", "warmup=10", "warmup=100")
    with_zero = features_of(crossed(momentum=(0.0, 0.5, 0.9)), cores={})
    assert column(with_zero, "momentum").std() == pytest.approx(1.0)


def test_machines_are_ordered_by_cores_where_all_are_known_and_named_where_not() -> None:
    known = features_of(crossed(machine=("small", "large")), cores=CORES)
    assert known.names == ("intercept", "log cores")
    np.testing.assert_allclose(np.diff(column(known, "log cores")), np.log(4.0))
    strange = features_of(crossed(machine=("small", "strange")), cores=CORES)
    assert strange.names == ("intercept", "machine=small", "machine=strange")


def test_an_option_of_some_configurations_alone_distinguishes_them_from_the_others() -> None:
    listed = [Configuration(strategy="all_reduce"), Configuration(strategy="local_sgd", tau=4)]
    features = features_of(listed, cores={})
    assert {"tau=4", "tau=None"} <= set(features.names)


def test_who_waits_for_nobody_is_asynchronous_and_the_more_so_the_more_there_are() -> None:
    features = features_of(GRID, cores=CORES)
    asynchronous = column(features, "apart")
    assert asynchronous.tolist() == [float(c.strategy == "parameter_server") for c in GRID]
    np.testing.assert_allclose(
        column(features, "apart x log nodes"), asynchronous * column(features, "log nodes")
    )
    assert "apart" not in features_of([c for c in GRID if c.strategy == "all_reduce"], cores=CORES).names


def test_devices_of_a_node_change_no_difference_between_nodes() -> None:
    one, eight = (features_of(GRID, cores=CORES, devices_per_node=n) for n in (1, 8))
    np.testing.assert_allclose(one.columns, eight.columns, atol=1e-12)


def test_residuals_of_samples_do_not_show_machines_apart_nor_those_of_seconds_rates() -> None:
    assert correlation(SAMPLES_SLOPES, machine="large") == pytest.approx(1.0)
    assert correlation(SECONDS_SLOPES, learning_rate=0.01) == pytest.approx(1.0)
    for slopes, changes in (
        (SECONDS_SLOPES, {"machine": "large"}),
        (SAMPLES_SLOPES, {"learning_rate": 0.01}),
        (SECONDS_SLOPES, {"nodes": 8}),
        (SAMPLES_SLOPES, {"batch_size": 128}),
        (SAMPLES_SLOPES, {"strategy": "parameter_server"}),
    ):
        assert correlation(slopes, **changes) < 0.9
    features = features_of(crossed(machine=("small", "strange")), cores=CORES)
    np.testing.assert_allclose(features.design(SAMPLES_SLOPES).kernel(1.0), 1.0)


def test_each_quantity_has_the_bends_of_its_own_slopes() -> None:
    features = features_of(GRID, cores=CORES)
    seconds, samples = features.names_of(SECONDS_SLOPES), features.names_of(SAMPLES_SLOPES)
    assert set(seconds) ^ set(samples) == {"log nodes squared", "log rate squared", "log batch x log rate"}
    assert "log nodes squared" in seconds
    for slopes, names in ((SECONDS_SLOPES, seconds), (SAMPLES_SLOPES, samples)):
        found = features.design(slopes).columns
        np.testing.assert_array_equal(found, np.stack([column(features, n) for n in names], axis=1))


def test_a_prior_has_text_book_signs_or_none() -> None:
    names = ["intercept", "log nodes", "log rate squared", "optimizer=sgd"]
    textbook, neutral = (prior_of(name, names, SAMPLES_SLOPES, level=3.0) for name in ("textbook", "neutral"))
    nodes, bend = SAMPLES_SLOPES["log nodes"], SAMPLES_SLOPES["log rate squared"]
    np.testing.assert_allclose(textbook.mean, [3.0, nodes.mean, bend.mean, 0.0])
    np.testing.assert_allclose(neutral.mean, [3.0, 0.0, bend.neutral_mean, 0.0])
    np.testing.assert_allclose(textbook.sd[1:3], [nodes.sd, bend.sd])
    np.testing.assert_allclose(neutral.sd[1:3], [nodes.neutral_sd, bend.neutral_sd])
    assert textbook.sd[3] == neutral.sd[3] > 0
    assert textbook.sd[0] > 3.0


def test_the_neutral_prior_is_at_least_as_wide_as_the_text_book_s() -> None:
    for slope in [*SECONDS_SLOPES.values(), *SAMPLES_SLOPES.values()]:
        assert slope.neutral_sd >= slope.sd
        assert abs(slope.mean - slope.neutral_mean) <= 2 * slope.neutral_sd


def test_two_machines_with_as_many_cores_are_distinguished() -> None:
    found = features_of([Configuration(machine=m) for m in ("c5", "m5")], cores={"c5": 4, "m5": 4})
    assert found.design(SECONDS_SLOPES).kernel(1.0)[0, 1] < 0.99


def test_two_strategies_that_wait_have_a_slope_between_them() -> None:
    found = features_of([Configuration(strategy=s) for s in ("all_reduce", "local_sgd")], cores={})
    assert len(found.names) > 1


def test_an_axis_that_only_some_have_is_read_all_the_same() -> None:
    some = [Configuration(strategy="all_reduce", batch_size=8), Configuration(strategy="local_sgd", tau=3)]
    assert np.isfinite(features_of(some, cores={}).columns).all()
